//! `docs/redis.md` is what the code says; `cargo test -p tidegate-queue --test redis_docs -- --ignored` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.md");

#[test]
fn the_page_about_keys_and_scripts_is_current() {
    let written = std::fs::read_to_string(PATH).unwrap_or_default();
    let current = written == tidegate_queue::redis_reference();
    assert!(current, "it is old; write it with: cargo test -p tidegate-queue --test redis_docs -- --ignored");
}

#[test]
#[ignore = "writes docs/redis.md"]
fn write_the_page() {
    std::fs::write(PATH, tidegate_queue::redis_reference()).unwrap();
}
