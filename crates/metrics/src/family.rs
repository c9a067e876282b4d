//! All series of one name: their type, their label names, and the bound on their number.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::counter::Counter;
use crate::gauge::Gauge;
use crate::labels::Labels;
use crate::timer::Timer;

/// One series of any type.
#[derive(Clone)]
pub(crate) enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Timer(Timer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Timer,
}

pub(crate) struct Family {
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    label_names: Box<[&'static str]>,
    /// By [`Labels::text`].
    series: BTreeMap<Arc<str>, Series>,
}

/// What a family answers when asked for a series.
pub(crate) enum Found {
    Series(Series),
    /// The family is full: here is the series that takes what has no place.
    Overflow(Series),
    /// Another family exports something under this name.
    NameTaken,
    /// The name is taken by another type.
    OtherKind,
    /// The name is taken with other label names.
    OtherLabels,
}

impl Family {
    pub(crate) fn new(help: &'static str, kind: Kind, labels: &Labels) -> Self {
        Self { help, kind, label_names: labels.names().collect(), series: BTreeMap::new() }
    }

    pub(crate) fn find(&mut self, name: &'static str, kind: Kind, labels: &Labels, series_max: usize) -> Found {
        if self.kind != kind {
            return Found::OtherKind;
        }
        if !self.label_names.iter().copied().eq(labels.names()) {
            return Found::OtherLabels;
        }
        if let Some(series) = self.series.get(&labels.text) {
            return Found::Series(series.clone());
        }
        if self.series.len() < series_max {
            return Found::Series(self.open(name, labels.clone()));
        }
        let labels = labels.overflow();
        let overflow = self.series.get(&labels.text).cloned();
        Found::Overflow(overflow.unwrap_or_else(|| self.open(name, labels)))
    }

    fn open(&mut self, name: &'static str, labels: Labels) -> Series {
        let key = Arc::clone(&labels.text);
        let series = Series::new(name, self.kind, labels);
        self.series.insert(key, series.clone());
        series
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }

    pub(crate) fn retire(&mut self, labels: &Labels) -> bool {
        self.series.remove(&labels.text).is_some()
    }

    /// Removes every series that carries this label and value; returns how many.
    pub(crate) fn retire_label(&mut self, label: &str, value: &str) -> usize {
        let before = self.series.len();
        if self.label_names.contains(&label) {
            self.series.retain(|_, series| !series.labels().pairs.iter().any(|(n, v)| *n == label && v == value));
        }
        before - self.series.len()
    }
}

impl Series {
    pub(crate) fn new(name: &'static str, kind: Kind, labels: Labels) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Counter::new(labels)),
            Kind::Gauge => Self::Gauge(Gauge::new(labels)),
            Kind::Timer => Self::Timer(Timer::new(name, labels)),
        }
    }

    pub(crate) fn labels(&self) -> &Labels {
        match self {
            Self::Counter(counter) => counter.labels(),
            Self::Gauge(gauge) => gauge.labels(),
            Self::Timer(timer) => timer.labels(),
        }
    }
}
