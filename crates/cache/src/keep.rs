//! How one value is kept.

use std::time::Duration;

/// How one value is kept; what is not said is as [`Config`](crate::Config) says.
///
/// A value past its TTL is given where both agree: who kept it said that it may be for so long, and who asks takes it so long
/// past its TTL.
///
/// ```
/// use std::time::Duration;
/// use tidegate_cache::Keep;
///
/// let keep = Keep::new().ttl(Duration::from_secs(60)).tag("users").tag("team:7");
/// # let _ = keep;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_on_error: Option<Duration>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) tags: Vec<Box<str>>,
}

impl Keep {
    /// As the configuration says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long it is fresh; chance shortens it by up to [`Config::ttl_jitter`](crate::Config::ttl_jitter).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// For how long after that it is still given while one caller's load renews it.
    #[must_use]
    pub fn stale_while_revalidate(mut self, time: Duration) -> Self {
        self.stale_while_revalidate = Some(time);
        self
    }

    /// For how long after its TTL it is still given when loading it anew fails.
    #[must_use]
    pub fn stale_on_error(mut self, time: Duration) -> Self {
        self.stale_on_error = Some(time);
        self
    }

    /// How long a caller waits for a load before it takes a value past its TTL, if there is one.
    #[must_use]
    pub fn soft_timeout(mut self, time: Duration) -> Self {
        self.soft_timeout = Some(time);
        self
    }

    /// When a load is ended and counts as failed.
    #[must_use]
    pub fn hard_timeout(mut self, time: Duration) -> Self {
        self.hard_timeout = Some(time);
        self
    }

    /// A tag by which it can be invalidated together with others. Given before the load: what is invalidated meanwhile is
    /// not kept.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        let tag = tag.into();
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        self
    }

    /// Several tags.
    #[must_use]
    pub fn tags(self, tags: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        tags.into_iter().fold(self, Keep::tag)
    }
}
