//! Skeleton.

use std::sync::Arc;

use tidegate_metrics::Registry;

use crate::backend::{Bounds, Step, Stepped};
use crate::hub::Hub;
use crate::{
    Config, Error, EventId, GroupInfo, GroupName, NewEvent, Page, Pattern, Pending, Published, Read, StreamInfo,
    StreamName, StreamPage, Trim,
};

#[derive(Clone)]
pub(crate) struct RedisBus(Arc<Shared>);

#[allow(dead_code)]
struct Shared {
    config: Arc<Config>,
    hub: Hub,
}

#[allow(unused_variables, clippy::unused_async)]
impl RedisBus {
    pub(crate) async fn open(
        redis: tidegate_redis_ops::Redis,
        config: Arc<Config>,
        hub: Hub,
        registry: &Registry,
    ) -> Result<Self, Error> {
        Ok(Self(Arc::new(Shared { config, hub })))
    }

    pub(crate) async fn publish(&self, stream: &StreamName, events: Vec<NewEvent>) -> Result<Vec<Published>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn info(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<StreamPage, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn matching(&self, pattern: &Pattern, limit: usize) -> Result<Vec<StreamName>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn read(&self, stream: &StreamName, read: Read) -> Result<Page, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn bounds(&self, stream: &StreamName) -> Result<Bounds, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn trim(&self, stream: &StreamName, trim: Trim) -> Result<u64, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn delete(&self, streams: &[StreamName]) -> Result<Vec<bool>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn step(&self, stream: &StreamName, group: &GroupName, step: Step) -> Result<Stepped, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn ack(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<bool>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn free(
        &self,
        stream: &StreamName,
        group: &GroupName,
        ids: &[EventId],
    ) -> Result<Vec<Option<u32>>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn pending(
        &self,
        stream: &StreamName,
        group: &GroupName,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Pending>, Error> {
        Err(Error::Draining)
    }

    pub(crate) async fn groups(&self, stream: &StreamName) -> Result<Vec<GroupInfo>, Error> {
        Err(Error::Draining)
    }

    pub(crate) fn durability(&self) -> &'static str {
        "unknown"
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
