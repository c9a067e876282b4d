//! The exported numbers of the embedded bus.

use tidegate_metrics::{Counter, Gauge, Registry};

pub(super) struct Meters {
    pub(super) streams: Gauge,
    pub(super) bytes: Gauge,
    pub(super) tail_bytes: Gauge,
    pub(super) removed: Counter,
    pub(super) forgotten: Counter,
    pub(super) vanished: Counter,
}

impl Meters {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            streams: registry.gauge("tidegate_events_streams", "Streams kept."),
            bytes: registry.gauge("tidegate_events_bytes", "Bytes of all events kept, refused beyond their bound."),
            tail_bytes: registry
                .gauge("tidegate_events_tail_bytes", "Bytes of recent events kept in memory for reads at the end."),
            removed: registry.counter(
                "tidegate_events_removed_total",
                "Events removed by retention, by hand, or with their stream.",
            ),
            forgotten: registry.counter(
                "tidegate_events_idempotence_forgotten_total",
                "Idempotence ids forgotten before the end of their window because there were too many.",
            ),
            vanished: registry.counter(
                "tidegate_events_pending_removed_total",
                "Deliveries dropped because their event was removed before it was acknowledged.",
            ),
        }
    }
}
