//! What a bus promises, once for every backend. `conformance!(open)` turns each case into a test of the backend that
//! `open` builds; a case never asks which one it is.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use tidegate_events::{
    Bus, Claim, Config, Cursor, Delivery, Event, EventId, Group, GroupName, Heard, Listen, Listener, NewEvent, Page,
    Read, Source, StreamName,
};

pub mod groups;
pub mod listening;
pub mod publishing;
pub mod reading;
pub mod removing;

pub type Opening = Pin<Box<dyn Future<Output = Bus>>>;

/// Longer than anything takes that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A handle that can be let go of, as a stopped process lets go of everything.
pub struct Held<T>(Option<T>);

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held between starts")
    }
}

/// A backend and a stream on it.
pub struct World {
    pub bus: Held<Bus>,
    pub stream: StreamName,
    config: Config,
    reopen: Box<dyn Fn(Config) -> Opening>,
}

impl World {
    /// `open` is called for every start; what it keeps durable it keeps between calls.
    pub async fn new(open: impl Fn(Config) -> Opening + 'static, tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        tune(&mut config);
        let bus = open(config.clone()).await;
        Self { bus: Held(Some(bus)), stream: stream("orders"), config, reopen: Box::new(open) }
    }

    /// Stops and starts again.
    pub async fn restart(&mut self) {
        self.bus.close().await.unwrap();
        self.bus = Held(None);
        self.bus = Held(Some((self.reopen)(self.config.clone()).await));
    }

    pub async fn publish(&self, event: NewEvent) -> EventId {
        self.publish_to(&self.stream, event).await
    }

    pub async fn publish_to(&self, stream: &StreamName, event: NewEvent) -> EventId {
        self.bus.publish(stream, vec![event]).await.unwrap()[0].id
    }

    /// Publishes events that say their number.
    pub async fn publish_numbers(&self, numbers: impl IntoIterator<Item = usize>) -> Vec<EventId> {
        let events = numbers.into_iter().map(|no| NewEvent::new(no.to_string())).collect();
        self.bus.publish(&self.stream, events).await.unwrap().iter().map(|published| published.id).collect()
    }

    pub async fn read(&self, read: Read) -> Page {
        self.bus.read(&self.stream, read).await.unwrap()
    }

    /// What all events say, over as many pages as it takes.
    pub async fn all(&self) -> Vec<String> {
        texts(&self.all_events().await)
    }

    pub async fn all_events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(EventId::ZERO, |event| event.id);
            let page = self.read(Read::after(after, 1000)).await;
            events.extend(page.events);
            if !page.more {
                return events;
            }
        }
    }

    pub fn group(&self, name: &str) -> Group {
        self.bus.group(&self.stream, &GroupName::new(name).unwrap())
    }

    pub async fn listen(&self, sources: &[&str], from: Option<Cursor>) -> Listener {
        let sources = sources.iter().map(|source| Source::parse(source).unwrap()).collect();
        self.bus.listen(Listen { from, ..Listen::to(sources) }).await.unwrap()
    }
}

pub fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// What events say.
pub fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8_lossy(&event.data).into_owned()).collect()
}

pub fn numbers(range: impl IntoIterator<Item = usize>) -> Vec<String> {
    range.into_iter().map(|no| no.to_string()).collect()
}

/// What was delivered, and how often.
pub fn delivered(deliveries: &[Delivery]) -> Vec<(String, u32)> {
    let said = |delivery: &Delivery| String::from_utf8_lossy(&delivery.event.data).into_owned();
    deliveries.iter().map(|delivery| (said(delivery), delivery.deliveries)).collect()
}

pub fn ids(deliveries: &[Delivery]) -> Vec<EventId> {
    deliveries.iter().map(|delivery| delivery.event.id).collect()
}

pub fn claim(consumer: &str, limit: usize) -> Claim {
    Claim { limit, ..Claim::new(consumer) }
}

/// What a listener hears next.
pub async fn next(listener: &mut Listener) -> Heard {
    let heard = tokio::time::timeout(PATIENCE, listener.next()).await;
    heard.expect("something is heard").expect("the listener goes on")
}

/// The next event that is heard, which must not be a gap.
pub async fn next_event(listener: &mut Listener) -> (String, Event) {
    match next(listener).await {
        Heard::Event(stream, event) => (stream.to_string(), event),
        Heard::Gap(stream, gap) => panic!("a gap in {stream}: {gap:?}"),
    }
}

/// What the next events say.
pub async fn next_texts(listener: &mut Listener, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next_event(listener).await.1);
    }
    texts(&events)
}

/// Looks until it is so.
pub async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let look = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while !is_so().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it comes to be so");
}

/// One test per case and backend.
#[macro_export]
macro_rules! cases {
    ($open:path; $($module:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $case() {
                $crate::conformance::$module::$case($open()).await;
            })+
        })+
    };
}

/// What every backend promises.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::cases! { $open;
            publishing: an_event_comes_back_byte_for_byte, hostile_text_is_kept_as_it_is, events_of_one_call_stand_together,
                publishing_nothing_makes_no_stream, the_same_idempotence_id_is_one_event,
                a_call_may_mix_new_events_and_old_ones, idempotence_survives_a_restart,
                idempotence_ids_are_bounded, many_publishers_lose_nothing_and_keep_their_order,
                the_same_event_from_many_is_one, what_cannot_be_kept_is_refused_by_name, ids_ascend_over_a_restart,
                a_draining_bus_takes_nothing;
            reading: a_range_is_read_from_either_end, a_page_says_whether_there_is_more, a_time_is_a_place,
                large_events_come_in_pages, long_streams_come_in_pages, what_is_not_there_is_not_found,
                values_out_of_range_are_refused_by_name, a_stream_tells_its_length_and_its_ends,
                streams_are_listed_by_name_in_pages, a_prefix_may_be_a_whole_name, names_are_checked;
            removing: a_trim_keeps_the_newest, a_trim_before_a_place_keeps_it, an_emptied_stream_goes_on,
                a_deleted_stream_is_gone_with_its_groups, a_stream_made_again_begins_anew,
                a_stream_forgets_beyond_its_length, a_stream_forgets_what_is_too_old, patterns_have_their_own_retention,
                trimming_and_publishing_go_on_together;
            groups: consumers_share_a_stream, each_group_hears_all, a_group_begins_with_the_oldest_event_kept,
                an_event_is_acknowledged_once, an_abandoned_delivery_goes_to_another_consumer,
                what_is_held_is_not_delivered_to_others, a_waiting_claim_wakes_for_an_event,
                a_waiting_claim_wakes_for_a_failed_event, a_waiting_claim_wakes_when_a_delivery_is_idle,
                a_claim_may_wait_for_the_stream, what_fails_too_often_is_put_aside,
                what_is_never_acknowledged_is_put_aside, failing_what_is_not_pending_changes_nothing,
                pending_deliveries_are_listed, groups_are_listed, a_group_survives_a_restart, pending_deliveries_are_bounded,
                groups_are_bounded, removed_events_leave_the_group, many_consumers_handle_each_event_once,
                unknown_groups_and_streams_are_told_apart, bad_claims_are_refused, draining_ends_waiting_claims;
            listening: from_now_on_is_from_now_on, from_the_start_is_everything, a_listener_resumes_in_the_middle,
                a_listener_resumes_over_a_restart, replay_and_live_have_no_seam, a_trimmed_history_is_told,
                a_deleted_stream_is_told, a_place_of_a_deleted_stream_is_told,
                deleting_amid_publishes_hides_nothing_that_is_kept, a_stream_that_stayed_silent_misses_nothing, one_listener_hears_many_streams, a_cursor_of_many_streams_resumes_each,
                a_pattern_follows_streams_made_later, a_listener_may_come_before_its_stream, all_listeners_hear_all,
                a_listener_that_left_costs_nothing, draining_ends_listeners;
        }
    };
}
