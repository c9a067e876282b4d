//! What a run stands on: the servers and what keeps their jobs, and how each of them is killed and comes back.

use std::time::{Duration, Instant};

use tidegate_test_redis::{Builder as RedisBuilder, Cluster, Fsync, Persistence, Sentinel, Server as Redis};

use super::queue;
use crate::client::Client;
use crate::history::{Event, Recorder};
use crate::server::{Builder, Server};

/// Where the jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the data folder of the one server.
    Disk,
    /// On one Redis with an append-only file.
    Redis(Fsync),
    /// On a cluster of 6 nodes; what is killed is the primary of the round's queue.
    Cluster,
    /// On a primary and a replica, watched by three Sentinels.
    Sentinel,
}

enum Store {
    Disk,
    Redis(Box<Redis>),
    Cluster(Cluster),
    Sentinel(Box<Sentinel>),
}

pub(super) struct Ground {
    store: Store,
    /// `None` while it is dead.
    servers: Vec<Option<Running>>,
    builder: Builder,
}

struct Running {
    server: Server,
    client: Client,
}

impl Ground {
    pub(super) async fn start(place: Place, servers: usize, builder: &Builder) -> Self {
        // Each node is durable by itself, too, as anybody's would be.
        let kept = |fsync| move |builder: RedisBuilder| builder.persistence(Persistence::Aof(fsync));
        let (store, builder) = match place {
            Place::Disk => (Store::Disk, builder.clone()),
            Place::Redis(fsync) => {
                let redis = kept(fsync)(Redis::builder()).start().await;
                let builder = builder.clone().redis(&redis.url());
                (Store::Redis(Box::new(redis)), builder)
            }
            Place::Cluster => {
                let cluster = Cluster::start_with(kept(Fsync::EverySecond)).await;
                let builder = builder.clone().redis(&cluster.url());
                (Store::Cluster(cluster), builder)
            }
            Place::Sentinel => {
                let sentinel = Sentinel::start_with(kept(Fsync::EverySecond)).await;
                let builder = builder.clone().redis(&sentinel.url());
                (Store::Sentinel(Box::new(sentinel)), builder)
            }
        };
        let mut ground = Self { store, servers: Vec::new(), builder };
        for number in 0..servers {
            ground.servers.push(None);
            ground.start_server(number).await;
        }
        ground
    }

    pub(super) fn clients(&self) -> Vec<Option<Client>> {
        self.servers.iter().map(|server| server.as_ref().map(|running| running.client.clone())).collect()
    }

    pub(super) fn client(&self) -> Client {
        self.clients().into_iter().flatten().next().expect("a server is up")
    }

    pub(super) async fn kill_server(&mut self, number: usize, round: u32, recorder: &Recorder) {
        let running = self.servers[number].take().expect("it was up");
        recorder.record(match self.store {
            Store::Disk => Event::Killed { boot: round },
            _ => Event::ServerKilled { server: number },
        });
        running.server.kill().await;
    }

    pub(super) async fn start_server(&mut self, number: usize) {
        let server = self.builder.start().await;
        let client = server.client();
        self.servers[number] = Some(Running { server, client });
    }

    /// Kills Redis, leaves it dead for `outage`, brings it back. With replicas: kills the primary `outage` after the
    /// last moment known to be on its replica, and waits for the replica to take over.
    pub(super) async fn kill_redis(&self, round: u32, outage: Duration, recorder: &Recorder) {
        match &self.store {
            Store::Disk => panic!("without Redis none can be killed"),
            Store::Redis(redis) => {
                recorder.record(Event::RedisKilled);
                redis.kill();
                // Not a wait for something: the length of the outage is what is varied.
                tokio::time::sleep(outage).await;
                redis.restart().await;
                recorder.record(Event::RedisBack);
            }
            Store::Cluster(cluster) => {
                let key = format!("tidegate:{{{}}}:meta", queue(round));
                let killed = cluster.primary_of(&key).await;
                replicated(killed, &key, recorder).await;
                tokio::time::sleep(outage).await;
                recorder.record(Event::RedisKilled);
                killed.kill();
                cluster.wait_for_failover(&key).await;
                recorder.record(Event::RedisBack);
                killed.restart().await;
                cluster.wait_until_healthy().await;
            }
            Store::Sentinel(sentinel) => {
                let killed = sentinel.primary().await;
                replicated(killed, "", recorder).await;
                tokio::time::sleep(outage).await;
                recorder.record(Event::RedisKilled);
                killed.kill();
                sentinel.wait_for_promotion(killed).await;
                recorder.record(Event::RedisBack);
                killed.restart().await;
                sentinel.wait_until_healthy().await;
            }
        }
    }

    pub(super) async fn stop(self) {
        for running in self.servers.into_iter().flatten() {
            running.server.stop().await;
        }
    }
}

/// Waits until the replica has what this primary has acknowledged so far, and records it. A write of our own, in the
/// slot of `near`, stands behind all of it.
async fn replicated(primary: &Redis, near: &str, recorder: &Recorder) {
    let since = recorder.now();
    let mut connection = primary.connect().await.expect("the primary is up");
    let mark = format!("mark:{near}");
    let reply = connection.command(&["SET", &mark, "1"]).await.expect("the primary is up");
    assert!(!reply.is_error(""), "{reply}");
    let began = Instant::now();
    loop {
        let replicas = connection.command(&["WAIT", "1", "10000"]).await.expect("the primary is up").int();
        if replicas > 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no replica follows");
    }
    recorder.record(Event::Replicated { since });
}
