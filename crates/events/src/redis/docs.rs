//! The page about keys, messages and scripts, made from the same tables the code uses.

use std::fmt::Write;

use super::keys::{KEYS, MESSAGES};
use super::scripts::SOURCES;

/// The keys, messages and scripts of event streams on Redis as Markdown; `docs/redis-streams.md` is this text.
#[must_use]
pub fn redis_reference() -> String {
    let mut page = String::from(INTRODUCTION);
    // Writing to a string cannot fail.
    for key in &KEYS {
        let _ = writeln!(page, "| `{}` | {} | {} |", key.name, key.kind, key.holds);
    }
    page.push_str(ENTRIES);
    page.push_str(MESSAGES_HEAD);
    for (message, meaning) in MESSAGES {
        let _ = writeln!(page, "| `{message}` | {meaning} |");
    }
    page.push_str(READING);
    page.push_str(SCRIPTS);
    for (verb, source) in SOURCES {
        let _ = writeln!(page, "\n### {verb}\n");
        for line in source.lines().map_while(|line| line.strip_prefix("-- ")) {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            let _ = writeln!(page, "- **{what}** {}", rest.trim_start().replace('|', "\\|"));
        }
    }
    page
}

const INTRODUCTION: &str = "# Event streams on Redis: keys, messages and scripts

<!-- Generated from crates/events/src/redis; `cargo test -p tidegate-events --test redis_docs -- --ignored` writes it. -->

What lies on a Redis that Tidegate uses for event streams, for those who look after it or use the same streams themselves. A
stream is a Redis stream under its own name: write to it by `XADD`, read it by `XRANGE` or `XREAD`, delete it, as you like.
Tidegate's own keys begin with a prefix (`redis_prefix`, `tidegate` by default; `PREFIX` below) and are its own. The braces keep
what belongs to a stream in its slot of a cluster.

## Keys

| key | type | holds |
|---|---|---|
";

const ENTRIES: &str = "
## Entries

What Tidegate publishes has the fields `tg` (`1`), `type`, `data`, `key`, `source`, `subject`, `id` (the idempotence id), in this
order, absent ones left out. `data` is JSON text.

An entry whose first field is not `tg` was written by somebody else. Its fields become one JSON object of strings, which is the
event's data; a field that comes twice becomes an array of its values; bytes that are no UTF-8 become U+FFFD. A field `type` of 1
to 256 bytes without control characters is the event's type as well.

Retention by length and by age is applied with each publish through Tidegate, in whole nodes of the stream (about a hundred
entries): a stream nobody publishes to keeps what it has.
";

const MESSAGES_HEAD: &str = "
## Messages on the channel `PREFIX:bell`

| message | meaning |
|---|---|
";

const READING: &str = "
## How events reach listeners

Each Tidegate process has one blocked `XREAD` over the streams somebody listens to, up to a hundred of them
(`direct_streams_max`). Beyond that, and in a cluster, it listens to the bell and reads the streams that were rung for. What others
wrote by `XADD` rings no bell: it is found by a pass over the streams that are not in the blocked read, once a second, and the
stream then takes a place in the blocked read. Nothing of this runs while nobody listens.
";

const SCRIPTS: &str = "
## Scripts

Every verb that changes something is one script, so it happens as a whole or not at all. `publish` carries the number of the
operation; sent again because a reply was lost, it answers as before and publishes nothing.
";
