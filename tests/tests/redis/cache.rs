//! The cache of servers that share a Redis: changes seen by all, outages told at once, memory warmed after a restart.

use serde_json::{Value, json};
use tidegate_test_redis::{Cluster, Fsync, Persistence, Proxy, Server as Redis};
use tidegate_tests::{Client, Server, eventually, within};

use super::{PATIENCE, on, ready_is};

const CACHE: &str = "/api/performance/cache";

async fn set(client: &Client, key: &str, value: Value, tags: &[&str]) {
    client.post(&format!("{CACHE}/set"), json!({"key": key, "value": value, "tags": tags})).await.expect(200);
}

/// The value there is; while Redis is looked for, whatever the answer.
async fn value_of(client: &Client, key: &str) -> Option<Value> {
    let reply = client.get(&format!("{CACHE}/get/{key}")).await;
    match reply.status {
        200 => Some(reply.value()),
        _ => {
            let _ = reply.problem(404);
            None
        }
    }
}

async fn stats(client: &Client) -> Value {
    client.get(&format!("{CACHE}/stats")).await.expect(200).value()
}

/// Waits until the value is in this server's memory: a read of it does not ask Redis.
async fn in_memory(client: &Client, key: &str, value: &Value) {
    eventually("it is in memory", PATIENCE, || async {
        let before = stats(client).await["tiers"]["memory"]["hits"].clone();
        let is_there = value_of(client, key).await.as_ref() == Some(value);
        (is_there && stats(client).await["tiers"]["memory"]["hits"] != before).then_some(())
    })
    .await;
}

/// Waits until this server gives `value`, and checks that it gives nothing else afterwards.
async fn settles_on(client: &Client, key: &str, value: Option<Value>) {
    eventually(&format!("{key} becomes {value:?}"), PATIENCE, || async {
        (value_of(client, key).await == value).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert_eq!(value_of(client, key).await, value, "{key}: nothing older comes after it");
    }
}

#[tokio::test]
async fn a_change_at_one_server_is_a_change_at_the_other() {
    let redis = Redis::start().await;
    let (here, there) = (on(&redis).start().await, on(&redis).start().await);
    let (here, there) = (here.client(), there.client());
    set(&here, "u:1", json!({"n": 1}), &["users"]).await;
    in_memory(&there, "u:1", &json!({"n": 1})).await;

    set(&here, "u:1", json!({"n": 2}), &["users"]).await;
    settles_on(&there, "u:1", Some(json!({"n": 2}))).await;
    for what in [json!({"keys": ["u:1"]}), json!({"tags": ["users"]}), json!({"prefix": "u:"})] {
        set(&here, "u:1", json!(3), &["users"]).await;
        in_memory(&there, "u:1", &json!(3)).await;
        here.post(&format!("{CACHE}/invalidate"), what.clone()).await.expect(200);
        assert_eq!(value_of(&here, "u:1").await, None, "{what}: at once where it was called");
        settles_on(&there, "u:1", None).await;
    }
    for path in ["u%3A1", "clear", "clear?prefix=u"] {
        set(&here, "u:1", json!(4), &[]).await;
        in_memory(&there, "u:1", &json!(4)).await;
        let deleted = here.delete(&format!("{CACHE}/{path}")).await.expect(200).value();
        assert_eq!(deleted, json!({"deleted": 1}), "{path}");
        settles_on(&there, "u:1", None).await;
    }
    assert!(stats(&there).await["invalidations"].as_u64().is_some_and(|count| count > 0));
}

#[tokio::test]
async fn what_others_throw_out_of_redis_is_given_by_nobody_any_more() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    set(&client, "k", json!(1), &[]).await;
    in_memory(&client, "k", &json!(1)).await;
    redis.cli(&["FLUSHALL"]).await;
    settles_on(&client, "k", None).await;
    set(&client, "k", json!(2), &[]).await;
    assert_eq!(value_of(&client, "k").await, Some(json!(2)));
}

#[tokio::test]
async fn without_redis_the_cache_says_so_at_once_and_a_revived_redis_gives_nothing_old() {
    for persistence in [Persistence::None, Persistence::Aof(Fsync::Always)] {
        let redis = Redis::builder().persistence(persistence).start().await;
        let server = on(&redis).start().await;
        let client = server.client();
        set(&client, "k", json!(1), &["t"]).await;
        in_memory(&client, "k", &json!(1)).await;
        redis.kill();
        ready_is(&server, 503).await;

        let body = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        for (resource, body) in [
            ("get-many", body(r#"{"keys":["k"]}"#)),
            ("set", body(r#"{"key":"k","value":2}"#)),
            ("set-many", body(r#"{"entries":[{"key":"k","value":2}]}"#)),
            ("invalidate", body(r#"{"keys":["k"]}"#)),
            ("invalidate", body(r#"{"tags":["t"]}"#)),
            ("invalidate", body(r#"{"prefix":"k"}"#)),
            ("warm", body(r#"{"keys":["other"]}"#)),
            ("warm", body(r#"{"hottest":10}"#)),
        ] {
            let reply = within("an answer", PATIENCE, client.post(&format!("{CACHE}/{resource}"), body.clone())).await;
            assert_eq!(reply.problem(503)["code"], "redis_unavailable", "{resource} {body}");
        }
        for path in ["k", "clear", "clear?prefix=k"] {
            assert_eq!(client.delete(&format!("{CACHE}/{path}")).await.problem(503)["code"], "redis_unavailable");
        }
        let reply = client.get(&format!("{CACHE}/get/k")).await;
        assert_eq!(reply.problem(503)["code"], "redis_unavailable", "memory gives nothing it cannot vouch for");
        let queued = json!({"keys": ["k"], "queued": true});
        client.post(&format!("{CACHE}/invalidate"), queued).await.expect(202);
        assert_eq!(stats(&client).await["queue"]["applied"], 0, "it waits for Redis");

        redis.restart().await;
        ready_is(&server, 200).await;
        eventually("the cache works again", PATIENCE, || async {
            (client.get(&format!("{CACHE}/get/k")).await.status == 404).then_some(())
        })
        .await;
        eventually("what was queued is applied", PATIENCE, || async {
            (stats(&client).await["queue"]["applied"] == 1).then_some(())
        })
        .await;
        set(&client, "k", json!(3), &[]).await;
        in_memory(&client, "k", &json!(3)).await;
    }
}

#[tokio::test]
async fn a_frozen_redis_costs_a_caller_no_more_than_the_caches_own_timeout() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    set(&client, "k", json!(1), &[]).await;
    redis.pause();
    let reply = within("an answer", PATIENCE, client.get(&format!("{CACHE}/get/other"))).await;
    let _ = reply.problem(503);
    let body = json!({"key": "k", "value": 2});
    let reply = within("an answer", PATIENCE, client.post(&format!("{CACHE}/set"), body)).await;
    let _ = reply.problem(503);
    redis.resume();
    eventually("it works again", PATIENCE, || async {
        let body = json!({"key": "k", "value": 3});
        (client.post(&format!("{CACHE}/set"), body).await.status == 200).then_some(())
    })
    .await;
    settles_on(&client, "k", Some(json!(3))).await;
}

#[tokio::test]
async fn a_link_cut_again_and_again_gives_nothing_old() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.addr());
    let there = Server::builder().redis(&redis.url_through(&proxy)).start().await;
    let here = on(&redis).start().await;
    let (here, there) = (here.client(), there.client());
    for n in 0..20 {
        set(&here, "k", json!(n), &[]).await;
        eventually("it is seen", PATIENCE, || async {
            let reply = there.get(&format!("{CACHE}/get/k")).await;
            (reply.status == 200 && reply.value() == n).then_some(())
        })
        .await;
        if n % 2 == 0 {
            proxy.kill_all();
        }
    }
}

#[tokio::test]
async fn the_hottest_keys_are_in_memory_after_a_restart() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    let entries: Vec<_> = (0..50).map(|n| json!({"key": format!("k{n}"), "value": n})).collect();
    client.post(&format!("{CACHE}/set-many"), json!({"entries": entries})).await.expect(200);
    let keys: Vec<_> = (0..1000).map(|n| format!("k{}", n % 3)).collect();
    for _ in 0..30 {
        client.post(&format!("{CACHE}/get-many"), json!({"keys": keys})).await.expect(200);
    }
    let server = server.stop().await.start().await;
    let client = server.client();
    eventually("memory is warm", PATIENCE, || async { (stats(&client).await["size"] == 3).then_some(()) }).await;
    for n in 0..3 {
        assert_eq!(value_of(&client, &format!("k{n}")).await, Some(json!(n)));
    }
    assert_eq!(stats(&client).await["tiers"]["memory"]["hits"], 3);
    let warmed = client.post(&format!("{CACHE}/warm"), json!({"hottest": 2})).await.expect(200);
    assert_eq!(warmed.value(), json!({"warmed": 2, "missing": 0, "failed": 0}));
}

#[tokio::test]
async fn what_is_no_json_on_redis_is_absent_and_never_breaks_an_answer() {
    let redis = Redis::start().await;
    let server = on(&redis).env("TIDEGATE_CACHE_COMPRESS_FROM", "0").start().await;
    let client = server.client();
    set(&client, "k", json!("value of mine"), &[]).await;
    let script = "local n = 0 for _, key in ipairs(redis.call('SCAN', '0', 'COUNT', 1000)[2]) do if redis.call('TYPE', key).ok == 'string' then \
        local value = redis.call('GET', key) local spoilt = string.gsub(value, '\"value of mine\"', '{\"value of min}') \
        if spoilt ~= value then redis.call('SET', key, spoilt, 'KEEPTTL') n = n + 1 end end end return n";
    assert_eq!(redis.cli(&["EVAL", script, "0"]).await, "1", "one record was spoilt");
    settles_on(&client, "k", None).await;
    assert!(stats(&client).await["unreadable"].as_u64().is_some_and(|count| count > 0));
}

#[tokio::test]
async fn the_cache_can_have_a_redis_of_its_own_that_evicts_and_jobs_do_not_notice_when_it_is_gone() {
    let (jobs, values) = (Redis::start().await, Redis::builder().config("maxmemory 64mb").start().await);
    values.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]).await;
    let with = |builder: tidegate_tests::Builder| builder.env("TIDEGATE_CACHE_REDIS", &values.url());
    // One keeps its jobs on Redis, the other in a folder: they share the values all the same.
    let (mut here, there) = (with(on(&jobs)).start().await, with(Server::builder()).start().await);
    let (one, other) = (here.client(), there.client());
    set(&one, "k", json!(1), &["t"]).await;
    in_memory(&other, "k", &json!(1)).await;
    one.post(&format!("{CACHE}/invalidate"), json!({"tags": ["t"]})).await.expect(200);
    settles_on(&other, "k", None).await;
    let on_jobs =
        jobs.cli(&["EVAL", "return #redis.call('SCAN', '0', 'MATCH', '*cache*', 'COUNT', 1000)[2]", "0"]).await;
    assert_eq!(on_jobs, "0", "no value lies with the jobs");

    for n in 0..30 {
        let text = format!("{}{n}", "x".repeat(900_000));
        set(&one, &format!("large{n}"), json!(text), &[]).await;
    }
    set(&one, "k", json!(2), &[]).await;
    in_memory(&other, "k", &json!(2)).await;
    values.kill();
    eventually("the cache knows", PATIENCE, || async {
        let reply = one.get(&format!("{CACHE}/get/k")).await;
        (reply.status == 503 && reply.problem(503)["code"] == "redis_unavailable").then_some(())
    })
    .await;
    let metrics = one.get("/metrics").await;
    assert!(metrics.text().contains("\ntidegate_cache_redis_connected 0"), "the metrics tell");
    for server in [&here, &there] {
        assert_eq!(server.client().get("/readyz").await.status, 200);
        super::works(server).await;
    }
    assert!(here.process().said().contains("cache_redis"), "what is said of it at the start is marked");
}

#[tokio::test]
async fn a_redis_of_the_caches_own_that_is_not_there_stops_the_start_by_its_name() {
    let redis = Redis::start().await;
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    redis.kill();
    let exit = Server::builder().env("TIDEGATE_CACHE_REDIS", &url).refusal().await;
    assert_eq!(exit.code, Some(69), "{}", exit.said());
    assert!(exit.said().contains(&redis.addr().to_string()) && !exit.said().contains("hunter2"), "{}", exit.said());
}

#[tokio::test]
async fn the_user_that_the_acl_command_prints_may_do_all_that_the_cache_needs() {
    let printed = tidegate_tests::run(&["redis", "acl", "--user", "shop", "--prefix", "shop"], &[]).await;
    let line = printed.stdout.trim().strip_prefix("ACL SETUSER ").expect("a line for redis-cli").to_owned();
    let user = line.replace(">password", ">hunter2");
    let redis = Redis::builder().acl(user).acl("default off").start().await;
    let server =
        Server::builder().redis(&redis.url_as("shop", "hunter2")).env("TIDEGATE_REDIS_PREFIX", "shop").start().await;
    let client = server.client();
    for n in 0..3 {
        set(&client, &format!("k{n}"), json!("x".repeat(5000)), &["t"]).await;
    }
    let path = |resource: &str| format!("{CACHE}/{resource}");
    client.post(&path("get-many"), json!({"keys": ["k0", "k1", "absent"]})).await.expect(200);
    client.post(&path("invalidate"), json!({"keys": ["k0"], "tags": ["t"], "prefix": "k"})).await.expect(200);
    set(&client, "k", json!(1), &[]).await;
    assert_eq!(client.delete(&path("k")).await.expect(200).value(), json!({"deleted": 1}));
    set(&client, "k", json!(1), &[]).await;
    client.delete(&path("clear?prefix=k")).await.expect(200);
    client.delete(&path("clear")).await.expect(200);
    client.post(&path("warm"), json!({"hottest": 10})).await.expect(200);
    let entries: Vec<_> = (0..300).map(|_| json!({"key": "hot", "value": 1})).collect();
    client.post(&path("set-many"), json!({"entries": entries})).await.expect(200);
    for _ in 0..2 {
        client.post(&path("get-many"), json!({"keys": vec!["hot"; 1000]})).await.expect(200);
    }
    server.stop().await;
    assert_eq!(redis.cli(&["ACL", "LOG"]).await, "", "nothing was refused");
}

#[tokio::test]
async fn on_a_cluster_the_same_holds() {
    let cluster = Cluster::start().await;
    let start = async || Server::builder().redis(&cluster.url()).start().await;
    let (here, there) = (start().await, start().await);
    let (here, there) = (here.client(), there.client());
    let keys: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| json!({"key": key, "value": key, "tags": ["t"]})).collect();
    here.post(&format!("{CACHE}/set-many"), json!({"entries": entries})).await.expect(200);
    let found = async |client: &Client| {
        let reply = client.post(&format!("{CACHE}/get-many"), json!({"keys": keys})).await.expect(200);
        let values = reply.value()["values"].as_array().expect("a list").clone();
        values.iter().filter(|one| one["found"] == true && one["value"] == one["key"]).count()
    };
    for client in [&here, &there] {
        assert_eq!(found(client).await, 60);
    }
    let deleted = here.delete(&format!("{CACHE}/k0")).await.expect(200).value();
    assert_eq!(deleted, json!({"deleted": 1}));
    settles_on(&there, "k0", None).await;
    here.post(&format!("{CACHE}/invalidate"), json!({"tags": ["t"]})).await.expect(200);
    eventually("all are gone", PATIENCE, || async { (found(&there).await == 0).then_some(()) }).await;
    here.post(&format!("{CACHE}/set-many"), json!({"entries": entries})).await.expect(200);
    assert_eq!(found(&there).await, 60);
    let deleted = there.delete(&format!("{CACHE}/clear")).await.expect(200).value();
    assert_eq!(deleted, json!({"deleted": 60}), "the total of all nodes");
    eventually("all are gone", PATIENCE, || async { (found(&here).await == 0).then_some(()) }).await;
}
