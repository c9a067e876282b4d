//! The page about keys and scripts, made from the same tables the code uses.

use std::fmt::Write;

use super::keys::KINDS;
use super::scripts;

/// The keys and scripts of caches on Redis as Markdown; `docs/redis-cache.md` is this text.
#[must_use]
pub fn redis_reference() -> String {
    let mut page = String::from(INTRODUCTION);
    // Writing to a string cannot fail.
    for kind in &KINDS {
        let _ = writeln!(page, "| `{}` | {} | {} |", kind.name, kind.kind, kind.holds);
    }
    page.push_str(RULES);
    for script in scripts::all() {
        let _ = writeln!(page, "\n### {}\n", script.name());
        for line in script.source().lines().map_while(|line| line.strip_prefix("-- ")) {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            let _ = writeln!(page, "- **{what}** {}", rest.trim_start().replace('|', "\\|"));
        }
    }
    page
}

const INTRODUCTION: &str = "# The cache on Redis: keys and scripts

<!-- Generated from crates/cache/src/redis; `cargo test -p tidegate-cache --test redis_docs -- --ignored` writes it. -->

What lies on a Redis that Tidegate's cache uses, for those who look after it. `PREFIX` is `redis_prefix` (`tidegate` by default),
`NAME` the name of the cache (`api` for the one behind the HTTP interface), `NS` is `PREFIX:cache:NAME`. Any of these keys may be
deleted, evicted or flushed at any time: that costs loads, and never gives an old value.

## Keys

| key | type | holds |
|---|---|---|
";

const RULES: &str = "
The braces put a value and its lease into one slot of a cluster. A key that begins with `}` or U+0001 has a U+0001 put before it
there.

## What a value depends on

A value is a version byte, eight random bytes, the generation and the sequence it was begun under (eight bytes each, big-endian), a
header, and the bytes as they were given, compressed by zstd where that saves a tenth.
The header says until when it is of use, and which tags it bears with the generation of each. Who reads it compares: another generation of the cache or of a tag, or a listed prefix of its key with a higher number, and it is dead.
So invalidating a tag, a prefix or everything is one write, however many values it covers; what is dead is swept by `SCAN` and
`UNLINK`, or expires.

Generations are random, not counted: one that was evicted or lost comes back as another one, and values that bore the old one stay
dead. The first process that meets a Redis which was restarted, or which took over from another, begins a new
generation, as that Redis may have lost an invalidation.

## What is heard

Every process has one connection per node that tracks values, tags and the namespace (`CLIENT TRACKING ON BCAST NOLOOP`), and
asks over the same connection. So deleting or writing a value by any client, its expiry and its eviction are heard by all.

## Scripts
";
