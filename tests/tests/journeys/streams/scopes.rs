//! Tokens: who may read, who may publish and work, who may delete.

use serde_json::json;
use tidegate_tests::{Client, stream_path};

use super::auth::guarded;

async fn status(client: &Client, method: &str, path: &str) -> u16 {
    let body = match path.rsplit('/').next() {
        Some("events") => json!({"data": 1}),
        Some("claim") => json!({"consumer": "c", "limit": 1, "waitMs": 0}),
        Some("ack") => json!({"ids": ["1-1"]}),
        Some("fail") => json!({"ids": ["1-1"], "error": "e"}),
        Some("trim") => json!({"maxLength": 1000}),
        _ => json!({"names": ["never"]}),
    };
    let call = client.call(method, path);
    let reply = if method == "POST" { call.json(body) } else { call }.send().await;
    if [401, 403].contains(&reply.status) {
        let _ = reply.problem_in(&[401, 403]);
    }
    reply.status
}

#[tokio::test]
async fn each_scope_allows_what_it_says_of_streams_and_no_more() {
    let (server, tokens, _folder) = guarded().await;
    let [read, submit, admin] = tokens.each_ref().map(|token| server.client_with(Some(token)));
    let nobody = server.client_with(None);
    submit.publish("s", json!(1)).await;
    submit.publish("t", json!(1)).await;
    submit.group_claim("s", "g", json!({"consumer": "c", "limit": 1})).await;
    let cases = [
        ("GET", "/api/streams", [401, 200, 200, 200]),
        ("GET", "/api/streams/s", [401, 200, 200, 200]),
        ("GET", "/api/streams/s/events?after=0", [401, 200, 200, 200]),
        ("GET", "/api/streams/s/groups", [401, 200, 200, 200]),
        ("GET", "/api/streams/s/groups/g/pending", [401, 200, 200, 200]),
        ("POST", "/api/streams/s/events", [401, 403, 202, 202]),
        ("POST", "/api/streams/s/groups/g/claim", [401, 403, 200, 200]),
        ("POST", "/api/streams/s/groups/g/ack", [401, 403, 200, 200]),
        ("POST", "/api/streams/s/groups/g/fail", [401, 403, 200, 200]),
        ("POST", "/api/streams/s/trim", [401, 403, 403, 200]),
        ("POST", "/api/streams/delete", [401, 403, 403, 200]),
        ("DELETE", "/api/streams/t", [401, 403, 403, 200]),
    ];
    for (method, path, wanted) in cases {
        let got = [
            status(&nobody, method, path).await,
            status(&read, method, path).await,
            status(&submit, method, path).await,
            status(&admin, method, path).await,
        ];
        assert_eq!(got, wanted, "{method} {path} for nobody, read, submit, admin");
    }
}

#[tokio::test]
async fn listening_needs_a_token_that_may_read() {
    let (server, [read, submit, _], _folder) = guarded().await;
    let listener = server.client_with(Some(&read));
    let publisher = server.client_with(Some(&submit));
    let mut one = listener.listen("s", "").await;
    let mut many = listener.events("/api/events?streams=s,t.*").await;
    publisher.publish("s", json!({"n": 1})).await;
    assert_eq!((one.one().await.number(), many.one().await.number()), (1, 1));
    let nobody = server.client_with(None);
    for path in [stream_path("s", "/sse"), "/api/events?streams=s".to_owned()] {
        let _ = nobody.get(&path).await.problem(401);
    }
}
