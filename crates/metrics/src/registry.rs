//! The place where a process keeps its metrics: names to series, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counter::Counter;
use crate::family::{Family, Found, Kind, Series};
use crate::gauge::Gauge;
use crate::labels::{self, Labels};
use crate::prometheus;
use crate::stats::OperationStats;
use crate::timer::Timer;

/// Requests answered with the overflow series, because their family was full.
const OVERFLOW: &str = "tidegate_metrics_overflow_total";
/// Requests answered with a handle that is not exported, because name, type or labels do not fit.
const REFUSED: &str = "tidegate_metrics_refused_total";

/// Bounds of a [`Registry`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Label sets per family. 1000: a scrape of a full family of timers stays near one millisecond.
    pub series_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { series_max: 1000 }
    }
}

/// Hands out counters, gauges and timers by name and renders them all. Cheap to clone; clones share everything.
///
/// Ask for a handle once and keep it: asking takes a lock and compares text, recording does neither. Asking again for
/// the same name and labels (in any order) returns the same series.
///
/// Nothing here panics or fails. A name that is already taken by another type or with other label names, or a name or
/// label that Prometheus does not allow, yields a *detached* handle: it counts, but is not exported, and
/// `tidegate_metrics_refused_total{family, reason}` says so. When a family has [`Config::series_max`] label sets,
/// further ones share one series whose label values are all `overflow`, and `tidegate_metrics_overflow_total{family}`
/// counts each such request.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    config: Config,
    /// Locked to make, retire or list series, one family at a time; no recording waits for it.
    families: Mutex<Families>,
}

/// All families, and the names they may export: a timer also takes `…_count`, `…_failed_total` and so on.
#[derive(Default)]
struct Families {
    by_name: BTreeMap<&'static str, Family>,
    exported: BTreeSet<String>,
}

impl Families {
    /// The family of this name, new if need be; `None` when another family exports something under one of its names.
    fn family(&mut self, name: &'static str, help: &'static str, kind: Kind, labels: &Labels) -> Option<&mut Family> {
        if !self.by_name.contains_key(name) {
            let names = prometheus::exported_names(name, kind);
            if names.iter().any(|name| self.exported.contains(name)) {
                return None;
            }
            self.exported.extend(names);
        }
        Some(self.by_name.entry(name).or_insert_with(|| Family::new(help, kind, labels)))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry with default bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry with the given bounds.
    pub fn with_config(config: Config) -> Self {
        Self(Arc::new(Shared { config, families: Mutex::default() }))
    }

    /// The counter of this name.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// The counter of this name and these labels.
    pub fn counter_with(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        match self.series(name, help, Kind::Counter, labels) {
            Series::Counter(counter) => counter,
            _ => Counter::new(Labels::default()),
        }
    }

    /// The gauge of this name.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// The gauge of this name and these labels.
    pub fn gauge_with(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        match self.series(name, help, Kind::Gauge, labels) {
            Series::Gauge(gauge) => gauge,
            _ => Gauge::new(Labels::default()),
        }
    }

    /// The timer of this name. It is exported in seconds, so let the name end in `_seconds`.
    pub fn timer(&self, name: &'static str, help: &'static str) -> Timer {
        self.timer_with(name, help, &[])
    }

    /// The timer of this name and these labels.
    pub fn timer_with(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Timer {
        match self.series(name, help, Kind::Timer, labels) {
            Series::Timer(timer) => timer,
            _ => Timer::new(name, Labels::default()),
        }
    }

    /// Stops exporting one series, for example of a deleted queue; returns whether there was one.
    /// Handles to it keep working but are no longer exported; asking for it again starts at zero.
    pub fn retire(&self, name: &str, labels: &[(&'static str, &str)]) -> bool {
        self.families().by_name.get_mut(name).is_some_and(|family| family.retire(&Labels::new(labels)))
    }

    /// Stops exporting every series, of any name, that carries this label and value; returns how many there were.
    pub fn retire_label(&self, label: &str, value: &str) -> usize {
        self.families().by_name.values_mut().map(|family| family.retire_label(label, value)).sum()
    }

    /// Everything in the Prometheus text format 0.0.4.
    pub fn render_prometheus(&self) -> String {
        let mut text = String::new();
        self.render_prometheus_into(&mut text);
        text
    }

    /// Appends everything in the Prometheus text format 0.0.4; for callers that keep the buffer.
    pub fn render_prometheus_into(&self, text: &mut String) {
        self.each_family(|name, help, kind, series| prometheus::render_family(text, name, help, kind, series));
    }

    /// The figures of every timer, ordered by name and labels.
    pub fn operations(&self) -> Vec<OperationStats> {
        let mut operations = Vec::new();
        self.each_family(|_, _, _, series| {
            operations.extend(series.iter().filter_map(|series| match series {
                Series::Timer(timer) => Some(timer.stats()),
                _ => None,
            }));
        });
        operations
    }

    /// Calls `visit` for each family with handles to its series. The lock is not held meanwhile.
    fn each_family(&self, mut visit: impl FnMut(&'static str, &'static str, Kind, &[Series])) {
        let mut last = "";
        loop {
            let families = self.families();
            let Some((name, family)) = families.by_name.range::<str, _>((Excluded(last), Unbounded)).next() else {
                return;
            };
            last = name;
            let (help, kind) = (family.help, family.kind);
            let series: Vec<_> = family.series().cloned().collect();
            drop(families);
            visit(last, help, kind, &series);
        }
    }

    fn series(&self, name: &'static str, help: &'static str, kind: Kind, labels: &[(&'static str, &str)]) -> Series {
        let labels = Labels::new(labels);
        if !labels::is_metric_name(name) || !labels.are_valid() {
            return self.refuse(name, kind, labels, "name");
        }
        match self.find(name, help, kind, &labels) {
            Found::Series(series) => series,
            Found::Overflow(series) => {
                self.count_fault(OVERFLOW, "Requests for a series in a full family.", &[("family", name)]);
                series
            }
            Found::NameTaken => self.refuse(name, kind, labels, "name"),
            Found::OtherKind => self.refuse(name, kind, labels, "type"),
            Found::OtherLabels => self.refuse(name, kind, labels, "labels"),
        }
    }

    fn find(&self, name: &'static str, help: &'static str, kind: Kind, labels: &Labels) -> Found {
        match self.families().family(name, help, kind, labels) {
            Some(family) => family.find(name, kind, labels, self.0.config.series_max),
            None => Found::NameTaken,
        }
    }

    /// A handle that is not exported, and the counter that says so.
    fn refuse(&self, name: &'static str, kind: Kind, labels: Labels, reason: &'static str) -> Series {
        let help = "Requests whose name, type or labels do not fit; they got a handle that is not exported.";
        self.count_fault(REFUSED, help, &[("family", name), ("reason", reason)]);
        Series::new(name, kind, labels)
    }

    fn count_fault(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) {
        let labels = Labels::new(labels);
        let found = self.find(name, help, Kind::Counter, &labels);
        if let Found::Series(Series::Counter(counter)) | Found::Overflow(Series::Counter(counter)) = found {
            counter.inc();
        }
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        self.0.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
