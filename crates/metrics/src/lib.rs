//! Measuring: counters, gauges, timers, percentiles, Prometheus text.
