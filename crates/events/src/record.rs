//! What is kept in the embedded store, table by table.

/// The tables of the embedded bus; a store is opened with these after those of others.
pub const TABLES: &[&str] = &["streams", "events", "published", "groups", "pending"];
