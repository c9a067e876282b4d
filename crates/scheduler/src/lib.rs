//! Runs jobs that wait in a queue: handlers, worker pool, retries, cron, CPU tasks.
