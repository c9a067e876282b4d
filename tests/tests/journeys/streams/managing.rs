//! Reading ranges, looking at streams, listing, trimming and deleting them.

use serde_json::{Value, json};
use tidegate_tests::{Client, EventView, eventually, place, stream_path};

use super::{PATIENCE, start};

fn numbers(events: &[EventView]) -> Vec<u64> {
    let number = |event: &EventView| serde_json::from_str::<Value>(event.data.get()).ok()?["n"].as_u64();
    events.iter().map(|event| number(event).expect("a numbered event")).collect()
}

/// A time as the interface writes it.
fn rfc3339(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days since 1970 to a date, by Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", in_day % 1000)
}

/// Waits until the next millisecond has begun, so that what is published then has a later time.
async fn a_later_millisecond(client: &Client, stream: &str, than: &str) -> String {
    eventually("time passes", PATIENCE, || async {
        let id = client.publish(stream, json!({"n": 1000})).await;
        (place(&id).0 > place(than).0).then_some(id)
    })
    .await
}

#[tokio::test]
async fn a_range_is_read_after_and_before_places_from_either_end() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("log", 0..10).await;
    let read = async |query: String| numbers(&client.read("log", &query).await);
    assert_eq!(read(format!("after={}", ids[6])).await, [7, 8, 9]);
    assert_eq!(read(format!("before={}", ids[2])).await, [0, 1]);
    assert_eq!(read(format!("after={}&before={}", ids[2], ids[5])).await, [3, 4]);
    assert_eq!(read(format!("after={}&limit=2", ids[2])).await, [3, 4]);
    assert_eq!(read("order=desc&limit=3".to_owned()).await, [9, 8, 7]);
    assert_eq!(read(format!("order=desc&before={}&limit=2", ids[7])).await, [6, 5]);
    assert_eq!(read("order=asc&limit=1".to_owned()).await, [0]);
    assert_eq!(read(format!("after={}", ids[9])).await, [0; 0]);
    assert_eq!(read(format!("after={}&before={}", ids[5], ids[5])).await, [0; 0]);
    assert_eq!(read("after=0".to_owned()).await.len(), 10);
}

#[tokio::test]
async fn reading_page_by_page_gives_every_event_once() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("pages", 0..250).await;
    for (order, edge) in [("asc", "after"), ("desc", "before")] {
        let mut all = Vec::new();
        let mut place = String::new();
        loop {
            let page = client.read("pages", &format!("order={order}&limit=17{place}")).await;
            let Some(last) = page.last() else { break };
            place = format!("&{edge}={}", last.id);
            all.extend(numbers(&page));
        }
        if order == "desc" {
            all.reverse();
        }
        assert_eq!(all, (0..250).collect::<Vec<_>>(), "{order}");
    }
}

#[tokio::test]
async fn a_range_from_a_time_begins_with_what_was_published_then() {
    let server = start().await;
    let client = server.client();
    let early = client.publish("times", json!({"n": 0})).await;
    let late = a_later_millisecond(&client, "times", &early).await;
    let from = rfc3339(place(&late).0);
    let events = client.read("times", &format!("from={from}")).await;
    assert!(events.iter().all(|event| place(&event.id).0 >= place(&late).0), "{events:?}");
    assert!(events.iter().any(|event| event.id == late));
    assert_eq!(client.read("times", &format!("from={}&limit=1", rfc3339(place(&early).0))).await[0].id, early);
    assert!(client.read("times", "from=2100-01-01T00:00:00Z").await.is_empty());
}

#[tokio::test]
async fn a_stream_tells_its_length_and_its_ends_and_an_absent_one_that_it_is_absent() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("told", 0..5).await;
    let stream = client.stream("told").await;
    assert_eq!((stream.name.as_str(), stream.length), ("told", 5));
    assert_eq!((stream.first_entry.as_ref(), stream.last_entry.as_ref()), (Some(&ids[0]), Some(&ids[4])));
    for path in [stream_path("absent", ""), stream_path("absent", "/events?after=0"), stream_path("absent", "/groups")]
    {
        assert_eq!(client.get(&path).await.problem(404)["code"], "stream_not_found", "{path}");
    }
    let trim = client.post(&stream_path("absent", "/trim"), json!({"maxLength": 1})).await;
    assert_eq!(trim.problem(404)["code"], "stream_not_found");
    assert_eq!(client.delete(&stream_path("absent", "")).await.problem(404)["code"], "stream_not_found");
}

#[tokio::test]
async fn names_with_colons_slashes_and_dots_are_names_like_others() {
    let server = start().await;
    let client = server.client();
    for name in ["a:b", "team/orders", "order.line.added", "A-Z_09", &"n".repeat(200)] {
        let id = client.publish(name, json!({"n": 1})).await;
        assert_eq!(client.stream(name).await.name, name);
        assert_eq!(client.read(name, "after=0").await[0].id, id);
    }
}

#[tokio::test]
async fn streams_are_listed_by_prefix_in_pages_and_own_changes_show_at_once() {
    let server = start().await;
    let client = server.client();
    // Whatever is cached of the list is cached now.
    assert_eq!(client.streams("prefix=list.").await.streams.len(), 0);
    for n in 0..25 {
        client.publish(&format!("list.{n:02}"), json!({"n": n})).await;
    }
    client.publish("other", json!(1)).await;
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.streams(&format!("prefix=list.&limit=10{cursor}")).await;
        assert!(page.streams.len() <= 10 && page.cached_at.ends_with('Z'), "{page:?}");
        assert!(page.streams.iter().all(|stream| stream.length == 1 && stream.first_entry == stream.last_entry));
        names.extend(page.streams.into_iter().map(|stream| stream.name));
        match page.cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, (0..25).map(|n| format!("list.{n:02}")).collect::<Vec<_>>());
    client.delete(&stream_path("list.03", "")).await.expect(200);
    let left = client.streams("prefix=list.0").await.streams;
    assert!(left.len() == 9 && left.iter().all(|stream| stream.name != "list.03"), "{left:?}");
    client.publish("list.03", json!(1)).await;
    assert_eq!(client.streams("prefix=list.0").await.streams.len(), 10);
    let all = client.streams("").await.streams;
    assert!(all.iter().any(|stream| stream.name == "other"), "{all:?}");
}

#[tokio::test]
async fn trimming_takes_from_the_old_end_and_is_counted() {
    let server = start().await;
    let client = server.client();
    let ids = client.publish_numbers("trimmed", 0..20).await;
    assert_eq!(client.trim("trimmed", json!({"maxLength": 15})).await, 5);
    assert_eq!(client.trim("trimmed", json!({"maxLength": 15})).await, 0);
    assert_eq!(client.trim("trimmed", json!({"before": ids[8]})).await, 3);
    assert_eq!(numbers(&client.read("trimmed", "after=0").await), (8..20).collect::<Vec<_>>());
    let stream = client.stream("trimmed").await;
    assert_eq!((stream.length, stream.first_entry.as_ref()), (12, Some(&ids[8])));
    assert_eq!(client.trim("trimmed", json!({"maxLength": 0})).await, 12);
    let stream = client.stream("trimmed").await;
    assert_eq!((stream.length, stream.first_entry), (0, None), "an empty stream is there");
    let next = client.publish("trimmed", json!({"n": 20})).await;
    assert!(place(&next) > place(&ids[19]), "an emptied stream goes on where it was");
    let server = server.kill().await.start().await;
    assert_eq!(numbers(&server.client().read("trimmed", "after=0").await), [20]);
}

#[tokio::test]
async fn a_deleted_stream_is_gone_for_good_and_its_name_can_be_used_again() {
    let server = start().await;
    let client = server.client();
    let old = client.publish_numbers("gone", 0..10).await;
    client.group_claim("gone", "g", json!({"consumer": "c", "limit": 1})).await;
    client.delete(&stream_path("gone", "")).await.expect(200);
    client.get(&stream_path("gone", "")).await.problem(404);
    let server = server.kill().await.start().await;
    let client = server.client();
    client.get(&stream_path("gone", "")).await.problem(404);
    let new = client.publish("gone", json!({"n": 0})).await;
    assert!(place(&new) > place(&old[9]), "no id is given twice");
    assert_eq!(client.stream("gone").await.length, 1);
    assert_eq!(client.group_claim("gone", "g", json!({"consumer": "c", "limit": 10})).await.len(), 1);
}

#[tokio::test]
async fn many_streams_are_deleted_in_one_call_that_tells_which() {
    let server = start().await;
    let client = server.client();
    for name in ["d1", "d2", "d3"] {
        client.publish(name, json!(1)).await;
    }
    let answer = client.post("/api/streams/delete", json!({"names": ["d1", "d2", "never"]})).await.expect(200).value();
    assert_eq!(answer["deleted"], json!(["d1", "d2"]), "{answer}");
    client.get(&stream_path("d1", "")).await.problem(404);
    assert_eq!(client.stream("d3").await.length, 1);
}
