//! Requests that are wrong: each gets a problem that says what is wrong, and nothing of it is accepted.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{Client, RawConnection};

use super::{builder, start};

const JOB: &str = "/api/performance/async/job";
const JOBS: &str = "/api/performance/async/jobs";

/// Whatever was sent before, the queue is empty and the server well.
async fn nothing_was_accepted(client: &Client) {
    assert!(client.claim("default", "w", 10, 0).await.jobs.is_empty(), "a refused job was accepted");
    assert!(client.jobs("limit=10").await.jobs.is_empty(), "a refused job is listed");
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn malformed_json_is_refused_with_the_place() {
    let server = start().await;
    let client = server.client();
    let bodies = [
        "",
        " ",
        "{",
        "}",
        r#"{"jobType":"a","data":1"#,
        r#"{"jobType":"a","data":}"#,
        r#"{"jobType":"a","data":1,}"#,
        r#"{'jobType':'a','data':1}"#,
        r#"{"jobType":"a","data":NaN}"#,
        r#"{"jobType":"a","data":01}"#,
        r#"{"jobType":"a","data":"\ud800"}trailing"#,
        r#"{"jobType":"a","data":1}{"jobType":"b","data":2}"#,
        "\u{feff}{\"jobType\":\"a\",\"data\":1}",
    ];
    for body in bodies {
        for path in [JOB, JOBS, "/api/queues/default/claim"] {
            let reply = client.post(path, body).await;
            let problem = reply.problem_in(&[400, 422]);
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{body}: {problem}");
        }
    }
    let not_utf8 = b"{\"jobType\":\"a\",\"data\":\"\xff\xfe\"}".to_vec();
    client.post(JOB, not_utf8).await.problem_in(&[400, 422]);
    nothing_was_accepted(&client).await;
}

#[tokio::test]
async fn json_nested_a_hundred_thousand_levels_deep_is_refused_everywhere() {
    let server = start().await;
    let client = server.client();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        client.post(JOB, deep.clone()).await.problem_in(&[400, 422]);
        client.post(JOB, format!(r#"{{"jobType":"a","data":{deep}}}"#)).await.problem_in(&[400, 422]);
        client.post(JOB, format!(r#"{{"jobType":"a","data":1,"options":{deep}}}"#)).await.problem_in(&[400, 422]);
        client.post(JOBS, format!(r#"{{"jobs":[{{"jobType":"a","data":{deep}}}]}}"#)).await.problem_in(&[400, 422]);
        client.post("/api/queues/default/complete", format!(r#"{{"results":{deep}}}"#)).await.problem_in(&[400, 422]);
        client.post(JOB, open.repeat(100_000)).await.problem_in(&[400, 422]);
    }
    nothing_was_accepted(&client).await;
}

#[tokio::test]
async fn wrong_types_and_missing_members_are_refused_by_name() {
    let server = start().await;
    let client = server.client();
    let cases = [
        (json!([]), ""),
        (json!("a"), ""),
        (json!(null), ""),
        (json!({"data": 1}), "jobType"),
        (json!({"jobType": 7, "data": 1}), "jobType"),
        (json!({"jobType": "", "data": 1}), "jobType"),
        (json!({"jobType": "a"}), "data"),
        (json!({"jobType": "a", "data": 1, "options": 5}), "options"),
        (json!({"jobType": "a", "data": 1, "options": []}), "options"),
        (json!({"jobType": "a", "data": 1, "jobtype": "b"}), "jobtype"),
    ];
    for (body, name) in cases {
        let problem = client.post(JOB, body.clone()).await.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{body} should be answered by {name}: {problem}");
    }
    for body in [json!({}), json!({"jobs": {}}), json!({"jobs": "a"}), json!({"jobs": []})] {
        let reply = client.post(JOBS, body.clone()).await;
        assert!(reply.status >= 400 || body == json!({"jobs": []}), "{body}: {}", reply.text());
    }
    let many: Vec<Value> = (0..10_001).map(|n| json!({"jobType": "a", "data": n})).collect();
    client.post(JOBS, json!({"jobs": many})).await.problem_in(&[400, 413, 422]);
    nothing_was_accepted(&client).await;
}

#[tokio::test]
async fn unknown_options_and_absurd_values_are_refused_by_name() {
    let server = start().await;
    let client = server.client();
    let long = "x".repeat(100_000);
    let cases = [
        ("prioritty", json!(1)),
        ("priority", json!(256)),
        ("priority", json!(-1)),
        ("priority", json!(1.5)),
        ("priority", json!("high")),
        ("priority", json!(1e300)),
        ("timeout", json!(0)),
        ("timeout", json!(-5)),
        ("timeout", json!(u64::MAX)),
        ("delay", json!(-1)),
        ("delay", json!(u64::MAX)),
        ("runAt", json!("tomorrow")),
        ("runAt", json!("2020-13-45T99:99:99Z")),
        ("runAt", json!(12)),
        ("maxAttempts", json!(0)),
        ("maxAttempts", json!(4_294_967_296_u64)),
        ("backoff", json!({"base": -1})),
        ("backoff", json!({"base": 1, "limit": 2})),
        ("backoff", json!(5)),
        ("key", json!(long)),
        ("key", json!(5)),
        ("dedupKey", json!(long)),
        ("dedupWindow", json!(-1)),
        ("expiresIn", json!(-1)),
        ("expiresIn", json!(u64::MAX)),
        ("retention", json!(-1)),
        ("retention", json!(u64::MAX)),
        ("queue", json!("")),
        ("queue", json!(long)),
        ("queue", json!("a/b")),
        ("queue", json!("a\nb")),
        ("queue", json!(null)),
    ];
    let mut accepted = Vec::new();
    for (name, value) in cases {
        let mut options = json!({});
        options[name] = value.clone();
        let reply = client.post(JOB, json!({"jobType": "a", "data": 1, "options": options})).await;
        if reply.status < 400 {
            accepted.push((name, value));
            continue;
        }
        let problem = reply.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{name}: {value} is not named: {problem}");
    }
    // `null` may mean "not given".
    accepted.retain(|(name, value)| !(*name == "queue" && value.is_null()));
    assert!(accepted.is_empty(), "accepted: {accepted:.300?}");
    client.post(JOB, json!({"jobType": long, "data": 1})).await.problem_in(&[400, 422]);
    let both = json!({"jobType": "a", "data": 1, "options": {"delay": 5, "runAt": "2030-01-01T00:00:00Z"}});
    client.post(JOB, both).await.problem_in(&[400, 422]);
}

#[tokio::test]
async fn a_bad_field_is_named_by_its_path_for_programs_too() {
    let server = start().await;
    let body = json!({"jobType": "a", "data": 1, "options": {"maxAttempts": 0}});
    let problem = server.client().post(JOB, body).await.problem(422);
    assert_eq!(
        (&problem["code"], &problem["errors"][0]["field"]),
        (&json!("invalid_request"), &json!("options.maxAttempts"))
    );
}

#[tokio::test]
async fn bad_worker_calls_are_refused_by_name() {
    let server = start().await;
    let client = server.client();
    let cases = [
        ("claim", json!({"limit": 1}), "worker"),
        ("claim", json!({"worker": "", "limit": 1}), "worker"),
        ("claim", json!({"worker": "w", "limit": 0}), "limit"),
        ("claim", json!({"worker": "w", "limit": 1001}), "limit"),
        ("claim", json!({"worker": "w", "limit": "1"}), "limit"),
        ("claim", json!({"worker": "w", "limit": 1, "waitMs": 30_001}), "waitMs"),
        ("claim", json!({"worker": "w", "limit": 1, "waitMs": -1}), "waitMs"),
        ("claim", json!({"worker": "w", "limit": 1, "wait": 5}), "wait"),
        ("claim", json!({"worker": "w".repeat(100_000), "limit": 1}), "worker"),
        ("beat", json!({"worker": "w", "leases": "all"}), "leases"),
        ("complete", json!({"result": []}), "result"),
        ("complete", json!({"results": [{"result": 1}]}), "lease"),
        ("fail", json!({"failures": [{"lease": "x", "error": "x", "retryIn": -1}]}), "retryIn"),
        ("progress", json!({"updates": [{"lease": "x", "progress": "half"}]}), "progress"),
        ("release", json!({"leases": [5]}), "leases"),
    ];
    for (verb, body, name) in cases {
        let reply = client.post(&format!("/api/queues/default/{verb}"), body.clone()).await;
        assert!(reply.status >= 400, "{verb} {body:.200} was accepted: {}", reply.text());
        let problem = reply.problem_in(&[400, 422]);
        assert!(problem.to_string().contains(name), "{verb} {body:.200} should be answered by {name}: {problem}");
    }
    let long = "q".repeat(5000);
    let reply = client.claim_reply(&long).await;
    reply.problem_in(&[400, 404, 414, 422]);
    client.claim_reply("a%2Fb").await.problem_in(&[400, 404, 422]);
    client.claim_reply("%ff").await.problem_in(&[400, 404, 422]);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let server = start().await;
    let client = server.client();
    for path in ["/nothing", "/api", "/api/performance", "/api/queues/default/nothing", "/api/../etc/passwd", "/%00"] {
        client.get(path).await.problem_in(&[400, 404]);
    }
    for (method, path) in [
        ("PUT", JOB),
        ("PATCH", JOB),
        ("DELETE", JOBS),
        ("GET", "/api/queues/default/claim"),
        ("POST", "/livez"),
        ("BREW", JOB),
    ] {
        let reply = client.call(method, path).send().await;
        reply.problem(405);
        assert!(!reply.header("allow").is_empty(), "{method} {path}: {:?}", reply.headers);
    }
    for id in ["x", "0198c0de-0000-7000-8000-000000000000", "%00", "..%2f..%2fetc", &"9".repeat(1000)] {
        let reply = client.job_reply(id).await;
        assert_eq!(reply.problem(404)["code"], "job_not_found", "{id}");
        client.delete(&format!("{JOB}/{id}")).await.problem(404);
    }
    let head = client.call("HEAD", "/livez").send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_refused() {
    let server = start().await;
    let client = server.client();
    let body = r#"{"jobType":"a","data":1}"#;
    client.call("POST", JOB).body(body).send().await.problem(415);
    for media in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "json", "*/*"]
    {
        client.call("POST", JOB).header("content-type", media).body(body).send().await.problem(415);
    }
    nothing_was_accepted(&client).await;
    let packed = client.call("POST", JOB).header("content-encoding", "gzip").json(body).send().await;
    packed.problem_in(&[400, 415]);
    let spelled = client.call("POST", JOB).header("content-type", "Application/JSON; charset=utf-8").body(body);
    spelled.send().await.expect(202);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = builder().await.env("TIDEGATE_BODY_BYTES_MAX", "1MiB").start().await;
    let client = server.client();
    let announced = format!(
        "POST {JOB} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n{{",
        server.address()
    );
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(&announced).await;
    let answer = raw.read_until("\"code\"", Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut raw = RawConnection::open(server.address()).await;
    let head = format!(
        "POST {JOB} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.address()
    );
    raw.write(&head).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..40 {
        if !raw.write(&chunk).await {
            break;
        }
    }
    let answer = raw.read_until("\"code\"", Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "a body of unknown length counts while it comes: {answer}");

    let fits = format!(r#"{{"jobType":"a","data":"{}"}}"#, "x".repeat(1_000_000));
    client.try_submit(fits).await.expect(202);
}

#[tokio::test]
async fn a_foreign_host_is_refused_and_every_name_of_this_machine_is_not() {
    let server = start().await;
    let client = server.client();
    let port = server.address().port();
    for host in
        ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "169.254.169.254"]
    {
        let reply = client.call("GET", "/api/queues").header("host", host).send().await;
        reply.problem_in(&[400, 403, 421]);
        let reply = client.call("POST", JOB).header("host", host).json(json!({"jobType": "a", "data": 1})).send().await;
        reply.problem_in(&[400, 403, 421]);
    }
    for host in
        [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("[::1]:{port}")]
    {
        assert_eq!(client.call("GET", "/api/queues").header("host", &host).send().await.status, 200, "{host}");
    }
    nothing_was_accepted(&client).await;
}

#[tokio::test]
async fn requests_caused_by_pages_of_other_sites_are_refused() {
    let server = start().await;
    let client = server.client();
    let own = format!("http://{}", server.address());
    let refused: [&[(&str, &str)]; 7] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost.evil.example")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
        &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("origin", &own)],
    ];
    for headers in refused {
        for (method, path) in
            [("POST", JOB), ("POST", "/api/queues/default/pause"), ("DELETE", "/api/queues/default/jobs?status=queued")]
        {
            let mut call = client.call(method, path).json(json!({"jobType": "a", "data": 1}));
            for (name, value) in headers {
                call = call.header(name, value);
            }
            assert_eq!(call.send().await.problem(403)["code"], "cross_site_request", "{method} {path} {headers:?}");
        }
    }
    let preflight = client.call("OPTIONS", JOB).header("origin", "https://evil.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await;
    assert!(preflight.header("access-control-allow-origin").is_empty(), "{:?}", preflight.headers);
    nothing_was_accepted(&client).await;
    let same = client.call("POST", JOB).header("origin", &own).header("sec-fetch-site", "same-origin");
    same.json(json!({"jobType": "a", "data": 1})).send().await.expect(202);
}
