//! Where Redis is and how it is set up: what will do, what is warned about, what stops the start.

use serde_json::json;
use tidegate_test_redis::{Cluster, Fsync, Persistence, Sentinel, Server as Redis};
use tidegate_tests::{Exit, Server, eventually, run};

use super::{PATIENCE, on, works};

fn clear(exit: &Exit, code: i32, words: &[&str]) {
    assert_eq!(exit.code, Some(code), "{}", exit.said());
    for word in words {
        assert!(exit.said().contains(word), "{word:?} is missing: {}", exit.said());
    }
    for word in ["panicked", "hunter2"] {
        assert!(!exit.said().contains(word), "{word:?} is told: {}", exit.said());
    }
}

/// What `tidegate redis acl` prints, as a configuration file has it, with this password.
async fn acl(user: &str, prefix: &str, password: &str) -> String {
    let printed = run(&["redis", "acl", "--user", user, "--prefix", prefix], &[]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.said());
    let line = printed.stdout.trim().strip_prefix("ACL SETUSER ").expect("a line for redis-cli");
    line.replace(">password", &format!(">{password}"))
}

#[tokio::test]
async fn the_user_that_the_acl_command_prints_may_do_all_that_is_needed() {
    let user = acl("shop", "shop", "hunter2").await;
    let redis = Redis::builder().acl(user).acl("default off").start().await;
    let mut server =
        Server::builder().redis(&redis.url_as("shop", "hunter2")).env("TIDEGATE_REDIS_PREFIX", "shop").start().await;
    works(&server).await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!("x".repeat(10_000))).await;
    let mut events = client.events(&format!("/api/performance/async/job/{}/events", job.job_id)).await;
    assert!(events.next(PATIENCE).await.is_some());
    client.cancel(&job.job_id).await;
    client.retry(&job.job_id).await.expect(202);
    for n in 0..3 {
        let options = json!({"queue": "fair", "key": "k", "dedupKey": n.to_string(), "expiresIn": 600_000, "delay": 1});
        client.submit(json!({"jobType": "a", "data": n, "options": options})).await;
        let claimed = client.claim_one("fair", "w").await;
        assert_eq!(client.fail("fair", &claimed.lease, "again", json!({"retryIn": n * 100})).await, "ok");
    }
    client.post("/api/queues/default/pause", json!({})).await.expect(200);
    client.post("/api/queues/default/resume", json!({})).await.expect(200);
    client.jobs("queue=default&status=completed").await;
    client.delete("/api/queues/default/jobs?status=queued").await.expect(200);
    client.get("/api/queues").await.expect(200);
    client.claim("default", "w", 1, 300).await;
    let ready = client.get("/readyz").await.expect(200);
    assert!(!ready.text().contains("hunter2"), "{}", ready.text());
    assert!(!server.process().said().contains("hunter2"), "{}", server.process().said());
    server.stop().await;
    assert_eq!(redis.cli(&["ACL", "LOG"]).await, "", "nothing was refused");
}

#[tokio::test]
async fn a_user_who_may_not_do_what_is_needed_stops_the_start_with_the_line_that_lets_him() {
    let user = acl("shop", "elsewhere", "hunter2").await;
    let redis = Redis::builder().acl(user).start().await;
    let builder = Server::builder().redis(&redis.url_as("shop", "hunter2")).env("TIDEGATE_REDIS_PREFIX", "shop");
    clear(&builder.refusal().await, 78, &["NOPERM", "ACL SETUSER", "~shop:*", "+evalsha"]);

    // All commands and keys, but no channels: what Redis 7 gives a user who was not told `&*`.
    let redis = Redis::builder().acl("shop on >hunter2 ~* resetchannels +@all").start().await;
    let exit = Server::builder().redis(&redis.url_as("shop", "hunter2")).refusal().await;
    clear(&exit, 78, &["NOPERM", "channel", "ACL SETUSER", "&tidegate:*"]);
    assert_eq!(redis.cli(&["DBSIZE"]).await, "0", "nothing was begun");
}

#[tokio::test]
async fn a_right_taken_away_later_is_told_to_callers_by_code_and_to_the_operator_by_name() {
    let user = acl("shop", "tidegate", "hunter2").await;
    let redis = Redis::builder().acl(user).start().await;
    let mut server = Server::builder().redis(&redis.url_as("shop", "hunter2")).start().await;
    redis.cli(&["ACL", "SETUSER", "shop", "-evalsha", "-eval"]).await;
    let reply = server.client().try_submit(json!({"jobType": "a", "data": 1})).await;
    assert_eq!(reply.problem(500)["code"], "redis_not_permitted");
    let told = server.process().line("tidegate redis acl", PATIENCE).await.expect("it runs");
    assert!(told.contains("evalsha"), "{told}");
}

#[tokio::test]
async fn what_keeps_a_start_from_its_redis_is_named_with_what_to_do() {
    let redis = Redis::builder().requirepass("hunter2").start().await;
    let wrong = format!("redis://:hunter2x@{}", redis.addr());
    clear(&Server::builder().redis(&wrong).refusal().await, 78, &["WRONGPASS", "REDIS_URL", &redis.addr().to_string()]);
    let none = format!("redis://{}", redis.addr());
    clear(&Server::builder().redis(&none).refusal().await, 78, &["NOAUTH", "password"]);
    redis.stop().await;
    clear(&on(&redis).refusal().await, 69, &["failed to reach Redis", &redis.addr().to_string(), "refused"]);
}

#[tokio::test]
async fn with_redis_no_folder_is_touched() {
    let redis = Redis::start().await;
    let builder = on(&redis);
    let data = builder.data_folder().to_owned();
    let mut server = builder.args(["--data", data.to_str().expect("UTF-8")]).start().await;
    works(&server).await;
    assert!(server.process().said().contains("data has no effect"), "{}", server.process().said());
    server.stop().await;
    assert!(!data.exists(), "{}", data.display());
}

#[tokio::test]
async fn what_an_operator_should_change_is_logged_shown_and_counted() {
    let redis = Redis::builder().config("maxmemory-policy allkeys-lru").start().await;
    let mut server = on(&redis).start().await;
    let said = server.process().said();
    for warning in ["maxmemory-policy is allkeys-lru", "A restart of Redis begins empty"] {
        assert!(said.lines().any(|line| line.contains("WARN") && line.contains(warning)), "{warning}: {said}");
    }
    let ready = server.client().get("/readyz").await.expect(200).value();
    assert_eq!((&ready["backend"], &ready["durability"]), (&json!("redis"), &json!("none")));
    assert_eq!(ready["redis"]["topology"], "standalone");
    let warnings = ready["warnings"].to_string();
    assert!(warnings.contains("noeviction") && warnings.contains("appendonly"), "{warnings}");
    let metrics = server.client().get("/metrics").await.expect(200);
    for (warning, value) in [("evicting", 1), ("weak_durability", 1), ("unreadable", 0)] {
        let line = format!("tidegate_redis_warning{{warning=\"{warning}\"}} {value}");
        assert!(metrics.text().contains(&line), "{line} is missing: {}", metrics.text());
    }

    let good = Redis::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let server = on(&good).start().await;
    assert!(server.banner().contains("(redis, durability: always)"), "{}", server.banner());
    let ready = server.client().get("/readyz").await.expect(200).value();
    assert!(ready["warnings"].is_null(), "{ready}");
    assert!(server.client().get("/metrics").await.text().contains("tidegate_redis_warning{warning=\"evicting\"} 0"));
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own_and_none_without_it() {
    let redis = Redis::builder().tls().requirepass("hunter2").start().await;
    let url = format!("{}?ca={}", redis.url(), redis.ca().display());
    works(&Server::builder().redis(&url).start().await).await;
    clear(&Server::builder().redis(&redis.url()).refusal().await, 69, &["ertificate"]);
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = Redis::start().await;
    works(&Server::builder().redis(&format!("redis+unix://{}", redis.socket().display())).start().await).await;
}

#[tokio::test]
async fn a_sentinel_group_and_its_next_primary() {
    let group = Sentinel::start().await;
    let sentinels: Vec<String> = group.sentinels().iter().map(|sentinel| sentinel.addr().to_string()).collect();
    let url = format!("redis-sentinel://{}/{}", sentinels.join(","), group.name());
    let server = Server::builder().redis(&url).env("TIDEGATE_LEASE", "2s").start().await;
    works(&server).await;
    group.kill_primary().await;
    comes_back(&server).await;
}

#[tokio::test]
async fn a_cluster_and_its_next_primary() {
    let cluster = Cluster::start().await;
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.addr().to_string()).collect();
    let url = format!("redis-cluster://{}", nodes.join(","));
    let server = Server::builder().redis(&url).env("TIDEGATE_LEASE", "2s").start().await;
    works(&server).await;
    let ready = server.client().get("/readyz").await.expect(200).value();
    assert_eq!(ready["redis"]["topology"], "cluster");
    cluster.kill_primary_of("tidegate:{default}:meta").await;
    cluster.wait_for_failover("tidegate:{default}:meta").await;
    comes_back(&server).await;
}

/// After a failover: by itself, and with all that it does.
async fn comes_back(server: &Server) {
    eventually("jobs are taken again", PATIENCE, || async {
        let reply = server.client().try_submit(json!({"jobType": "a", "data": 1, "options": {"queue": "after"}})).await;
        (reply.status == 202).then_some(())
    })
    .await;
    // What a failover lost is not what is looked at here.
    server.client().delete("/api/queues/default/jobs?status=queued").await.expect(200);
    eventually("jobs that the server works on are done again", PATIENCE, || async {
        let job = json!({"jobType": "normalized_power", "data": {"power": [200, 210]}});
        let reply = server.client().try_submit(job).await;
        (reply.status == 202).then_some(())
    })
    .await;
    works(server).await;
}
