//! The `kill -9` run: submitters and workers over HTTP against a server that is killed and started again on the same
//! data folder, round after round, everything they see being recorded.

mod submitter;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::history::{Answer, Event, History, Recorder};
use crate::server::Builder;
use crate::wait::eventually;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often a server is killed.
    pub rounds: u32,
    /// Servers that share the jobs; they are killed in turn, the others live on. More than one needs a builder with Redis,
    /// where leases outlive servers, and the checker holds them to that.
    pub servers: u32,
    /// Clients that submit.
    pub submitters: u32,
    /// Clients that claim and finish.
    pub workers: u32,
    /// Jobs sent per round and queue; below 10 000, the number of finished jobs a queue keeps, so that every end can
    /// still be seen.
    pub jobs_per_round: u64,
    /// Shortest and longest time between start and kill.
    pub round_ms: (u64, u64),
    /// Seed of all choices; the interleaving is the machine's.
    pub seed: u64,
    /// A bug to plant.
    pub plant: Option<Plant>,
}

/// A bug planted to see the checker find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// After the second kill the data folder is put back to where it was after the first: a disk that forgets.
    ForgetfulDisk,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Kills.
    pub kills: u64,
    /// Submissions acknowledged.
    pub acknowledged: u64,
    /// Submissions whose answer was lost.
    pub submits_unknown: u64,
    /// Jobs handed out.
    pub claims: u64,
    /// Finishes accepted.
    pub accepted: u64,
    /// Finishes refused as stale.
    pub stale: u64,
    /// Finishes whose answer was lost.
    pub finishes_unknown: u64,
    /// Longest time from `kill -9` to listening again, in ms.
    pub restart_ms_max: u64,
    /// The whole run, in ms.
    pub total_ms: u64,
}

/// The run.
#[derive(Debug)]
pub struct Soak {
    plan: Plan,
    recorder: Recorder,
    stage: watch::Sender<Stage>,
    /// Jobs sent in this round.
    sent: Arc<AtomicU64>,
    restart_ms_max: u64,
}

/// What the clients need to know about the server now.
#[derive(Clone, Debug)]
struct Stage {
    boot: u32,
    /// One per server; `None` while it is down.
    clients: Vec<Option<Client>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Load,
    Drain,
    Done,
}

impl Soak {
    /// Runs the plan against servers of `builder` and returns what the clients saw. Leases last 1 s, so that many run
    /// out while their jobs are being kept.
    ///
    /// # Panics
    /// When the server does not start again, or live jobs remain a minute after the last round.
    pub async fn run(plan: Plan, builder: &Builder) -> (History, Figures) {
        let builder = &builder.clone().env("TIDEGATE_LEASE", "1s");
        let clients = vec![None; plan.servers as usize];
        let stage = watch::channel(Stage { boot: 0, clients, phase: Phase::Load }).0;
        let recorder = Recorder::begin();
        let mut soak = Self { plan, recorder, stage, sent: Arc::default(), restart_ms_max: 0 };
        soak.go(builder).await
    }

    async fn go(&mut self, builder: &Builder) -> (History, Figures) {
        let (mut submitters, mut workers) = (JoinSet::new(), JoinSet::new());
        for number in 0..self.plan.submitters {
            submitters.spawn(submitter::run(self.actor(number)));
        }
        for number in 0..self.plan.workers {
            workers.spawn(worker::run(self.actor(1000 + number)));
        }
        let servers = self.rounds(builder).await;
        let client = servers[0].client();
        self.stage.send_modify(|stage| stage.phase = Phase::Drain);
        while let Some(ended) = submitters.join_next().await {
            ended.expect("no submitter panics");
        }
        self.drained(&client).await;
        self.stage.send_modify(|stage| stage.phase = Phase::Done);
        while let Some(ended) = workers.join_next().await {
            ended.expect("no worker panics");
        }
        self.finals(&client).await;
        for server in servers {
            server.stop().await;
        }
        let history = self.recorder.finish();
        let figures = self.figures(&history);
        (history, figures)
    }

    async fn rounds(&mut self, builder: &Builder) -> Vec<crate::Server> {
        let mut random = Random(self.plan.seed);
        let mut servers = Vec::new();
        for _ in 0..self.plan.servers {
            servers.push(builder.start().await);
        }
        let old = builder.folder().join("after-first-kill");
        for boot in 0..self.plan.rounds {
            let victim = (boot % self.plan.servers) as usize;
            self.sent.store(0, Ordering::Relaxed);
            self.open(boot, &servers);
            // Not a wait for something: the length of the round is what the seed varies.
            let (shortest, longest) = self.plan.round_ms;
            tokio::time::sleep(Duration::from_millis(shortest + random.below(longest - shortest + 1))).await;
            // Where leases outlive servers, the end of one excuses nothing.
            self.recorder.record(Event::Killed { boot: if self.leases_outlive() { u32::MAX } else { boot } });
            servers.remove(victim).kill().await;
            let killed = Instant::now();
            self.stage.send_modify(|stage| stage.clients[victim] = None);
            if self.plan.plant == Some(Plant::ForgetfulDisk) {
                match boot {
                    0 => copy_folder(builder.data_folder(), &old),
                    1 => {
                        std::fs::remove_dir_all(builder.data_folder()).expect("the data folder can be removed");
                        copy_folder(&old, builder.data_folder());
                    }
                    _ => {}
                }
            }
            servers.insert(victim, self.start_again(builder).await);
            let restart_ms = u64::try_from(killed.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.restart_ms_max = self.restart_ms_max.max(restart_ms);
        }
        self.open(self.plan.rounds, &servers);
        servers
    }

    /// Where several servers share a Redis, that may be away for the moment.
    async fn start_again(&self, builder: &Builder) -> crate::Server {
        if !self.leases_outlive() {
            return builder.start().await;
        }
        eventually("the server starts again", Duration::from_secs(60), || async {
            match builder.try_start().await {
                Ok(server) => Some(server),
                Err(exit) if exit.code == Some(69) => None,
                Err(exit) => panic!("the server does not start: {}", exit.said()),
            }
        })
        .await
    }

    fn open(&self, boot: u32, servers: &[crate::Server]) {
        let clients = servers.iter().map(|server| Some(server.client())).collect();
        self.stage.send_replace(Stage { boot, clients, phase: Phase::Load });
    }

    fn leases_outlive(&self) -> bool {
        self.plan.servers > 1
    }

    fn actor(&self, number: u32) -> Actor {
        Actor {
            number,
            random: Random(self.plan.seed ^ (u64::from(number) << 32)),
            recorder: self.recorder.clone(),
            stage: self.stage.subscribe(),
            sent: Arc::clone(&self.sent),
            jobs_per_round: self.plan.jobs_per_round,
            leases_outlive: self.leases_outlive(),
        }
    }

    /// Waits until no queue holds a live job. One look at all counts of a queue: jobs move between states meanwhile.
    async fn drained(&self, client: &Client) {
        for boot in 0..=self.plan.rounds {
            let queue = queue(boot);
            eventually(&format!("no live jobs are left in {queue}"), Duration::from_secs(90), || async {
                let reply = client.get(&format!("/api/queues/{queue}")).await;
                if reply.status == 404 {
                    return Some(());
                }
                let counts = reply.expect(200).value()["counts"].clone();
                let live = ["scheduled", "queued", "running", "retrying"];
                live.iter().all(|state| counts[state] == 0).then_some(())
            })
            .await;
        }
    }

    /// Asks for every job anybody ever heard of.
    async fn finals(&self, client: &Client) {
        let history = self.recorder.finish();
        let mut jobs: Vec<String> = history
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::SubmitAccepted { job, .. } | Event::Claimed { job, .. } => Some(job.clone()),
                _ => None,
            })
            .collect();
        jobs.sort_unstable();
        jobs.dedup();
        self.recorder.resume(history);
        futures_util::stream::iter(jobs)
            .for_each_concurrent(16, |job| async move {
                let reply = client.job_reply(&job).await;
                if reply.status == 404 {
                    return;
                }
                let view: crate::JobView = reply.expect(200).data();
                let result = view.result.map(|result| result.get().to_owned());
                self.recorder.record(Event::Final { job, status: view.status, result });
            })
            .await;
    }

    fn figures(&self, history: &History) -> Figures {
        let mut figures = Figures { restart_ms_max: self.restart_ms_max, ..Figures::default() };
        figures.total_ms = u64::try_from(self.recorder.now().as_millis()).unwrap_or(u64::MAX);
        for (_, event) in &history.events {
            match event {
                Event::SubmitAccepted { .. } => figures.acknowledged += 1,
                Event::SubmitUnknown { .. } => figures.submits_unknown += 1,
                Event::Claimed { .. } => figures.claims += 1,
                Event::FinishAnswered { answer: Answer::Accepted, .. } => figures.accepted += 1,
                Event::FinishAnswered { answer: Answer::Stale, .. } => figures.stale += 1,
                Event::FinishAnswered { answer: Answer::Unknown, .. } => figures.finishes_unknown += 1,
                Event::Killed { .. } => figures.kills += 1,
                _ => {}
            }
        }
        figures
    }
}

/// What one client of the run owns.
struct Actor {
    number: u32,
    random: Random,
    recorder: Recorder,
    stage: watch::Receiver<Stage>,
    sent: Arc<AtomicU64>,
    jobs_per_round: u64,
    leases_outlive: bool,
}

impl Actor {
    /// The stage as soon as the server of this client is up. On each of several servers there are submitters and workers.
    async fn up(&mut self) -> (u32, Client, Phase) {
        let number = self.number as usize;
        let mine = |stage: &Stage| stage.clients[number % stage.clients.len()].clone();
        let stage = self.stage.wait_for(|stage| mine(stage).is_some()).await.expect("the run outlives its clients");
        (stage.boot, mine(&stage).expect("just waited for it"), stage.phase)
    }

    /// The boot that a lease handed out now may end with.
    fn boot_of_leases(&self, boot: u32) -> u32 {
        if self.leases_outlive { 0 } else { boot }
    }
}

/// Each round has a queue of its own.
fn queue(boot: u32) -> String {
    format!("soak-{boot}")
}

/// splitmix64: small, seeded, good enough to vary a test.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the temporary folder is writable");
    for entry in std::fs::read_dir(from).expect("the data folder is readable") {
        let entry = entry.expect("the data folder is readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("files have types").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("files can be copied");
        }
    }
}
