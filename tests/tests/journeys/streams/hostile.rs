//! Requests that are wrong: each gets a problem that says what is wrong, and nothing of it is kept.

use serde_json::{Value, json};
use tidegate_tests::{Client, stream_path};

use super::{builder, start};

/// Whatever was sent before, nothing of it was kept and the server is well.
async fn nothing_was_kept(client: &Client) {
    let streams = client.streams("").await.streams;
    assert!(streams.is_empty(), "a refused event was kept: {streams:?}");
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn bad_stream_names_are_refused_everywhere() {
    let server = start().await;
    let client = server.client();
    let long = "n".repeat(201);
    for name in
        ["a%20b", "%00", "a%0Ab", "%ff", "a*", "order.*", "a%2Cb", "%C3%BC", "a%3Bb", "a=b", &long, "tidegate:x"]
    {
        // Under a prefix of their own our keys are not in the way of the last one.
        if name == "tidegate:x" && client.publish_reply("tidegate%3Ax", json!({"data": 1})).await.status == 202 {
            client.delete("/api/streams/tidegate:x").await.expect(200);
            continue;
        }
        for (method, rest) in [
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/events"),
            ("GET", "/sse"),
            ("GET", "/groups"),
            ("POST", "/events"),
            ("POST", "/trim"),
            ("POST", "/groups/g/claim"),
        ] {
            let call = client.call(method, &format!("/api/streams/{name}{rest}"));
            let call = match rest {
                "/events" if method == "POST" => call.json(json!({"data": 1})),
                "/trim" => call.json(json!({"maxLength": 1})),
                "/groups/g/claim" => call.json(json!({"consumer": "c"})),
                _ => call,
            };
            let problem = call.send().await.problem_in(&[400, 404, 422]);
            assert_ne!(problem["code"], "stream_not_found", "{method} {name:.20}{rest} is no name at all: {problem}");
        }
    }
    client.post("/api/streams/delete", json!({"names": ["a b"]})).await.problem_in(&[400, 422]);
    nothing_was_kept(&client).await;
}

#[tokio::test]
async fn bad_events_are_refused_by_name_and_none_of_their_call_is_kept() {
    let server = start().await;
    let client = server.client();
    let long = "x".repeat(100_000);
    let cases = [
        (json!({}), "data"),
        (json!([]), ""),
        (json!("a"), ""),
        (json!({"events": {}}), "events"),
        (json!({"events": [{"data": 1}, {"type": "t"}]}), "data"),
        (json!({"events": [{"data": 1}], "data": 1}), ""),
        (json!({"data": 1, "typ": "t"}), "typ"),
        (json!({"data": 1, "type": 5}), "type"),
        (json!({"data": 1, "type": ""}), "type"),
        (json!({"data": 1, "type": "a\ndata: forged"}), "type"),
        (json!({"data": 1, "type": "a\rid: 9-9"}), "type"),
        (json!({"data": 1, "type": long}), "type"),
        (json!({"data": 1, "key": long}), "key"),
        (json!({"data": 1, "id": ""}), "id"),
        (json!({"data": 1, "id": long}), "id"),
        (json!({"data": 1, "source": "\u{0}"}), "source"),
        (json!({"data": 1, "subject": 1}), "subject"),
        (json!({"events": [{"data": 1}, {"data": 2, "id": "\n"}]}), "id"),
    ];
    for (body, name) in cases {
        let problem = client.publish_reply("s", body.clone()).await.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{body:.200} should be answered by {name}: {problem}");
    }
    for body in ["", "{", "{\"data\":}", "{\"data\":NaN}", "{\"data\":1}{}", "{\"data\":1,\"data\":2}"] {
        client.publish_reply("s", body).await.problem_in(&[400, 422]);
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    client.publish_reply("s", format!("{{\"data\":{deep}}}")).await.problem_in(&[400, 422]);
    let many: Vec<Value> = (0..1001).map(|n| json!({"data": n})).collect();
    client.publish_reply("s", json!({"events": many})).await.problem_in(&[400, 413, 422]);
    let path = stream_path("s", "/events");
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/cloudevents", "*/*"] {
        client.call("POST", &path).header("content-type", media).body(r#"{"data":1}"#).send().await.problem(415);
    }
    nothing_was_kept(&client).await;
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let server = start().await;
    let client = server.client();
    let of = |bytes: usize| format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes - 2));
    client.publish_reply("s", of((1 << 20) + 1)).await.problem_in(&[400, 413, 422]);
    nothing_was_kept(&client).await;
    client.publish_reply("s", of(1 << 20)).await.expect(202);
    assert_eq!(client.read("s", "after=0").await[0].data.get().len(), 1 << 20);
}

#[tokio::test]
async fn bad_places_limits_and_times_are_refused_by_name() {
    let server = start().await;
    let client = server.client();
    client.publish("s", json!(1)).await;
    for (query, name) in [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=1-2-3", "after"),
        ("after=18446744073709551616", "after"),
        ("before=1-x", "before"),
        ("from=yesterday", "from"),
        ("from=2020-13-45T99:99:99Z", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("order=up", "order"),
        ("aftr=1", "aftr"),
    ] {
        let problem = client.read_reply("s", query).await.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{query} should be answered by {name}: {problem}");
    }
    for query in ["limit=0", "limit=1001", "cursor=%ff", "limt=1"] {
        client.get(&format!("/api/streams?{query}")).await.problem_in(&[400, 422]);
    }
    for body in [
        json!({}),
        json!({"maxLength": -1}),
        json!({"maxLength": 1, "before": "1-1"}),
        json!({"before": "x"}),
        json!({"max": 1}),
    ] {
        client.post(&stream_path("s", "/trim"), body.clone()).await.problem_in(&[400, 422]);
    }
    for body in [json!({}), json!({"names": "a"}), json!({"names": [1]}), json!({"names": ["a"], "force": true})] {
        client.post("/api/streams/delete", body.clone()).await.problem_in(&[400, 422]);
    }
    assert_eq!(client.stream("s").await.length, 1);
}

#[tokio::test]
async fn bad_listeners_are_refused_before_the_stream_begins() {
    let server = start().await;
    let client = server.client();
    for path in [
        "/api/streams/s/sse?after=x",
        "/api/streams/s/sse?nothing=1",
        "/api/events",
        "/api/events?streams=",
        "/api/events?streams=a,,b",
        "/api/events?streams=a*",
        "/api/events?streams=a%20b",
        "/api/events?streams=***",
        "/api/events?streams=a&after=x",
    ] {
        client.get(path).await.problem_in(&[400, 422]);
    }
    let many: Vec<String> = (0..2000).map(|n| format!("s{n}")).collect();
    client.get(&format!("/api/events?streams={}", many.join(","))).await.problem_in(&[400, 413, 414, 422, 429, 431]);
    for id in ["x", "1-2-3", "-1", "a=b", &"9".repeat(5000)] {
        let call = client.call("GET", "/api/streams/s/sse").header("last-event-id", id);
        call.send().await.problem_in(&[400, 422]);
    }
    nothing_was_kept(&client).await;
}

#[tokio::test]
async fn bad_group_calls_are_refused_by_name() {
    let server = start().await;
    let client = server.client();
    client.publish("s", json!(1)).await;
    let long = "c".repeat(1000);
    let cases = [
        ("claim", json!({}), "consumer"),
        ("claim", json!({"consumer": ""}), "consumer"),
        ("claim", json!({"consumer": long}), "consumer"),
        ("claim", json!({"consumer": "a\nb"}), "consumer"),
        ("claim", json!({"consumer": "c", "limit": 0}), "limit"),
        ("claim", json!({"consumer": "c", "limit": 1001}), "limit"),
        ("claim", json!({"consumer": "c", "waitMs": 30_001}), "waitMs"),
        ("claim", json!({"consumer": "c", "minIdleMs": -1}), "minIdleMs"),
        ("claim", json!({"consumer": "c", "wait": 1}), "wait"),
        ("ack", json!({}), "ids"),
        ("ack", json!({"ids": "1-1"}), "ids"),
        ("ack", json!({"ids": ["x"]}), "id"),
        ("fail", json!({"ids": ["1-1"]}), "error"),
        ("fail", json!({"ids": ["1-1"], "error": 5}), "error"),
    ];
    for (verb, body, name) in cases {
        let problem = client.group_reply("s", "g", verb, body.clone()).await.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{verb} {body:.100} should be answered by {name}: {problem}");
    }
    let many: Vec<String> = (0..20_000).map(|n| format!("{n}-1")).collect();
    client.group_reply("s", "g", "ack", json!({"ids": many})).await.problem_in(&[400, 413, 422]);
    for group in ["a%20b", "a%2Fb", "a:b", "%00", &"g".repeat(65)] {
        client.group_reply("s", group, "claim", json!({"consumer": "c"})).await.problem_in(&[400, 404, 422]);
    }
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_stream_keeps_to_its_bounds() {
    let server = builder().await.env("TIDEGATE_BODY_BYTES_MAX", "64KiB").start().await;
    let client = server.client();
    client.publish_reply("s", json!({"data": "x".repeat(100_000)})).await.problem(413);
    // The server ends a connection whose body it does not read.
    nothing_was_kept(&server.client()).await;
}
