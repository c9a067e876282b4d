//! The embedded durable store: tables, group commit, recovery that never loses silently.
