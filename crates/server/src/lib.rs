//! The HTTP server: jobs, workers, event streams, the cache, health, metrics.
//!
//! Contents, in reading order: a [`Config`](config::Config) comes from [`config`] and [`mod@env`]; a [`Server`] is started
//! with it and run until it has drained. Requests come in through [`accept`], pass the gate (`gate`, `browser`, [`auth`])
//! and reach one file per resource in `api`. What goes wrong becomes a [`Problem`](error::Problem) in [`error`].

pub mod accept;
pub mod auth;
pub mod config;
pub mod env;
pub mod error;

mod answers;
mod api;
mod app;
mod backend;
mod body;
mod browser;
mod builtin;
mod cache;
mod gate;
mod limits;
mod listeners;
mod rate;
mod seats;
mod serve;

pub use backend::redis_acl;
pub use serve::{Ended, Server, StartError, openapi_json, stop_signals};
