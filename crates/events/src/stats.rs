//! What is counted: [`Stats`] read the same counters that are exported.

use tidegate_metrics::{Counter, Gauge, Registry};

use crate::GapReason;

/// A snapshot of this process's part of the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events published through this process and acknowledged.
    pub published: u64,
    /// Listeners now.
    pub listeners: u64,
    /// Streams with a listener or a waiting claim now.
    pub live_streams: u64,
    /// Bytes of recent events held for listeners.
    pub ring_bytes: u64,
    /// Events handed to listeners.
    pub delivered: u64,
    /// Gaps announced.
    pub gaps: u64,
    /// Listeners closed because they fell behind.
    pub slow_closed: u64,
    /// Pages read from the log for listeners that came back or fell behind.
    pub catch_up_reads: u64,
}

/// The counters.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) published: Counter,
    pub(crate) listeners: Gauge,
    pub(crate) live_streams: Gauge,
    pub(crate) ring_bytes: Gauge,
    pub(crate) delivered: Counter,
    pub(crate) slow_closed: Counter,
    pub(crate) catch_up_reads: Counter,
    gaps: [Counter; 5],
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gap = |reason: GapReason| {
            let help = "Gaps announced to listeners: history they asked for is not there.";
            registry.counter_with("tidegate_events_gaps_total", help, &[("reason", reason.as_str())])
        };
        Self {
            published: registry.counter("tidegate_events_published_total", "Events published and acknowledged."),
            listeners: registry.gauge("tidegate_events_listeners", "Listeners now."),
            live_streams: registry
                .gauge("tidegate_events_live_streams", "Streams with a listener or a waiting claim now."),
            ring_bytes: registry.gauge("tidegate_events_ring_bytes", "Bytes of recent events held for listeners."),
            delivered: registry.counter("tidegate_events_delivered_total", "Events handed to listeners."),
            slow_closed: registry
                .counter("tidegate_events_slow_closed_total", "Listeners closed because they fell behind."),
            catch_up_reads: registry
                .counter("tidegate_events_catch_up_reads_total", "Pages read from the log for listeners."),
            gaps: GapReason::ALL.map(gap),
        }
    }

    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps[reason as usize].inc();
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            published: self.published.get(),
            listeners: self.listeners.get() as u64,
            live_streams: self.live_streams.get() as u64,
            ring_bytes: self.ring_bytes.get() as u64,
            delivered: self.delivered.get(),
            gaps: self.gaps.iter().map(Counter::get).sum(),
            slow_closed: self.slow_closed.get(),
            catch_up_reads: self.catch_up_reads.get(),
        }
    }
}
