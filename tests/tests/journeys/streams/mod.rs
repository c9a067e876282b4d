//! Event streams over HTTP: what publishers, readers, listeners and groups may rely on.

mod groups;
mod hostile;
mod listening;
mod managing;
mod publishing;
mod resuming;
mod scopes;

use std::time::Duration;

use super::{auth, builder, start};

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(30);
