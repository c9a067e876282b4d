//! What can be asked.

use tidegate_events::{Config, Error, EventId, GroupName, NewEvent, Order, Read, StreamName, Trim};

use super::{Opening, World, numbers, stream, texts};

pub async fn a_range_is_read_from_either_end(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    for _ in 0..2 {
        let between = Read { after: ids[2], before: ids[7], ..Read::default() };
        assert_eq!(texts(&world.read(between).await.events), numbers(3..7));
        let descending = Read { order: Order::Descending, ..between };
        assert_eq!(texts(&world.read(descending).await.events), numbers((3..7).rev()));
        assert_eq!(texts(&world.read(Read { limit: 2, ..descending }).await.events), numbers([6, 5]));
        let newest = Read { order: Order::Descending, limit: 3, ..Read::default() };
        assert_eq!(texts(&world.read(newest).await.events), numbers([9, 8, 7]));
        for empty in
            [Read::after(ids[9], 10), Read::after(EventId::MAX, 10), Read { after: ids[5], before: ids[6], ..between }]
        {
            assert_eq!(world.read(empty).await.events, []);
        }
        let reversed = Read { after: ids[7], before: ids[2], ..Read::default() };
        assert_eq!(world.read(reversed).await.events, []);
        // The same from wherever it is kept.
        world.restart().await;
    }
}

pub async fn a_page_says_whether_there_is_more(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    for _ in 0..2 {
        for order in [Order::Ascending, Order::Descending] {
            let more = async |read: Read| world.read(Read { order, ..read }).await.more;
            assert!(more(Read { limit: 9, ..Read::default() }).await);
            assert!(!more(Read { limit: 10, ..Read::default() }).await);
            assert!(!more(Read { after: ids[0], before: ids[9], limit: 8, ..Read::default() }).await);
            assert!(more(Read { after: ids[0], before: ids[9], limit: 7, ..Read::default() }).await);
        }
        world.restart().await;
    }
}

pub async fn a_time_is_a_place(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let mut first = world.publish(NewEvent::new("0")).await;
    let mut last = first;
    while last.ms == first.ms {
        (first, last) = (last, world.publish(NewEvent::new("later")).await);
    }
    let since = world.read(Read::after(EventId::before_time(last.ms), 10)).await;
    assert_eq!(since.events[0].id, last);
    let until = world.read(Read { before: EventId { ms: last.ms, seq: 0 }, ..Read::default() }).await;
    assert_eq!(until.events.last().unwrap().id, first);
}

pub async fn large_events_come_in_pages(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let text = |no: usize| format!("{no} {}", "x".repeat(700_000));
    for no in 0..20 {
        world.publish(NewEvent::new(text(no))).await;
    }
    for _ in 0..2 {
        let all = world.all().await;
        assert_eq!(all.len(), 20);
        assert!(all.iter().enumerate().all(|(no, read)| *read == text(no)));
        world.restart().await;
    }
}

pub async fn long_streams_come_in_pages(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for start in (0..5000).step_by(1000) {
        world.publish_numbers(start..start + 1000).await;
    }
    assert_eq!(world.all().await, numbers(0..5000));
}

pub async fn what_is_not_there_is_not_found(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    let absent =
        |error: Error| assert!(matches!(error, Error::StreamNotFound { ref name } if name == "orders"), "{error}");
    absent(world.bus.info(&world.stream).await.unwrap_err());
    absent(world.bus.read(&world.stream, Read::default()).await.unwrap_err());
    absent(world.bus.trim(&world.stream, Trim::MaxLength(1)).await.unwrap_err());
    absent(world.bus.groups(&world.stream).await.unwrap_err());
    assert_eq!(world.bus.delete(std::slice::from_ref(&world.stream)).await.unwrap(), [false]);
    assert_eq!(world.bus.list("", None, 10).await.unwrap().streams, []);
}

pub async fn values_out_of_range_are_refused_by_name(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    world.publish(NewEvent::new("1")).await;
    for limit in [0, 1001] {
        let refused = world.bus.read(&world.stream, Read { limit, ..Read::default() }).await;
        assert!(matches!(refused, Err(Error::Invalid { field: "limit", .. })), "{refused:?}");
    }
}

pub async fn a_stream_tells_its_length_and_its_ends(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    let ids = world.publish_numbers(0..10).await;
    for _ in 0..2 {
        let info = world.bus.info(&world.stream).await.unwrap();
        assert_eq!(
            (info.name.as_str(), info.length, info.first, info.last),
            ("orders", 10, Some(ids[0]), Some(ids[9]))
        );
        world.restart().await;
    }
    world.bus.trim(&world.stream, Trim::MaxLength(4)).await.unwrap();
    let info = world.bus.info(&world.stream).await.unwrap();
    assert_eq!((info.length, info.first, info.last), (4, Some(ids[6]), Some(ids[9])));
}

pub async fn streams_are_listed_by_name_in_pages(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for name in ["b.3", "a.2", "b.1", "a.1", "b.2", "c"] {
        world.publish_to(&stream(name), NewEvent::new(name)).await;
    }
    let names = async |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(stream);
        let page = world.bus.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(page.cached_at_ms > 1_600_000_000_000 && page.streams.iter().all(|info| info.length == 1));
        let names: Vec<_> = page.streams.iter().map(|info| info.name.to_string()).collect();
        (names.join(" "), page.next.map(|next| next.to_string()))
    };
    assert_eq!(names("", None, 10).await, ("a.1 a.2 b.1 b.2 b.3 c".into(), None));
    assert_eq!(names("", None, 4).await, ("a.1 a.2 b.1 b.2".into(), Some("b.2".into())));
    assert_eq!(names("", Some("b.2"), 4).await, ("b.3 c".into(), None));
    assert_eq!(names("b.", None, 2).await, ("b.1 b.2".into(), Some("b.2".into())));
    assert_eq!(names("b.", Some("b.2"), 1).await, ("b.3".into(), None));
    assert_eq!(names("b.", Some("a.1"), 10).await, ("b.1 b.2 b.3".into(), None));
    assert_eq!(names("d", None, 10).await, (String::new(), None));
    world.bus.delete(&[stream("b.1"), stream("a.2")]).await.unwrap();
    assert_eq!(names("", None, 10).await, ("a.1 b.2 b.3 c".into(), None), "a deletion is seen at once");
}

pub async fn a_prefix_may_be_a_whole_name(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for name in ["ab", "abc", "a"] {
        world.publish_to(&stream(name), NewEvent::new("1")).await;
    }
    let page = world.bus.list("ab", None, 10).await.unwrap();
    assert_eq!(page.streams.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["ab", "abc"]);
}

pub async fn names_are_checked(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    for name in ["", " ", "a b", "a\n", "ä", "a*", "a=b", "a;b", "{a}", "a,b", "~", &"x".repeat(201)] {
        assert!(matches!(StreamName::new(name), Err(Error::BadStreamName { .. })), "{name:?}");
        assert!(matches!(GroupName::new(name), Err(Error::BadGroupName { .. })), "{name:?}");
    }
    let longest = stream(&"x".repeat(200));
    world.publish_to(&longest, NewEvent::new("1")).await;
    for name in ["A-z_0.9:x/y", ".", "-", "..", "a..b"] {
        world.publish_to(&stream(name), NewEvent::new("1")).await;
        assert_eq!(world.bus.info(&stream(name)).await.unwrap().length, 1);
    }
    assert_eq!(world.bus.info(&longest).await.unwrap().length, 1);
}
