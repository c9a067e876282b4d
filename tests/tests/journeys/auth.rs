//! Tokens and scopes.

use serde_json::json;
use tempfile::TempDir;
use tidegate_tests::{Client, Server, run};

use super::builder;

/// A server with one token per scope, and the tokens.
pub(super) async fn guarded() -> (Server, [String; 3], TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("tokens");
    let path = file.to_str().expect("UTF-8").to_owned();
    let mut tokens = [String::new(), String::new(), String::new()];
    for (token, scope) in tokens.iter_mut().zip(["read", "submit", "admin"]) {
        let made = run(&["token", "create", "--scope", scope, "--token-file", &path], &[]).await;
        assert_eq!(made.code, Some(0), "{}", made.said());
        *token = made.stdout.split_whitespace().find(|word| word.starts_with("tide_")).expect("a token").to_owned();
        let stored = std::fs::read_to_string(&file).expect("the token file is made");
        assert!(!stored.contains(token.as_str()), "a token is stored hashed only");
    }
    let server = builder().await.args(["--token-file", &path]).start().await;
    (server, tokens, folder)
}

async fn status(client: &Client, method: &str, path: &str) -> u16 {
    let call = client.call(method, path);
    let body = match path {
        "/api/performance/async/job" => json!({"jobType": "a", "data": 1}),
        _ => json!({"worker": "w", "limit": 1, "waitMs": 0}),
    };
    let call = if method == "POST" { call.json(body) } else { call };
    let reply = call.send().await;
    if [401, 403].contains(&reply.status) {
        let _ = reply.problem_in(&[401, 403]);
    }
    reply.status
}

#[tokio::test]
async fn without_a_valid_token_nothing_but_health_is_answered() {
    let (server, [read, ..], _folder) = guarded().await;
    let forged = format!("{}x", &read[..read.len() - 1]);
    for token in [None, Some(""), Some("tide_"), Some(forged.as_str()), Some(&read[..20])] {
        let client = server.client_with(token);
        for path in ["/api/performance/async/jobs", "/api/queues", "/api/performance/async/job/x"] {
            let reply = client.get(path).await;
            assert_eq!(reply.problem(401)["code"], "unauthenticated", "{token:?} {path}");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{:?}", reply.headers);
        }
        assert_eq!(client.get("/livez").await.status, 200);
    }
    let basic = server.client_with(None);
    let reply = basic.call("GET", "/api/queues").header("authorization", &format!("Basic {read}")).send().await;
    let _ = reply.problem(401);
}

#[tokio::test]
async fn each_scope_allows_what_it_says_and_no_more() {
    let (server, tokens, _folder) = guarded().await;
    let [read, submit, admin] = tokens.each_ref().map(|token| server.client_with(Some(token)));
    let cases = [
        ("GET", "/api/performance/async/jobs", [200, 200, 200]),
        ("POST", "/api/performance/async/job", [403, 202, 202]),
        ("POST", "/api/queues/default/claim", [403, 200, 200]),
        ("GET", "/api/queues", [200, 200, 200]),
        ("POST", "/api/queues/default/pause", [403, 403, 200]),
        ("POST", "/api/queues/default/resume", [403, 403, 200]),
        ("DELETE", "/api/queues/default/jobs?status=completed", [403, 403, 200]),
    ];
    for (method, path, wanted) in cases {
        let got = [
            status(&read, method, path).await,
            status(&submit, method, path).await,
            status(&admin, method, path).await,
        ];
        assert_eq!(got, wanted, "{method} {path} for read, submit, admin");
    }
}

#[tokio::test]
async fn a_token_file_that_cannot_be_used_stops_the_start() {
    let builder = builder().await;
    let file = builder.folder().join("tokens");
    for (content, named) in
        [("", "no token"), ("sha256:beef admin\n", "line 1"), ("plain-secret-of-mine admin\n", "line 1")]
    {
        std::fs::write(&file, content).expect("the temporary folder is writable");
        let exit = builder.clone().args(["--token-file", file.to_str().expect("UTF-8")]).refusal().await;
        assert_eq!(exit.code, Some(78), "{}", exit.said());
        assert!(exit.said().contains(named), "{content:?} should be told by {named:?}: {}", exit.said());
        assert!(!exit.said().contains("plain-secret-of-mine"), "what may be a secret is not repeated");
    }
    let exit = builder.clone().args(["--token-file", "/does/not/exist"]).refusal().await;
    assert_eq!(exit.code, Some(78), "{}", exit.said());
}
