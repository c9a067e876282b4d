//! Tokens: who may read, who may set and forget, who may clear.

use serde_json::json;
use tidegate_tests::Client;

use super::{CACHE, auth::guarded, set};

async fn status(client: &Client, method: &str, resource: &str) -> u16 {
    let body = match resource {
        "set" => json!({"key": "k", "value": 1}),
        "set-many" => json!({"entries": []}),
        _ => json!({"keys": ["k"]}),
    };
    let call = client.call(method, &format!("{CACHE}/{resource}"));
    let reply = if method == "POST" { call.json(body) } else { call }.send().await;
    if [401, 403].contains(&reply.status) {
        let _ = reply.problem_in(&[401, 403]);
    }
    reply.status
}

#[tokio::test]
async fn each_scope_allows_what_it_says_of_the_cache_and_no_more() {
    let (server, tokens, _folder) = guarded().await;
    let [read, submit, admin] = tokens.each_ref().map(|token| server.client_with(Some(token)));
    let nobody = server.client_with(None);
    let cases = [
        ("GET", "stats", [401, 200, 200, 200]),
        ("GET", "get/k", [401, 200, 200, 200]),
        ("POST", "get-many", [401, 200, 200, 200]),
        ("POST", "set", [401, 403, 200, 200]),
        ("POST", "set-many", [401, 403, 200, 200]),
        ("POST", "warm", [401, 403, 200, 200]),
        ("POST", "invalidate/apply", [401, 403, 200, 200]),
        ("POST", "invalidate", [401, 403, 200, 200]),
        ("DELETE", "k", [401, 403, 200, 200]),
        ("DELETE", "clear", [401, 403, 403, 200]),
    ];
    for (method, resource, wanted) in cases {
        set(&submit, "k", json!(1)).await;
        let got = [
            status(&nobody, method, resource).await,
            status(&read, method, resource).await,
            status(&submit, method, resource).await,
            status(&admin, method, resource).await,
        ];
        assert_eq!(got, wanted, "{method} {resource} for nobody, read, submit, admin");
    }
}
