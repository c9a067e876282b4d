//! Pure numeric functions: similarity, matrix product, normalized power.
//!
//! Nothing here knows jobs, JSON or async. Every function works on the rayon pool it is called in and builds none,
//! so whoever owns the processor decides how much of it is used. Long work takes a [`Control`]: it can be cancelled
//! from any thread and tells how far it is. The same input gives the same bits whatever the number of threads.

mod control;
mod error;
pub mod matrix;
pub mod power;
mod scratch;
pub mod similarity;

pub use control::{Control, Progress};
pub use error::Error;
