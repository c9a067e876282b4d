//! Listeners that come back: nothing is missed, nothing comes twice, and what is lost is told.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::{Client, SseEvent, eventually, place, stream_path};

use super::{PATIENCE, builder, start};

#[tokio::test]
async fn a_listener_that_comes_back_again_and_again_misses_and_repeats_nothing() {
    let server = start().await;
    let client = server.client();
    let publisher = tokio::spawn({
        let client = server.client();
        async move {
            for n in 0..60 {
                client.publish_numbers("back", n * 5..(n + 1) * 5).await;
            }
        }
    });
    let (mut heard, mut last) = (Vec::new(), "0-0".to_owned());
    let mut visit = 0;
    while heard.last() != Some(&299) {
        let mut listener = client.listen_after("back", &last).await;
        visit += 1;
        for _ in 0..visit % 7 + 1 {
            if heard.last() == Some(&299) {
                break;
            }
            let event = listener.one().await;
            heard.push(event.number());
            last = event.id;
        }
    }
    assert_eq!(heard, (0..300).collect::<Vec<_>>());
    publisher.await.expect("the publisher is fine");
}

#[tokio::test]
async fn the_last_event_id_of_a_browser_counts_more_than_the_query_it_repeats() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("both", 0..10).await;
    let mut listener = client.events_after(&stream_path("both", "/sse?after=0"), &ids[6]).await;
    assert_eq!(listener.numbers_until(9).await, [7, 8, 9]);
}

#[tokio::test]
async fn a_listener_of_many_streams_resumes_in_each_of_them() {
    const PATH: &str = "/api/events?streams=m.one,m.two,many.*";
    let server = start().await;
    let client = server.client();
    let streams = ["m.one", "m.two", "many.a", "many.b"];
    let mut listener = client.events(PATH).await;
    let (mut heard, mut last) = (Vec::new(), String::new());
    for n in 0..40_u64 {
        // While nobody listens, too; a stream of the pattern is born while nobody listens.
        let stream = streams[if n < 7 { n as usize % 3 } else { n as usize % 4 }];
        client.publish(stream, json!({"n": n})).await;
        if n % 5 == 2 {
            let event = listener.one().await;
            heard.push(event.number());
            last = event.id;
            listener = client.events_after(PATH, &last).await;
        }
    }
    while heard.len() < 40 {
        heard.push(listener.one().await.number());
    }
    client.publish("m.one", json!({"n": 99})).await;
    assert_eq!(listener.one().await.number(), 99, "nothing came twice");
    heard.sort_unstable();
    assert_eq!(heard, (0..40).collect::<Vec<_>>());
    assert!(!last.is_empty());
}

#[tokio::test]
async fn a_killed_server_is_resumed_without_gap_or_repeat() {
    let mut server = start().await;
    let (mut heard, mut last) = (Vec::new(), "0-0".to_owned());
    let mut next = 0;
    for _ in 0..4 {
        let client = server.client();
        let mut listener = client.listen_after("killed", &last).await;
        client.publish_numbers("killed", next..next + 10).await;
        next += 10;
        for _ in 0..8 {
            let event = listener.one().await;
            assert_eq!(event.event, "", "no gap: {event:?}");
            heard.push(event.number());
            last = event.id;
        }
        server = server.kill().await.start().await;
    }
    let mut listener = server.client().listen_after("killed", &last).await;
    heard.extend(listener.numbers_until(39).await);
    assert_eq!(heard, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_listener_that_has_heard_nothing_yet_comes_back_to_where_it_began() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("quiet", 0..3).await;
    for path in ["/api/streams/quiet/sse", "/api/streams/unborn/sse", "/api/events?streams=quiet,unborn,quiet.*"] {
        let mut listener = client.events(path).await;
        // No event, so a browser hears nothing, but it learns its place.
        let frame = listener.next_frame(PATIENCE).await.expect("the stream goes on");
        assert!(frame.starts_with("id:") && !frame.contains("data"), "{path}: {frame:?}");
        let last = listener.last_event_id().to_owned();
        drop(listener);
        let stream = if path.contains("unborn/") { "unborn" } else { "quiet" };
        client.publish(stream, json!({"n": 7})).await;
        assert_eq!(client.events_after(path, &last).await.one().await.number(), 7, "{path} after {last:?}");
    }
}

/// The announcement of a loss.
#[track_caller]
fn gap(event: &SseEvent) -> Value {
    assert_eq!(event.event, "gap", "{event:?}");
    let gap: Value = serde_json::from_str(&event.data).expect("a gap is JSON");
    assert!(gap["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{gap}");
    gap
}

#[tokio::test]
async fn trimmed_history_is_told_as_a_gap_and_what_is_left_follows() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("cut", 0..20).await;
    client.trim("cut", json!({"before": ids[10]})).await;
    let mut listener = client.listen_after("cut", &ids[4]).await;
    let event = listener.one().await;
    let gap = gap(&event);
    let (from, to) = (gap["from"].as_str().expect("from"), gap["to"].as_str().expect("to"));
    assert!(place(from) >= place(&ids[4]) && place(from) <= place(&ids[5]), "{gap}");
    assert!(place(to) >= place(&ids[9]) && place(to) <= place(&ids[10]), "{gap}");
    assert_eq!(listener.numbers_until(19).await, (10..20).collect::<Vec<_>>());
    drop(listener);
    if !event.id.is_empty() {
        let mut listener = client.listen_after("cut", &event.id).await;
        assert_eq!(listener.one().await.number(), 10, "a gap is told once");
    }
    // The last one that is gone is one that was heard: nothing is missing, though Redis cannot tell.
    let mut listener = client.listen_after("cut", &ids[9]).await;
    let mut first = listener.one().await;
    if first.event == "gap" {
        first = listener.one().await;
    }
    assert_eq!(first.number(), 10);
    assert_eq!(listener.numbers_until(19).await, (11..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deleted_stream_is_told_as_a_gap_and_its_successor_is_heard() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("again", 0..5).await;
    let mut present = client.listen("again", "").await;
    client.delete(&stream_path("again", "")).await.expect(200);
    gap(&present.one().await);
    client.publish("again", json!({"n": 0})).await;
    assert_eq!(present.one().await.number(), 0);
    let mut returning = client.listen_after("again", &ids[2]).await;
    gap(&returning.one().await);
    assert_eq!(returning.one().await.number(), 0);
}

/// Waits until the server refuses or says that it drains.
async fn drains(client: &Client) {
    eventually("the server says that it drains, or takes no more connections", PATIENCE, || async {
        let reply = client.call("GET", "/readyz").attempt().await;
        reply.map_or(true, |reply| reply.status == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_draining_server_tells_listeners_when_to_come_back_and_ends() {
    let mut server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("drain", 0..3).await;
    let mut listeners = Vec::new();
    for _ in 0..40 {
        listeners.push(client.listen("drain", "after=0").await);
    }
    for listener in &mut listeners {
        assert_eq!(listener.numbers_until(2).await, [0, 1, 2]);
    }
    server.process().signal(Signal::TERM);
    let mut waits = Vec::new();
    for mut listener in listeners {
        let mut last = String::new();
        while let Some(frame) = listener.next_frame(PATIENCE).await {
            last = frame;
        }
        let wait = last.lines().find_map(|line| line.strip_prefix("retry:"));
        let wait = wait.and_then(|wait| wait.trim().parse::<u64>().ok());
        waits.push(wait.unwrap_or_else(|| panic!("no time to come back: {last:?}")));
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 5, "they would all come back at once: {waits:?}");
    assert_eq!(server.process().wait(PATIENCE).await.code(), Some(0));
    let server = server.rebuilder().start().await;
    let client = server.client();
    let mut listener = client.listen_after("drain", &ids[1]).await;
    assert_eq!(listener.one().await.number(), 2);
}

#[tokio::test]
async fn while_a_server_drains_no_listener_that_comes_back_is_told_to_give_up() {
    let mut server = builder().await.env("TIDEGATE_DRAIN_TIMEOUT", "600s").start().await;
    let client = server.client();
    let job = client.submit(tidegate_tests::endless_job()).await;
    client.job_at_work(&job.job_id).await;
    client.publish("patient", json!({"n": 0})).await;
    server.process().signal(Signal::TERM);
    drains(&client).await;
    // A browser gives up for good at any answer but 200; without an answer it tries again.
    let call = client.call("GET", "/api/streams/patient/sse?after=0").header("accept", "text/event-stream");
    if let Ok(reply) = call.attempt().await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    server.process().signal(Signal::TERM);
    server.process().wait(Duration::from_secs(20)).await;
}
