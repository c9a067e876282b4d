//! The least an ACL user needs.

/// What Tidegate sends to Redis and why, one line per purpose. Whoever uses another command adds it here.
pub(crate) const COMMANDS: &[(&str, &[&str])] = &[
    ("to be let in and be seen", &["auth", "hello", "ping", "select", "client|setname", "client|id", "client|unblock"]),
    ("to know version and durability", &["info", "config|get", "role"]),
    ("to find its way in a cluster", &["cluster|slots", "asking"]),
    ("scripts", &["eval", "evalsha", "script|load", "script|exists", "time"]),
    ("keys of any type", &["scan", "unlink", "del", "exists", "expire", "pexpire", "pexpireat", "pttl", "ttl", "type"]),
    ("to hear what others do to keys that are held here", &["client|tracking", "multi", "exec"]),
    ("strings", &["get", "getdel", "getrange", "set", "mget", "incr", "incrby", "decrby", "strlen"]),
    (
        "hashes",
        &[
            "hget", "hset", "hsetnx", "hdel", "hmget", "hgetall", "hexists", "hincrby", "hlen", "hkeys", "hscan",
            "hstrlen",
        ],
    ),
    ("lists", &["lindex", "lpop", "rpush"]),
    (
        "sorted sets",
        &[
            "zadd",
            "zrem",
            "zcard",
            "zcount",
            "zscore",
            "zmscore",
            "zincrby",
            "zrank",
            "zrange",
            "zrangebyscore",
            "zrangebylex",
            "zrevrangebyscore",
            "zrangestore",
            "zpopmin",
            "zpopmax",
            "zremrangebyscore",
            "zremrangebyrank",
            "zscan",
        ],
    ),
    (
        "streams",
        &[
            "xadd",
            "xread",
            "xrange",
            "xrevrange",
            "xlen",
            "xsetid",
            "xtrim",
            "xdel",
            "xinfo|stream",
            "xinfo|groups",
            "xinfo|consumers",
            "xgroup|create",
            "xgroup|createconsumer",
            "xgroup|delconsumer",
            "xgroup|setid",
            "xgroup|destroy",
            "xreadgroup",
            "xack",
            "xpending",
            "xclaim",
            "xautoclaim",
        ],
    ),
    ("wake-ups", &["subscribe", "unsubscribe", "publish"]),
];

/// The `ACL SETUSER …` line for a user that may do what Tidegate does with keys and channels that begin with `prefix`
/// and with streams whose keys begin with `stream_prefix`, and nothing else. Where streams may have any name
/// (`stream_prefix` is empty), that is every key: a Redis shared with others wants a prefix. The password is left to the
/// operator: replace `>password`.
///
/// Redis before 7 knows no subcommands in rules beyond `-`: there `client|id` and the like are granted one by one as
/// well, as Redis 6.2 accepts `+command|subcommand`.
///
/// ```
/// let line = tidegate_redis_ops::acl_line("app", "tidegate:", "events:");
/// assert!(line.starts_with("ACL SETUSER app on >password resetkeys ~tidegate:* ~events:* resetchannels &tidegate:* -@all"));
/// assert!(!line.contains("+keys") && !line.contains("+flushall"));
/// assert!(tidegate_redis_ops::acl_line("app", "tidegate:", "").contains(" resetkeys ~tidegate:* ~* resetchannels "));
/// ```
pub fn acl_line(user: &str, prefix: &str, stream_prefix: &str) -> String {
    let keys = match stream_prefix {
        same if same == prefix => format!("~{prefix}*"),
        // `~*` comes last: Redis takes no further pattern after it.
        other => format!("~{prefix}* ~{other}*"),
    };
    let mut line = format!("ACL SETUSER {user} on >password resetkeys {keys} resetchannels &{prefix}* -@all");
    for command in COMMANDS.iter().flat_map(|(_, commands)| *commands) {
        line.push_str(" +");
        line.push_str(command);
    }
    line
}
