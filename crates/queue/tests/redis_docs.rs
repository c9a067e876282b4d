//! `docs/redis.md` is what the code says. `UPDATE_DOCS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[test]
fn the_page_about_keys_and_scripts_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.md");
    let page = tidegate_queue::redis_reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/redis.md is old; write it with UPDATE_DOCS=1 cargo test -p tidegate-queue --test redis_docs"
    );
}
