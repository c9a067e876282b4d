//! `docs/redis-streams.md` is what the code says; `cargo test -p tidegate-events --test redis_docs -- --ignored` writes it
//! anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis-streams.md");

#[test]
fn the_page_about_streams_on_redis_is_current() {
    let written = std::fs::read_to_string(PATH).unwrap_or_default();
    let current = written == tidegate_events::redis_reference();
    assert!(current, "it is old; write it with: cargo test -p tidegate-events --test redis_docs -- --ignored");
}

#[test]
#[ignore = "writes docs/redis-streams.md"]
fn write_the_page() {
    std::fs::write(PATH, tidegate_events::redis_reference()).unwrap();
}
