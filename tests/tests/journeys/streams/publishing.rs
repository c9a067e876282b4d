//! Publishing and reading back: ids, order, payloads, idempotence.

use std::collections::HashMap;

use serde_json::{Value, json};
use tidegate_tests::{EventView, place, stream_path};

use super::start;

/// Ids ascend strictly.
#[track_caller]
fn ascend(ids: &[String]) {
    assert!(ids.is_sorted_by(|a, b| place(a) < place(b)), "ids do not ascend: {ids:?}");
}

fn ids(events: &[EventView]) -> Vec<String> {
    events.iter().map(|event| event.id.clone()).collect()
}

#[tokio::test]
async fn published_events_come_back_in_order_with_all_their_attributes() {
    let server = start().await;
    let client = server.client();
    let full =
        json!({"type": "order.created", "data": {"id": 7}, "key": "customer-1", "source": "/shop", "subject": "7"});
    let first = client.publish_event("orders", full).await;
    let second = client.publish("orders", json!(null)).await;
    let many = client.publish_numbers("orders", 0..3).await;
    let all = client.read("orders", "after=0").await;
    assert_eq!(ids(&all), [vec![first, second], many].concat());
    ascend(&ids(&all));
    let event = &all[0];
    assert_eq!((event.kind.as_deref(), event.data.get()), (Some("order.created"), "{\"id\":7}"));
    let attributes = [&event.key, &event.source, &event.subject].map(|attribute| attribute.as_deref());
    assert_eq!(attributes, [Some("customer-1"), Some("/shop"), Some("7")]);
    assert_eq!((all[1].data.get(), &all[1].kind, &all[1].key), ("null", &None, &None));
    assert_eq!(all[4].data.get(), "{\"n\":2}");
}

#[tokio::test]
async fn data_come_back_byte_for_byte() {
    let server = start().await;
    let client = server.client();
    let payloads = [
        r#"{"b":1.0,"a":1e400,"a":  2}"#,
        "-0.0",
        "123456789012345678901234567890",
        r#""\u0000 \ud83c\udf0a ü 水 \/""#,
        "[ ]",
        "{\n  \"lines\": [\r\n1,\r2]\n}",
    ];
    for data in payloads {
        client.publish_reply("raw", format!(r#"{{"data":{data}}}"#)).await.expect(202);
    }
    for data in payloads {
        client.publish_reply("raw", format!(r#"{{"events":[{{"data":{data}}}]}}"#)).await.expect(202);
    }
    let read = client.read_reply("raw", "after=0").await.expect(200);
    for (at, data) in payloads.iter().chain(&payloads).enumerate() {
        assert_eq!(read.raw(&format!("data.events.{at}.data")).as_deref(), Some(*data));
    }
}

#[tokio::test]
async fn a_thousand_events_in_one_call_stand_together() {
    let server = start().await;
    let client = server.client();
    let others = tokio::spawn({
        let client = server.client();
        async move {
            for n in 0..20 {
                client.publish("shared", json!({"other": n})).await;
            }
        }
    });
    let ids = client.publish_numbers("shared", 0..1000).await;
    others.await.expect("the other publisher is fine");
    ascend(&ids);
    let all = client.read_all("shared").await;
    assert_eq!(all.len(), 1020);
    let first = all.iter().position(|event| event.id == ids[0]).expect("the first one is there");
    let together: Vec<&str> = all[first..first + 1000].iter().map(|event| event.data.get()).collect();
    assert!(
        together.iter().enumerate().all(|(n, data)| *data == format!("{{\"n\":{n}}}")),
        "something came in between"
    );
}

#[tokio::test]
async fn many_publishers_at_once_lose_nothing_and_each_keeps_its_order() {
    let server = start().await;
    let publishers: Vec<_> = (0..16_u64)
        .map(|publisher| {
            let client = server.client();
            tokio::spawn(async move {
                for n in 0..25_u64 {
                    client.publish("busy", json!({"publisher": publisher, "n": n})).await;
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.expect("a publisher is fine");
    }
    let all = server.client().read_all("busy").await;
    assert_eq!(all.len(), 400);
    ascend(&ids(&all));
    let mut next: HashMap<u64, u64> = HashMap::new();
    for event in &all {
        let data: Value = serde_json::from_str(event.data.get()).expect("JSON");
        let next = next.entry(data["publisher"].as_u64().expect("a publisher")).or_default();
        assert_eq!(data["n"].as_u64(), Some(*next), "{data}");
        *next += 1;
    }
}

#[tokio::test]
async fn an_event_published_again_under_its_id_is_the_same_event() {
    let server = start().await;
    let client = server.client();
    let event = json!({"data": 1, "id": "invoice-7"});
    let first = client.publish_event("paid", event.clone()).await;
    assert_eq!(client.publish_event("paid", event.clone()).await, first);
    let other = json!({"data": 2, "id": "invoice-8"});
    let mixed = client.publish_all("paid", &[other.clone(), event.clone(), other.clone(), json!({"data": 3})]).await;
    assert_eq!((&mixed[1], &mixed[2]), (&first, &mixed[0]));
    assert_eq!(client.stream("paid").await.length, 3);
    assert_ne!(client.publish_event("elsewhere", event.clone()).await, first, "another stream knows nothing of it");

    let server = server.kill().await.start().await;
    let client = server.client();
    assert_eq!(client.publish_event("paid", event).await, first, "a killed server knows it again");
    assert_eq!(client.publish_event("paid", other).await, mixed[0]);
    assert_eq!(client.stream("paid").await.length, 3);
}

#[tokio::test]
async fn publishing_the_same_id_many_times_at_once_keeps_one_event() {
    let server = start().await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let client = server.client();
            tokio::spawn(async move { client.publish_event("once", json!({"data": n, "id": "x"})).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("a call is fine"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(server.client().stream("once").await.length, 1);
}

#[tokio::test]
async fn cloud_events_are_taken_one_by_one_and_in_batches() {
    let server = start().await;
    let client = server.client();
    let event = |id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "/shop", "type": "order.created", "subject": "7",
            "datacontenttype": "application/json", "data": {"order": 7},
        })
    };
    let path = stream_path("cloud", "/events");
    let publish =
        |media: &'static str, body: Value| client.call("POST", &path).header("content-type", media).body(body).send();
    let first = publish("application/cloudevents+json; charset=utf-8", event("a")).await.expect(202).value();
    let again = publish("application/cloudevents+json", event("a")).await.expect(202).value();
    assert_eq!(first["ids"], again["ids"], "source and id name an event");
    let batch = json!([event("a"), event("b")]);
    let both = publish("application/cloudevents-batch+json", batch).await.expect(202).value();
    assert_eq!((&both["ids"][0], both["ids"].as_array().map(Vec::len)), (&first["ids"][0], Some(2)));
    let all = client.read("cloud", "after=0").await;
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].kind.as_deref(), all[0].data.get()), (Some("order.created"), "{\"order\":7}"));
    assert_eq!((all[0].source.as_deref(), all[0].subject.as_deref()), (Some("/shop"), Some("7")));
    let without_type = json!({"specversion": "1.0", "id": "c", "source": "/shop", "data": 1});
    publish("application/cloudevents+json", without_type).await.problem_in(&[400, 422]);
    let another_version = json!({"specversion": "9.9", "id": "c", "source": "/shop", "type": "t", "data": 1});
    publish("application/cloudevents+json", another_version).await.problem_in(&[400, 422]);
    assert_eq!(client.stream("cloud").await.length, 2);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_and_ids_go_on_ascending() {
    let mut server = start().await;
    let mut published = Vec::new();
    for round in 0..3_u64 {
        let client = server.client();
        published.push(client.publish("kept", json!({"round": round})).await);
        published.extend(client.publish_numbers("kept", 0..50).await);
        server = server.kill().await.start().await;
    }
    let all = server.client().read_all("kept").await;
    assert_eq!(ids(&all), published);
    ascend(&published);
}
