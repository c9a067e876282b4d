//! Server-sent events: what a listener hears, of one stream, of many, of patterns.

use serde_json::json;
use tidegate_tests::{SseEvent, eventually};

use super::{PATIENCE, builder, start};

#[tokio::test]
async fn a_listener_hears_from_now_on_everything_once_and_in_order() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("live", 0..5).await;
    let mut listener = client.listen("live", "").await;
    let ids = client.publish_numbers("live", 5..8).await;
    client.publish("live", json!({"n": 8})).await;
    let heard = listener.take(4).await;
    assert_eq!(heard.iter().map(SseEvent::number).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert_eq!(heard.iter().take(3).map(|event| event.id.clone()).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_listener_from_the_start_or_after_a_place_goes_over_into_the_present_without_a_seam() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("seam", 0..500).await;
    let publisher = tokio::spawn({
        let client = server.client();
        async move {
            for n in 500..700 {
                client.publish("seam", json!({"n": n})).await;
            }
        }
    });
    let mut all = client.listen("seam", "after=0").await;
    let mut rest = client.listen("seam", &format!("after={}", ids[249])).await;
    assert_eq!(all.numbers_until(699).await, (0..700).collect::<Vec<_>>());
    assert_eq!(rest.numbers_until(699).await, (250..700).collect::<Vec<_>>());
    publisher.await.expect("the publisher is fine");
}

#[tokio::test]
async fn the_answer_tells_proxies_and_browsers_what_it_is() {
    let server = start().await;
    let client = server.client();
    for path in ["/api/streams/head/sse", "/api/events?streams=head"] {
        let listener = client.events(path).await;
        assert!(listener.header("content-type").starts_with("text/event-stream"), "{path}");
        assert_eq!(listener.header("x-accel-buffering"), "no", "{path}");
        assert_eq!(listener.header("cache-control"), "no-cache, no-transform", "{path}");
    }
}

#[tokio::test]
async fn a_frame_carries_id_type_and_data_of_many_lines() {
    let server = start().await;
    let client = server.client();
    let mut listener = client.listen("frames", "").await;
    let typed = client.publish_event("frames", json!({"type": "order.created", "data": {"n": 1}})).await;
    let heard = listener.one().await;
    assert_eq!((heard.id, heard.event.as_str(), heard.data.as_str()), (typed, "order.created", "{\"n\":1}"));
    client.publish_reply("frames", "{\"data\":{\n \"a\": \"ü\",\r\n \"id\": 1,\r \"n\":2\n}}").await.expect(202);
    let heard = listener.one().await;
    assert_eq!((heard.event.as_str(), heard.data.as_str()), ("", "{\n \"a\": \"ü\",\n \"id\": 1,\n \"n\":2\n}"));
}

#[tokio::test]
async fn a_listener_of_a_stream_that_is_not_there_yet_hears_its_first_event() {
    let server = start().await;
    let client = server.client();
    let mut now = client.listen("unborn", "").await;
    let mut from_start = client.listen("unborn", "after=0").await;
    let id = client.publish("unborn", json!({"n": 0})).await;
    assert_eq!(now.one().await.id, id);
    assert_eq!(from_start.one().await.id, id);
}

#[tokio::test]
async fn a_listener_of_many_streams_and_patterns_hears_what_matches_and_nothing_else() {
    let server = start().await;
    let client = server.client();
    client.publish("order.old", json!({"n": 0})).await;
    let mut listener = client.events("/api/events?streams=plain,order.*,deep.**").await;
    // Some are only born now.
    for (n, stream) in
        ["plain", "order.old", "order.new", "order.a.b", "deep", "deep.x", "deep.x.y", "other", "plain.x"]
            .iter()
            .enumerate()
    {
        client.publish(stream, json!({"n": n})).await;
    }
    let mut heard: Vec<u64> = listener.take(6).await.iter().map(SseEvent::number).collect();
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 4, 5, 6]);
    client.publish("plain", json!({"n": 99})).await;
    assert_eq!(listener.one().await.number(), 99, "nothing else came");
}

#[tokio::test]
async fn many_listeners_all_hear_everything() {
    let server = start().await;
    let client = server.client();
    let mut listeners = Vec::new();
    for _ in 0..150 {
        listeners.push(client.listen("fan", "").await);
    }
    for burst in 0..20_u64 {
        client.publish_numbers("fan", burst * 10..(burst + 1) * 10).await;
    }
    for listener in &mut listeners {
        assert_eq!(listener.numbers_until(199).await, (0..200).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn large_events_reach_a_listener_whole() {
    let server = start().await;
    let client = server.client();
    let mut listener = client.listen("large", "").await;
    let text = "ü".repeat(100_000);
    for n in 0..5 {
        client.publish("large", json!({"n": n, "text": text})).await;
    }
    for n in 0..5 {
        let heard = listener.one().await;
        assert!(heard.number() == n && heard.data.len() > 200_000, "{} bytes", heard.data.len());
    }
}

#[tokio::test]
async fn a_listener_hears_a_heartbeat_in_silence() {
    let server = builder().await.env("TIDEGATE_SSE_HEARTBEAT", "200ms").start().await;
    let client = server.client();
    let mut listener = client.listen("silent", "").await;
    let mut comments = 0;
    while comments < 3 {
        let frame = listener.next_frame(PATIENCE).await.expect("the stream goes on");
        comments += usize::from(frame.starts_with(':'));
    }
    client.publish("silent", json!({"n": 1})).await;
    assert_eq!(listener.one().await.number(), 1);
}

#[tokio::test]
async fn one_address_has_so_many_listeners_and_no_more() {
    let server = builder().await.env("TIDEGATE_SSE_PER_ADDRESS_MAX", "2").start().await;
    let client = server.client();
    let first = client.listen("s", "").await;
    let mut second = client.events("/api/events?streams=s").await;
    for path in ["/api/streams/s/sse", "/api/events?streams=s"] {
        assert_eq!(client.get(path).await.problem(429)["code"], "too_many_listeners");
    }
    client.publish("s", json!({"n": 1})).await;
    assert_eq!(second.one().await.number(), 1, "those who listen go on");
    drop(first);
    let place = eventually("the place is free again", PATIENCE, || async {
        let reply = client.call("HEAD", "/api/streams/s/sse").attempt().await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    });
    place.await;
}
