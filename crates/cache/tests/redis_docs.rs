//! `docs/redis-cache.md` is what the code says.

use std::path::Path;

fn page() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/redis-cache.md")
}

#[test]
fn the_page_is_current() {
    let written = std::fs::read_to_string(page()).unwrap_or_default();
    assert!(
        written == tidegate_cache::redis_reference(),
        "write it anew: cargo test -p tidegate-cache --test redis_docs -- --ignored"
    );
}

#[test]
#[ignore = "writes docs/redis-cache.md"]
fn write_the_page() {
    std::fs::write(page(), tidegate_cache::redis_reference()).expect("the docs folder can be written");
}
