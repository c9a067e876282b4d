//! Scripts whose writes are not told back to who ran them.

use std::time::Duration;

use bytes::Bytes;
use tidegate_redis_ops::{Class, Redis, Script, acl_line};
use tidegate_test_redis::{Cluster, Server};

use super::track;
use crate::{command, connect, until};

#[tokio::test]
async fn a_script_run_unheard_is_heard_by_others_only_and_ends_the_key_no_later() {
    let (server, cluster) = (Server::start().await, Cluster::start().await);
    for redis in [connect(&server.url()).await, connect(&cluster.url()).await] {
        let ((tracked, log), (_other, other_log)) = (track(&redis).await, track(&redis).await);
        until(async || tracked.ping_all().await.ok()).await;
        let script = Script::new(
            "write",
            "if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) end return ARGV[1]",
        );
        let life = Duration::from_secs(60);
        let run = async |key: &Bytes, value: &str| {
            let args = [Bytes::copy_from_slice(value.as_bytes())];
            let reply = tracked.run_unheard(&script, std::slice::from_ref(key), args, life).await.unwrap();
            assert_eq!(reply.as_str().unwrap(), value);
        };
        // Until each node knows the script.
        for number in 0..30 {
            run(&format!("t:{number}").into(), "x").await;
        }
        log.heard.lock().clear();
        for number in 0..100 {
            run(&format!("t:{number}").into(), "y").await;
        }
        other_log.wait_for_key("t:99").await;
        let left = command(&redis, &["PTTL", "t:7"]).await.unwrap().as_int().unwrap();
        assert!((50_000..60_000).contains(&left), "{left}");
        // It wrote nothing: a longer life ends no later than asked, and what is not there does not come to be.
        command(&redis, &["SET", "t:long", "1", "EX", "100000"]).await.unwrap();
        run(&"t:long".into(), "").await;
        assert!(command(&redis, &["PTTL", "t:long"]).await.unwrap().as_int().unwrap() < 60_000);
        run(&"t:absent".into(), "").await;
        assert_eq!(command(&redis, &["EXISTS", "t:absent"]).await.unwrap().as_int().unwrap(), 0);
        log.wait_for_key("t:long").await;
        assert_eq!(log.keys(), ["t:long"]);
    }
}

#[tokio::test]
async fn a_script_run_unheard_runs_once_whatever_redis_says() {
    let line = acl_line("app", "t:", "t:").replace(">password", ">secret").replace(" +multi +exec", "");
    let forbidden = Server::builder().acl(line.trim_start_matches("ACL SETUSER ")).start().await;
    let count = Script::new("count", "return redis.call('INCR', KEYS[1])");
    let life = Duration::from_secs(60);
    let counted = async |redis: &Redis| redis.run_unheard(&count, &["t:n".into()], [], life).await;
    let redis = connect(&forbidden.url_as("app", "secret")).await;
    let (tracked, _log) = track(&redis).await;
    for round in 1..=3 {
        assert_eq!(counted(&tracked).await.unwrap().as_int().unwrap(), round, "transactions are forbidden");
        assert_eq!(counted(&redis).await.unwrap().as_int().unwrap(), round + 1, "nobody watches");
        command(&redis, &["DECRBY", "t:n", "1"]).await.unwrap();
    }

    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (tracked, _log) = track(&redis).await;
    for round in 1..=3 {
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(counted(&tracked).await.unwrap().as_int().unwrap(), 2 * round - 1, "the script was forgotten");
        assert_eq!(counted(&tracked).await.unwrap().as_int().unwrap(), 2 * round);
    }
    command(&redis, &["SET", "t:n", "text"]).await.unwrap();
    assert_eq!(counted(&tracked).await.unwrap_err().class(), Class::Refused);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = counted(&tracked).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("OOM", Class::Refused), "{error}");
    command(&tracked, &["GET", "t:n"]).await.unwrap();
}
