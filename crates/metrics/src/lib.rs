//! Measuring: counters, gauges, timers, windows, percentiles, Prometheus text.
//!
//! The ground floor of the house: it knows no other tidegate crate and no runtime. What a process is (memory, CPU,
//! uptime) is not measured here; the server does that and puts it into gauges.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_metrics::Registry;
//!
//! let registry = Registry::new();
//! let pushes = registry.counter_with("queue_pushes_total", "Jobs accepted.", &[("queue", "email")]);
//! let push_time = registry.timer("queue_push_seconds", "Time from call to durable answer.");
//! pushes.inc();
//! push_time.record(Duration::from_micros(250));
//!
//! let text = registry.render_prometheus();
//! assert!(text.contains(r#"queue_pushes_total{queue="email"} 1"#));
//! assert_eq!(registry.operations()[0].max, Duration::from_micros(250));
//! ```

mod counter;
mod gauge;
mod timer;

mod registry;
mod stats;
mod window;

mod interchange;
mod percentiles;

mod buckets;
mod family;
mod histogram;
mod labels;
mod packed;
mod prometheus;
mod snapshot;
mod stripe;

pub use counter::Counter;
pub use gauge::Gauge;
pub use interchange::HdrHistogram;
pub use percentiles::{Method, PercentileConfig, Percentiles, Summary, percentiles};
pub use registry::{Config, Registry};
pub use snapshot::Snapshot;
pub use stats::OperationStats;
pub use timer::{Outcome, Running, Timer};
pub use window::{Recent, Window};
