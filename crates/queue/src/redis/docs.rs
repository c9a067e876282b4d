//! The page about keys and scripts, made from the same tables the code uses.

use std::fmt::Write;

use super::keys::KEYS;
use super::scripts::SOURCES;

/// The keys, channels and scripts of a queue on Redis as Markdown; `docs/redis.md` is this text.
#[must_use]
pub fn redis_reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Keys of a queue\n\n| key | type | holds |\n|---|---|---|\n");
    for key in &KEYS {
        let name = if key.name == "op" { "op:PROCESS:p, :s, :r" } else { key.name };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {} | {} |", key.kind, key.holds);
    }
    page.push_str(CHANNELS);
    page.push_str("\n## Scripts\n\n");
    page.push_str(SCRIPTS);
    for (verb, source) in SOURCES {
        let header: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("--")).map(str::trim).collect();
        let _ = writeln!(page, "### {verb}\n\n{}\n", header.join("\n"));
    }
    while page.ends_with("\n\n") {
        page.pop();
    }
    page
}

const INTRODUCTION: &str = "# Queues on Redis: keys and scripts

<!-- Generated from crates/queue/src/redis; `cargo test -p tidegate-queue --test redis_docs -- --ignored` writes it. -->

What lies on a Redis that Tidegate uses, for those who look after it. Do not write to these keys: the scripts trust what they
find. How to run several servers, Sentinel and Cluster, and what survives what, is in [servers.md](servers.md).

Every key begins with a prefix (`redis_prefix`, `tidegate` by default). `PREFIX:queues` is a hash of the names of all queues.
All other keys of a queue are `PREFIX:{QUEUE}:KEY`; the braces keep them in one slot of a cluster. An id is the job's number in 6
bytes, big-endian; in `default-1d2040280001` it is the hexadecimal part. Numbers and grants begin with the time, so none is
used twice even when a Redis has lost the end of its history.
";

const CHANNELS: &str = "
## Channels of a queue

| channel | message |
|---|---|
| `wake` | `w`: there is something to claim, or something is due earlier than the waiting processes know; `c` and an id: this running job should stop |
| `events` | what happened, as in `log`, behind the place of its first entry; and progress |

Nobody polls. A process that found nothing to claim has said so (`waiting` in `meta`); whoever makes something claimable then
publishes one `w`. Everybody claims once after every (re)connection of its subscription, so a lost message strands nothing.
";

const SCRIPTS: &str = "Every verb is one script, so it happens as a whole or not at all. All take the keys above, in that order, and begin their
arguments with the settings of the caller. Those that change something also do some of what is due (rescue, promote, expire,
prune), up to a bound. `push` and `step` carry the number of the operation; sent again because a reply was lost, they answer
as before and change nothing. Replies begin with the time on Redis and when something is due next; a tally counts what
happened, by change.

";
