//! Names, labels and their bounds.

use std::time::Duration;

use tidegate_metrics::{Config, Registry};

fn line(registry: &Registry, start: &str) -> Option<String> {
    let text = registry.render_prometheus();
    text.lines().find_map(|line| line.strip_prefix(start)).map(|value| value.trim().to_owned())
}

#[test]
fn asking_twice_gives_the_same_series() {
    let registry = Registry::new();
    registry.counter("c_total", "").inc();
    registry.clone().counter("c_total", "").inc();
    registry.gauge("g", "").add(2.0);
    registry.gauge("g", "").sub(0.5);
    registry.timer("t_seconds", "").record(Duration::from_millis(1));
    registry.timer("t_seconds", "").record(Duration::from_millis(3));
    assert_eq!(registry.counter("c_total", "").get(), 2);
    assert_eq!(registry.gauge("g", "").get(), 1.5);
    assert_eq!(registry.timer("t_seconds", "").stats().avg, Duration::from_millis(2));
}

#[test]
fn the_order_of_labels_does_not_matter_but_their_values_do() {
    let registry = Registry::new();
    registry.counter_with("c_total", "", &[("queue", "a"), ("state", "b")]).inc();
    registry.counter_with("c_total", "", &[("state", "b"), ("queue", "a")]).inc();
    registry.counter_with("c_total", "", &[("queue", "b"), ("state", "a")]).inc();
    assert_eq!(line(&registry, r#"c_total{queue="a",state="b"}"#).as_deref(), Some("2"));
    assert_eq!(line(&registry, r#"c_total{queue="b",state="a"}"#).as_deref(), Some("1"));
}

#[test]
fn a_name_of_another_type_gives_a_detached_handle_and_is_counted() {
    let registry = Registry::new();
    registry.counter("x", "").add(5);
    let gauge = registry.gauge("x", "");
    gauge.set(7.0);
    registry.timer("x", "").record(Duration::from_secs(1));
    assert_eq!(gauge.get(), 7.0, "a detached handle works");
    assert_eq!(line(&registry, "x").as_deref(), Some("5"));
    assert!(registry.operations().is_empty());
    let refused = r#"tidegate_metrics_refused_total{family="x",reason="type"}"#;
    assert_eq!(line(&registry, refused).as_deref(), Some("2"));
}

#[test]
fn other_label_names_give_a_detached_handle_and_are_counted() {
    let registry = Registry::new();
    registry.counter_with("x", "", &[("queue", "a")]).inc();
    registry.counter("x", "").inc();
    registry.counter_with("x", "", &[("stream", "a")]).inc();
    registry.counter_with("x", "", &[("queue", "a"), ("kind", "b")]).inc();
    assert_eq!(line(&registry, r#"x{queue="a"}"#).as_deref(), Some("1"));
    let refused = r#"tidegate_metrics_refused_total{family="x",reason="labels"}"#;
    assert_eq!(line(&registry, refused).as_deref(), Some("3"));
}

#[test]
fn names_prometheus_does_not_allow_are_refused() {
    let registry = Registry::new();
    for name in ["", "1st", "queue.push", "größe", "a b"] {
        registry.counter(name, "").inc();
        let refused = format!(r#"tidegate_metrics_refused_total{{family="{name}",reason="name"}}"#);
        assert_eq!(line(&registry, &refused).as_deref(), Some("1"), "{name:?}");
    }
    for labels in [&[("le", "1")][..], &[("a-b", "1")], &[("__x", "1")], &[("a", "1"), ("a", "2")], &[("a:b", "1")]] {
        registry.counter_with("fine_total", "", labels).inc();
    }
    let refused = r#"tidegate_metrics_refused_total{family="fine_total",reason="name"}"#;
    assert_eq!(line(&registry, refused).as_deref(), Some("5"));
    assert_eq!(line(&registry, "fine_total"), None);
}

#[test]
fn two_families_never_export_the_same_name() {
    let registry = Registry::new();
    registry.timer("run_seconds", "").record(Duration::from_secs(1));
    for name in
        ["run_seconds_count", "run_seconds_sum", "run_seconds_bucket", "run_failed_total", "run_cancelled_total"]
    {
        registry.counter(name, "").add(99);
    }
    registry.counter("late_failed_total", "").inc();
    registry.timer("late_seconds", "").record(Duration::from_secs(1));
    assert_eq!(line(&registry, "run_seconds_count").as_deref(), Some("1"));
    assert!(!registry.render_prometheus().contains(" 99\n"));
    assert_eq!(registry.operations().len(), 1, "late_seconds would have exported late_failed_total again");
}

#[test]
fn a_full_family_sends_further_labels_to_overflow() {
    let registry = Registry::with_config(Config { series_max: 2 });
    let queues = ["a", "b", "c", "d"];
    for queue in queues {
        registry.counter_with("pushes_total", "", &[("queue", queue)]).inc();
    }
    registry.counter_with("pushes_total", "", &[("queue", "a")]).inc();
    registry.counter("other_total", "").inc();
    assert_eq!(line(&registry, r#"pushes_total{queue="a"}"#).as_deref(), Some("2"), "known labels keep their series");
    assert_eq!(line(&registry, r#"pushes_total{queue="b"}"#).as_deref(), Some("1"));
    assert_eq!(line(&registry, r#"pushes_total{queue="c"}"#), None);
    assert_eq!(line(&registry, r#"pushes_total{queue="overflow"}"#).as_deref(), Some("2"));
    assert_eq!(line(&registry, r#"tidegate_metrics_overflow_total{family="pushes_total"}"#).as_deref(), Some("2"));
    assert_eq!(line(&registry, "other_total").as_deref(), Some("1"), "other families have their own bound");
}

#[test]
fn the_default_bound_is_a_thousand() {
    let registry = Registry::new();
    for queue in 0..1200 {
        registry.gauge_with("depth", "", &[("queue", &queue.to_string())]).add(1.0);
    }
    let text = registry.render_prometheus();
    assert_eq!(text.lines().filter(|line| line.starts_with("depth{")).count(), 1001);
    assert_eq!(line(&registry, r#"depth{queue="overflow"}"#).as_deref(), Some("200"));
}

#[test]
fn a_retired_series_is_gone_makes_room_and_starts_again_at_zero() {
    let registry = Registry::with_config(Config { series_max: 1 });
    let old = registry.counter_with("c_total", "", &[("queue", "a")]);
    old.inc();
    assert!(registry.retire("c_total", &[("queue", "a")]));
    assert!(!registry.retire("c_total", &[("queue", "a")]));
    assert!(!registry.retire("unknown", &[]));
    old.inc();
    assert_eq!((line(&registry, "c_total"), old.get()), (None, 2));
    registry.counter_with("c_total", "", &[("queue", "b")]).inc();
    assert_eq!(line(&registry, r#"c_total{queue="b"}"#).as_deref(), Some("1"));
    registry.retire("c_total", &[("queue", "b")]);
    assert_eq!(registry.counter_with("c_total", "", &[("queue", "a")]).get(), 0);
}

#[test]
fn a_deleted_queue_is_retired_from_every_family_at_once() {
    let registry = Registry::new();
    for queue in ["gone", "kept"] {
        registry.counter_with("pushes_total", "", &[("queue", queue), ("kind", "x")]).inc();
        registry.counter_with("pushes_total", "", &[("queue", queue), ("kind", "y")]).inc();
        registry.timer_with("run_seconds", "", &[("queue", queue)]).record(Duration::from_secs(1));
    }
    registry.gauge_with("depth", "", &[("lane", "gone")]).set(1.0);
    assert_eq!(registry.retire_label("queue", "gone"), 3);
    let text = registry.render_prometheus();
    assert!(!text.contains(r#"queue="gone""#) && text.contains(r#"lane="gone""#));
    assert_eq!(registry.operations().len(), 1);
}

#[test]
fn operations_list_every_timer_with_name_and_labels() {
    let registry = Registry::new();
    registry.timer_with("b_seconds", "", &[("queue", "y"), ("kind", "z")]).record(Duration::from_millis(20));
    registry.timer("a_seconds", "").record(Duration::from_millis(10));
    registry.counter("c_total", "").inc();
    let operations = registry.operations();
    let listed: Vec<_> = operations.iter().map(|operation| (operation.name, operation.max)).collect();
    assert_eq!(listed, [("a_seconds", Duration::from_millis(10)), ("b_seconds", Duration::from_millis(20))]);
    assert_eq!(operations[1].labels, [("kind", "z".to_owned()), ("queue", "y".to_owned())]);
}
