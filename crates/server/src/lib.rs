//! The HTTP server: jobs, workers, health, metrics.
