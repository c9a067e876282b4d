//! Faults: damaged files, full disks, failed syncs, killed processes. Whatever happens, nothing acknowledged vanishes
//! without a word.
//!
//! `bare` shows what the engine alone does, which is why the store keeps a mark of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bare;
mod child;
mod common;
mod ending;
mod files;
mod full_disk;
mod journal;
mod process;
mod repair;
mod sync;
