//! Requests that are wrong: each gets a problem that says what is wrong, and nothing of it is kept.

use serde_json::json;
use tidegate_tests::{Client, RawConnection};

use super::{CACHE, PATIENCE, post, set, start, text_of};

const BODIES: [&str; 6] = ["get-many", "set", "set-many", "invalidate", "warm", "invalidate/apply"];

async fn still_well(client: &Client) {
    assert_eq!(text_of(client, "k").await.as_deref(), Some("1"));
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn malformed_bodies_are_refused_everywhere() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    let deep = format!(r#"{{"key":"k","value":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let bodies =
        ["", "{", "[]", "null", "7", r#"{"key":"k","value":01}"#, r#"{"key":"k","value":}"#, r#"{"value":NaN}"#];
    for resource in &BODIES[..5] {
        for body in bodies.iter().copied().chain([deep.as_str()]) {
            let reply = client.post(&format!("{CACHE}/{resource}"), body).await;
            let problem = reply.problem_in(&[400, 422]);
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{body:.50}: {problem}");
        }
        let not_utf8 = b"{\"key\":\"\xff\",\"value\":\"\xfe\"}".to_vec();
        client.post(&format!("{CACHE}/{resource}"), not_utf8).await.problem_in(&[400, 422]);
        let untyped = client.call("POST", &format!("{CACHE}/{resource}")).body("{}").send().await;
        let _ = untyped.problem(415);
    }
    still_well(&client).await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    let long = "k".repeat(1025);
    let tag = "t".repeat(257);
    let many: Vec<_> = (0..1001).map(|n| n.to_string()).collect();
    let entries: Vec<_> = many.iter().map(|key| json!({"key": key, "value": 1})).collect();
    let tags: Vec<_> = many.iter().take(17).collect();
    let cases = [
        ("set", json!({"value": 2}), "key"),
        ("set", json!({"key": "k"}), "value"),
        ("set", json!({"key": 5, "value": 2}), "key"),
        ("set", json!({"key": "", "value": 2}), "key"),
        ("set", json!({"key": long, "value": 2}), "key"),
        ("set", json!({"key": "k", "value": 2, "ttl": 0}), "ttl"),
        ("set", json!({"key": "k", "value": 2, "ttl": -5}), "ttl"),
        ("set", json!({"key": "k", "value": 2, "ttl": 1.5}), "ttl"),
        ("set", json!({"key": "k", "value": 2, "ttl": "1h"}), "ttl"),
        ("set", json!({"key": "k", "value": 2, "tags": "t"}), "tags"),
        ("set", json!({"key": "k", "value": 2, "tags": [""]}), "tags[0]"),
        ("set", json!({"key": "k", "value": 2, "tags": ["a", tag]}), "tags[1]"),
        ("set", json!({"key": "k", "value": 2, "tags": tags}), "tags"),
        ("set", json!({"key": "k", "value": 2, "expires": 5}), "expires"),
        ("set-many", json!({}), "entries"),
        ("set-many", json!({"entries": {"k": 2}}), "entries"),
        ("set-many", json!({"entries": entries}), "entries"),
        ("set-many", json!({"entries": [{"key": "k", "value": 2}, {"key": "", "value": 2}]}), "entries[1].key"),
        ("set-many", json!({"entries": [{"key": "k", "value": 2}, {"key": "l"}]}), "entries[1]"),
        ("set-many", json!({"entries": [{"key": "k", "value": 2, "ttl": 0}]}), "entries[0].ttl"),
        (
            "set-many",
            json!({"entries": [{"key": "k", "value": 2}, {"key": "l", "value": 1, "tags": [tag]}]}),
            "entries[1].tags[0]",
        ),
        ("get-many", json!({}), "keys"),
        ("get-many", json!({"keys": "k"}), "keys"),
        ("get-many", json!({"keys": ["k", 5]}), "keys[1]"),
        ("get-many", json!({"keys": ["k", ""]}), "keys[1]"),
        ("get-many", json!({"keys": ["k", long]}), "keys[1]"),
        ("get-many", json!({"keys": many}), "keys"),
        ("get-many", json!({"keys": ["k"], "more": 1}), "more"),
        ("invalidate", json!({}), "keys"),
        ("invalidate", json!({"keys": [], "tags": []}), "keys"),
        ("invalidate", json!({"queued": true}), "keys"),
        ("invalidate", json!({"keys": "k"}), "keys"),
        ("invalidate", json!({"keys": ["k", long]}), "keys[1]"),
        ("invalidate", json!({"keys": many}), "keys"),
        ("invalidate", json!({"keys": ["k"], "tags": [""]}), "tags[0]"),
        ("invalidate", json!({"keys": ["k"], "tags": [tag]}), "tags[0]"),
        ("invalidate", json!({"keys": ["k"], "prefix": ""}), "prefix"),
        ("invalidate", json!({"keys": ["k"], "prefix": long}), "prefix"),
        ("invalidate", json!({"keys": ["k"], "prefixes": ["a"]}), "prefixes"),
        ("invalidate", json!({"keys": ["k"], "queued": "yes"}), "queued"),
        ("warm", json!({}), "keys"),
        ("warm", json!({"keys": ["k"], "hottest": 5}), "keys"),
        ("warm", json!({"hottest": 0}), "hottest"),
        ("warm", json!({"hottest": 100_000}), "hottest"),
        ("warm", json!({"keys": [""]}), "keys[0]"),
        ("warm", json!({"entries": [{"key": ""}]}), "entries"),
        ("warm", json!({"loader": "x"}), "loader"),
    ];
    for (resource, body, field) in cases {
        let problem = post(&client, resource, body.clone()).await.problem(422);
        let (body, named) = (body.to_string(), problem["errors"].to_string() + &problem["detail"].to_string());
        assert!(named.contains(field), "{resource} {body:.100} should be answered by {field}: {problem}");
    }
    still_well(&client).await;
}

#[tokio::test]
async fn paths_and_queries_that_mean_nothing_are_refused() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    let long = "k".repeat(1025);
    for (method, path, statuses) in [
        ("GET", "get/%FF".to_owned(), &[400][..]),
        ("GET", format!("get/{long}"), &[422]),
        ("DELETE", "%FF%FE".to_owned(), &[400]),
        ("DELETE", long, &[422]),
        ("DELETE", "clear?prefix=".to_owned(), &[422]),
        ("DELETE", "clear?all=true".to_owned(), &[422]),
        ("DELETE", String::new(), &[404, 405]),
        ("GET", "clear".to_owned(), &[405]),
        ("POST", "clear".to_owned(), &[405]),
        ("GET", "k".to_owned(), &[405]),
        ("PUT", "k".to_owned(), &[405]),
        ("POST", "get/k".to_owned(), &[405]),
    ] {
        let reply = client.call(method, &format!("{CACHE}/{path}")).send().await;
        reply.problem_in(statuses);
    }
    still_well(&client).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_kept() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(&format!(
        "POST {CACHE}/set HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{{\"key\":\"k\",\"value\":2",
        server.address()
    ))
    .await;
    drop(raw);
    still_well(&client).await;
}

#[tokio::test]
async fn a_thousand_large_values_asked_for_by_many_at_once_are_answered_or_put_off() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    for n in 0..20 {
        set(&client, &format!("large{n}"), json!("x".repeat(1_000_000))).await;
    }
    let keys: Vec<_> = (0..1000).map(|n| format!("large{}", n % 20)).collect();
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let (client, keys) = (server.client(), keys.clone());
            tokio::spawn(async move { post(&client, "get-many", json!({"keys": keys})).await })
        })
        .collect();
    for reader in readers {
        let reply = tidegate_tests::within("an answer", PATIENCE, reader).await.expect("no panic");
        if reply.status == 200 {
            assert!(reply.body.len() < 18 << 20, "{} bytes", reply.body.len());
        } else {
            let _ = reply.problem(503);
        }
    }
    still_well(&client).await;
}
