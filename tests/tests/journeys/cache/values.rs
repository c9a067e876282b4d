//! Setting and reading values, one and many.

use serde_json::json;
use tidegate_tests::eventually;

use super::{CACHE, PATIENCE, builder, encoded, post, set, start, text_of, value_at};

/// One byte of the quotes at either end.
fn string_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[tokio::test]
async fn a_value_is_set_and_read_as_the_documentation_shows() {
    let server = start().await;
    let client = server.client();
    let value = json!({"wine_types": ["red", "white"], "price_range": [25, 100]});
    let body = json!({"key": "user_preferences_123", "value": value, "ttl": 3_600_000});
    let reply = post(&client, "set", body).await.expect(200);
    assert_eq!(reply.value(), json!({"key": "user_preferences_123", "ttl": 3_600_000}));
    let reply = client.get(&format!("{CACHE}/get/user_preferences_123")).await.expect(200);
    assert_eq!(reply.value(), value);
    assert_eq!(reply.header("cache-control"), "no-store", "what is between may not keep it longer than we do");
}

#[tokio::test]
async fn a_value_comes_back_byte_for_byte() {
    let server = start().await;
    let client = server.client();
    let texts = [
        "null",
        "false",
        "\"\"",
        "0",
        "-0.0",
        "1.0e+2",
        "12345678901234567890123456789.10",
        r#"{"a":1,"a":2,"b":{},"a":  3}"#,
        "[ 1 ,\n\t2\r\n, 3 ]",
        r#""é\u00e9 \ud83d\ude00 😀 \/ \\ \" \u0000""#,
        r#"{"😀":"\u2028"}"#,
        &format!("{}1{}", "[".repeat(100), "]".repeat(100)),
        &format!("{{\"long\":{}}}", string_of(100_000)),
    ];
    for (n, text) in texts.iter().enumerate() {
        let key = format!("k{n}");
        let body = format!(r#"{{ "ttl":60000, "value" :  {text}  , "key":"{key}"}}"#);
        client.post(&format!("{CACHE}/set"), body).await.expect(200);
        assert_eq!(text_of(&client, &key).await.as_deref(), Some(*text));
    }
    let keys: Vec<String> = (0..texts.len()).map(|n| format!("k{n}")).collect();
    let many = post(&client, "get-many", json!({"keys": keys})).await.expect(200);
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(many.raw(&format!("data.values.{n}.value")).as_deref(), Some(*text));
    }
}

#[tokio::test]
async fn a_value_of_a_mebibyte_is_kept_and_one_byte_more_is_refused() {
    let server = start().await;
    let client = server.client();
    let set = async |text: &str| client.post(&format!("{CACHE}/set"), format!(r#"{{"key":"k","value":{text}}}"#)).await;
    let largest = string_of(1 << 20);
    set(&largest).await.expect(200);
    assert!(text_of(&client, "k").await == Some(largest), "not the same bytes");
    let problem = set(&string_of((1 << 20) + 1)).await.problem(413);
    assert_eq!(problem["code"], "value_too_large", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1048576")), "{problem}");
    assert_eq!(text_of(&client, "k").await.map(|text| text.len()), Some(1 << 20), "the former value stays");
    let entries = format!(r#"{{"entries":[{{"key":"a","value":1}},{{"key":"b","value":{}}}]}}"#, string_of(2 << 20));
    let problem = client.post(&format!("{CACHE}/set-many"), entries).await.problem(413);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with("entries[1].value")), "{problem}");
    assert_eq!(text_of(&client, "a").await, None, "what cannot be accepted is found before any is set");
}

#[tokio::test]
async fn any_text_is_a_key() {
    let server = start().await;
    let client = server.client();
    let long = "k".repeat(1024);
    let keys = [
        "a", "a/b", "a//b/", "/", " ", "ü", "😀", "%41", "a?b#c", "..", "a\u{0}b", "a\nb", "{a}", "*", "[a-z]",
        "clear", "stats", "get/a", "set", "\"", "\\", &long,
    ];
    for key in keys {
        set(&client, key, json!({"of": key})).await;
    }
    for key in keys {
        assert_eq!(text_of(&client, key).await, Some(json!({"of": key}).to_string()), "{key:?}");
    }
    for key in keys {
        let deleted = client.delete(&super::key_at(key)).await.expect(200).value();
        assert_eq!(deleted, json!({"deleted": 1}), "{key:?}");
        assert_eq!(text_of(&client, key).await, None, "{key:?}");
    }
    set(&client, "a/b", json!(1)).await;
    assert_eq!(
        client.get(&format!("{CACHE}/get/a/b")).await.expect(200).value(),
        json!(1),
        "a slash may stand as it is"
    );
    assert_eq!(client.delete(&format!("{CACHE}/a/b")).await.expect(200).value(), json!({"deleted": 1}));
}

#[tokio::test]
async fn a_key_that_names_a_resource_is_not_mistaken_for_it() {
    let server = start().await;
    let client = server.client();
    for key in ["stats", "set", "set-many", "get-many", "invalidate", "warm"] {
        set(&client, key, json!(1)).await;
        let _ = client.delete(&format!("{CACHE}/{key}")).await.problem(405);
        let reply = post(&client, "invalidate", json!({"keys": [key]})).await.expect(200);
        assert_eq!(reply.value(), json!({"invalidated": 1}));
        assert_eq!(text_of(&client, key).await, None, "{key}");
    }
}

#[tokio::test]
async fn an_absent_value_is_told_by_its_key() {
    let server = start().await;
    let client = server.client();
    let problem = client.get(&value_at("user:\"7\"")).await.problem(404);
    assert_eq!(problem["code"], "cache_miss");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("user:")), "{problem}");
    let _ = client.get(&format!("{CACHE}/get/")).await.problem_in(&[404, 405]);
}

#[tokio::test]
async fn a_value_expires_and_not_before() {
    let server = builder().await.env("TIDEGATE_CACHE_TTL", "500ms").start().await;
    let client = server.client();
    let reply = post(&client, "set", json!({"key": "long", "value": 1, "ttl": 3_600_000})).await.expect(200);
    assert_eq!(reply.value()["ttl"], 3_600_000);
    let reply = post(&client, "set", json!({"key": "short", "value": 1, "ttl": 50})).await.expect(200);
    assert_eq!(reply.value()["ttl"], 50);
    let reply = post(&client, "set", json!({"key": "usual", "value": 1})).await.expect(200);
    assert_eq!(reply.value()["ttl"], 500);
    for key in ["short", "usual"] {
        eventually("it expires", PATIENCE, || async { text_of(&client, key).await.is_none().then_some(()) }).await;
    }
    assert!(text_of(&client, "long").await.is_some());
    let reply = post(&client, "set", json!({"key": "far", "value": 1, "ttl": 365_u64 * 86_400_000})).await.expect(200);
    assert_eq!(reply.value()["ttl"], 30 * 86_400_000_u64, "no longer than cache_ttl_max");
}

#[tokio::test]
async fn a_value_set_again_is_replaced_with_its_ttl_and_tags() {
    let server = start().await;
    let client = server.client();
    post(&client, "set", json!({"key": "k", "value": 1, "ttl": 200, "tags": ["old"]})).await.expect(200);
    post(&client, "set", json!({"key": "k", "value": 2, "tags": ["new"]})).await.expect(200);
    post(&client, "set", json!({"key": "other", "value": 1, "ttl": 200})).await.expect(200);
    eventually("the former TTL is over", PATIENCE, || async {
        text_of(&client, "other").await.is_none().then_some(())
    })
    .await;
    post(&client, "invalidate", json!({"tags": ["old"]})).await.expect(200);
    assert_eq!(text_of(&client, "k").await.as_deref(), Some("2"));
    post(&client, "invalidate", json!({"tags": ["new"]})).await.expect(200);
    assert_eq!(text_of(&client, "k").await, None);
}

#[tokio::test]
async fn many_values_are_set_and_read_in_one_call_each_in_order() {
    let server = start().await;
    let client = server.client();
    let entries: Vec<_> = (0..1000).map(|n| json!({"key": format!("k{n}"), "value": n})).collect();
    let reply = post(&client, "set-many", json!({"entries": entries})).await.expect(200);
    assert_eq!(reply.value(), json!({"stored": 1000}));
    let keys: Vec<_> = (0..1000).rev().map(|n| format!("k{n}")).collect();
    let found = post(&client, "get-many", json!({"keys": keys})).await.expect(200).value();
    let wanted: Vec<_> = (0..1000).rev().map(|n| json!({"key": format!("k{n}"), "found": true, "value": n})).collect();
    assert_eq!(found, json!({"values": wanted}));

    let found = post(&client, "get-many", json!({"keys": ["k1", "absent", "k1"]})).await.expect(200).value();
    let one = json!({"key": "k1", "found": true, "value": 1});
    assert_eq!(found, json!({"values": [one, {"key": "absent", "found": false}, one]}));
    assert_eq!(post(&client, "get-many", json!({"keys": []})).await.expect(200).value(), json!({"values": []}));
    assert_eq!(post(&client, "set-many", json!({"entries": []})).await.expect(200).value(), json!({"stored": 0}));

    let twice = json!({"entries": [{"key": "t", "value": 1}, {"key": "u", "value": 1}, {"key": "t", "value": 2}]});
    assert_eq!(post(&client, "set-many", twice).await.expect(200).value(), json!({"stored": 2}));
    assert_eq!(text_of(&client, "t").await.as_deref(), Some("2"), "the last counts");
}

#[tokio::test]
async fn each_of_many_values_has_its_own_ttl_and_tags() {
    let server = start().await;
    let client = server.client();
    let entries = json!({"entries": [
        {"key": "a", "value": 1, "ttl": 30},
        {"key": "b", "value": 1, "tags": ["t"]},
        {"key": "c", "value": 1, "tags": ["t", "u"]},
        {"key": "d", "value": 1},
    ]});
    post(&client, "set-many", entries).await.expect(200);
    eventually("one expires", PATIENCE, || async { text_of(&client, "a").await.is_none().then_some(()) }).await;
    post(&client, "invalidate", json!({"tags": ["u"]})).await.expect(200);
    assert_eq!(super::there(&client, &["a", "b", "c", "d"]).await, ["b", "d"]);
}

#[tokio::test]
async fn an_answer_is_as_large_as_a_request_may_be_and_names_what_it_left_out() {
    let server = builder().await.env("TIDEGATE_BODY_BYTES_MAX", "64KiB").start().await;
    let client = server.client();
    for n in 0..5 {
        set(&client, &format!("k{n}"), json!("x".repeat(20_000))).await;
    }
    let found = post(&client, "get-many", json!({"keys": ["k0", "k1", "k2", "k3", "k4"]})).await.expect(200).value();
    assert_eq!(found["values"].as_array().map(Vec::len), Some(3), "{:.300}", found.to_string());
    assert_eq!(found["unread"], json!(["k3", "k4"]));
    let found = post(&client, "get-many", json!({"keys": found["unread"]})).await.expect(200).value();
    assert_eq!((found["values"].as_array().map(Vec::len), &found["unread"]), (Some(2), &json!(null)));
}

#[tokio::test]
async fn memory_keeps_to_its_bound_and_evicted_values_are_absent_or_on_redis() {
    let server = builder().await.env("TIDEGATE_CACHE_ENTRIES_MAX", "100").start().await;
    let client = server.client();
    for hundred in 0..10 {
        let entries: Vec<_> = (0..100).map(|n| json!({"key": format!("k{hundred}.{n}"), "value": n})).collect();
        post(&client, "set-many", json!({"entries": entries})).await.expect(200);
    }
    let stats = client.get(&format!("{CACHE}/stats")).await.expect(200).value();
    assert!(stats["size"].as_u64().is_some_and(|size| (1..=100).contains(&size)), "{stats}");
    assert!(stats["evictions"].as_u64().is_some_and(|evictions| evictions > 0), "{stats}");
    let first = client.get(&format!("{CACHE}/get/{}", encoded("k9.99"))).await;
    assert!([200, 404].contains(&first.status), "{}", first.text());
}
