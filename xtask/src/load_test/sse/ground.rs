//! What a scenario stands on: a server of our own (and a Redis beneath it, if asked for), or the one at `--url`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::crowd::{Crowd, CrowdPlan, Source};
use super::plan::Plan;
use super::publisher::{Poster, Publisher};
use crate::load_test::client::Client;
use crate::load_test::redis::Redis;
use crate::load_test::server::Server;
use crate::load_test::{address_of, expect_ready};
use crate::stamp;

/// Descriptors beside the listeners: pipes, logs, the publisher.
const FILES_BESIDE: u64 = 200;

/// Time for a crowd to come in.
const OPEN_MAX: Duration = Duration::from_secs(120);

/// Everything that runs during a scenario. The server goes first, then its Redis.
pub(super) struct Ground {
    pub(super) server: Option<Server>,
    pub(super) redis: Option<Redis>,
    pub(super) address: String,
    pub(super) target: SocketAddr,
    /// What `at` in the events counts from.
    pub(super) epoch: Instant,
    /// Names this run in streams and idempotence ids.
    pub(super) run: String,
}

impl Ground {
    pub(super) fn lay(plan: &Plan, listeners: usize) -> Result<Self> {
        raise_files(listeners as u64 + FILES_BESIDE)?;
        let is_own = plan.url.is_none();
        let redis = plan.redis.filter(|_| is_own).map(Redis::start).transpose()?;
        let mut flags: Vec<String> = redis.iter().flat_map(|redis| ["--redis".to_owned(), redis.url()]).collect();
        flags.extend(plan.flags.iter().cloned());
        let server = is_own.then(|| Server::start(plan.binary.as_deref(), &flags)).transpose()?;
        let address = match (&plan.url, &server) {
            (Some(url), _) => address_of(url)?,
            (None, server) => server.as_ref().context("no server")?.address.clone(),
        };
        expect_ready(&address, plan.token.clone())?;
        let target = address.to_socket_addrs()?.next().with_context(|| format!("{address} has no address"))?;
        let run = format!("{}-{}", stamp::now().to_lowercase(), std::process::id());
        Ok(Self { server, redis, address, target, epoch: Instant::now(), run })
    }

    /// What the server stands on, for a headline.
    pub(super) fn described(&self) -> String {
        match (&self.server, &self.redis) {
            (None, _) => self.address.clone(),
            (Some(_), None) => "embedded".to_owned(),
            (Some(_), Some(redis)) => format!("Redis, {}", redis.described()),
        }
    }

    /// A publisher to these streams, each of which gets a first event, to begin after.
    pub(super) fn publisher(&self, plan: &Plan, names: Vec<String>, is_idempotent: bool) -> Result<Publisher> {
        let client = Client::new(&self.address, plan.token.clone());
        let run = is_idempotent.then(|| self.run.clone());
        let count = names.len();
        let mut publisher = Publisher::new(Poster::Tidegate(client), names, plan.bytes, run, self.epoch);
        for stream in 0..count {
            let is_there = publisher.publish(stream, &[Instant::now()], Duration::ZERO)?;
            ensure!(is_there, "the first event of {} was refused: {:?}", publisher.names[stream], publisher.errors);
        }
        publisher.latency = Default::default();
        Ok(publisher)
    }

    /// A crowd that listens to all streams of the publisher from now on; `query` goes behind the path.
    pub(super) fn crowd(&self, plan: &Plan, publisher: &Publisher, query: &str) -> CrowdPlan {
        let source = |(stream, name): (usize, &String)| {
            let (next, after) = publisher.end(stream);
            Source { path: format!("/api/streams/{name}/sse{query}"), after, next }
        };
        CrowdPlan {
            target: self.target,
            token: plan.token.clone(),
            streams: publisher.names.iter().enumerate().map(source).collect(),
            listeners: plan.listeners,
            slow: 0,
            threads: plan.threads,
            sources: plan.sources,
            leaves_after: None,
            has_ids: true,
            epoch: self.epoch,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.target.port()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }
}

/// Opens a crowd and says how long that took.
pub(super) fn open(plan: &CrowdPlan) -> Result<Crowd> {
    let start = Instant::now();
    let crowd = Crowd::open(plan, OPEN_MAX)?;
    println!("load-test: {} listeners are open after {:.1} s", plan.listeners, start.elapsed().as_secs_f64());
    Ok(crowd)
}

/// Raises the number of files this process may open to what the system allows; the server inherits it.
fn raise_files(wanted: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    ensure!(allowed >= wanted, "so many listeners want {wanted} open files, the system allows {allowed} (ulimit -Hn)");
    // macOS takes no "unlimited" here.
    limit.current = Some(allowed.min(1 << 20));
    setrlimit(Resource::Nofile, limit).context("cannot raise the number of open files")
}
