//! The `kill -9` run: submitters and workers over HTTP against a server that is killed and started again on the same
//! data folder, or against several servers on one Redis, any of which is killed and started again; round after round,
//! everything they see being recorded.

mod figures;
mod ground;
mod submitter;
mod worker;

pub use figures::Figures;
pub use ground::Place;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::history::{Event, History, Recorder};
use crate::server::Builder;
use crate::wait::eventually;

use figures::ms;
use ground::Ground;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the jobs are kept.
    pub place: Place,
    /// Servers; one with [`Place::Disk`].
    pub servers: usize,
    /// How often a server is killed.
    pub rounds: u32,
    /// How often Redis is killed, in rounds between the others.
    pub redis_rounds: u32,
    /// Shortest and longest time Redis is dead; with replicas, from the last moment known to be replicated to the kill.
    pub outage_ms: (u64, u64),
    /// Clients that submit.
    pub submitters: u32,
    /// Clients that claim and finish.
    pub workers: u32,
    /// Jobs sent per round and queue; below 10 000, the number of finished jobs a queue keeps, so that every end can
    /// still be seen.
    pub jobs_per_round: u64,
    /// Shortest and longest time between start and kill. The kill comes earlier when a number of jobs drawn from
    /// `jobs_per_round` has been sent, so that it finds submissions on their way however fast the server is.
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

/// What the clients need to know about the servers now.
#[derive(Clone, Debug)]
struct Stage {
    round: u32,
    /// `None` for a server that is down.
    servers: Vec<Option<Client>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Load,
    Drain,
    Done,
}

/// Who is killed in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Redis,
}

impl Soak {
    /// Runs the plan against servers of `builder` and returns what the clients saw. Leases last 1 s, so that many run
    /// out while their jobs are being kept.
    ///
    /// # Panics
    /// When a server does not start again, or live jobs remain 90 s after the last round.
    pub async fn run(plan: Plan, builder: &Builder) -> (History, Figures) {
        let builder = &builder.clone().env("TIDEGATE_LEASE", "1s");
        let stage = watch::channel(Stage { round: 0, servers: Vec::new(), phase: Phase::Load }).0;
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
        let ground = self.all_rounds(builder).await;
        self.stage.send_modify(|stage| stage.phase = Phase::Drain);
        while let Some(ended) = submitters.join_next().await {
            ended.expect("no submitter panics");
        }
        self.drained(&ground.client()).await;
        self.stage.send_modify(|stage| stage.phase = Phase::Done);
        while let Some(ended) = workers.join_next().await {
            ended.expect("no worker panics");
        }
        self.finals(&ground.client()).await;
        ground.stop().await;
        let history = self.recorder.finish();
        let mut figures = Figures::count(&history);
        figures.restart_ms_max = self.restart_ms_max;
        figures.total_ms = ms(self.recorder.now());
        (history, figures)
    }

    async fn all_rounds(&mut self, builder: &Builder) -> Ground {
        let mut random = Random(self.plan.seed);
        let mut ground = Ground::start(self.plan.place, self.plan.servers, builder).await;
        let victims = self.victims(&mut random);
        for (round, victim) in (0..).zip(victims) {
            self.begin(round, &ground);
            self.until_the_kill(&mut random).await;
            match victim {
                Victim::Server => {
                    let number = usize::try_from(random.below(self.plan.servers as u64)).unwrap_or(0);
                    self.server_dies(&mut ground, number, round, builder).await;
                }
                Victim::Redis => {
                    let (shortest, longest) = self.plan.outage_ms;
                    let outage = Duration::from_millis(shortest + random.below(longest - shortest + 1));
                    ground.kill_redis(round, outage, &self.recorder).await;
                }
            }
        }
        self.begin(self.total_rounds(), &ground);
        ground
    }

    fn total_rounds(&self) -> u32 {
        self.plan.rounds + self.plan.redis_rounds
    }

    /// Who is killed in which round: the numbers of the plan, in an order that the seed decides.
    fn victims(&self, random: &mut Random) -> Vec<Victim> {
        let (mut servers, mut redis) = (u64::from(self.plan.rounds), u64::from(self.plan.redis_rounds));
        let mut victims = Vec::new();
        while servers + redis > 0 {
            if random.below(servers + redis) < servers {
                servers -= 1;
                victims.push(Victim::Server);
            } else {
                redis -= 1;
                victims.push(Victim::Redis);
            }
        }
        victims
    }

    fn begin(&self, round: u32, ground: &Ground) {
        self.sent.store(0, Ordering::Relaxed);
        self.stage.send_replace(Stage { round, servers: ground.clients(), phase: Phase::Load });
    }

    async fn until_the_kill(&self, random: &mut Random) {
        let (shortest, longest) = self.plan.round_ms;
        let round = Duration::from_millis(shortest + random.below(longest - shortest + 1));
        let enough = 1 + random.below(self.plan.jobs_per_round * 9 / 10);
        let began = Instant::now();
        while began.elapsed() < round && self.sent.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn server_dies(&mut self, ground: &mut Ground, number: usize, round: u32, builder: &Builder) {
        ground.kill_server(number, round, &self.recorder).await;
        let killed = Instant::now();
        self.stage.send_modify(|stage| stage.servers[number] = None);
        if self.plan.plant == Some(Plant::ForgetfulDisk) {
            forget(builder, round);
        }
        ground.start_server(number).await;
        self.restart_ms_max = self.restart_ms_max.max(ms(killed.elapsed()));
    }

    fn actor(&self, number: u32) -> Actor {
        Actor {
            number,
            random: Random(self.plan.seed ^ (u64::from(number) << 32)),
            recorder: self.recorder.clone(),
            stage: self.stage.subscribe(),
            sent: Arc::clone(&self.sent),
            jobs_per_round: self.plan.jobs_per_round,
            leases_outlive_servers: self.plan.place != Place::Disk,
            prefers: number as usize,
        }
    }

    /// Waits until no queue holds a live job. One look at all counts of a queue: jobs move between states meanwhile.
    async fn drained(&self, client: &Client) {
        for round in 0..=self.total_rounds() {
            let queue = queue(round);
            eventually(&format!("no live jobs are left in {queue}"), Duration::from_secs(90), || async {
                let reply = client.get(&format!("/api/queues/{queue}")).await;
                match reply.status {
                    404 => return Some(()),
                    // Redis may only just be back.
                    503 => return None,
                    _ => {}
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
                let answered = || async { Some(client.job_reply(&job).await).filter(|reply| reply.status != 503) };
                let reply = eventually("the job is shown", Duration::from_secs(60), answered).await;
                if reply.status == 404 {
                    return;
                }
                let view: crate::JobView = reply.expect(200).data();
                let result = view.result.map(|result| result.get().to_owned());
                self.recorder.record(Event::Final { job, status: view.status, result });
            })
            .await;
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
    /// Whether the servers share what they hand out.
    leases_outlive_servers: bool,
    /// The server it turns to first, modulo their number.
    prefers: usize,
}

impl Actor {
    /// The stage as soon as a server is up, with the preferred one of those that are.
    async fn up(&mut self) -> (u32, Client, Phase) {
        let any = |stage: &Stage| stage.servers.iter().any(Option::is_some);
        let stage = self.stage.wait_for(any).await.expect("the run outlives its clients");
        let servers = stage.servers.len();
        let mut in_turn = (0..servers).map(|step| &stage.servers[(self.prefers + step) % servers]);
        let client = in_turn.find_map(Clone::clone).expect("just waited for it");
        (stage.round, client, stage.phase)
    }

    /// After a failed call: turns to another server. When there is none, waits until the server is another one, or the
    /// same one is still there a moment later.
    async fn down(&mut self) {
        self.prefers += 1;
        let (round, servers) = {
            let stage = self.stage.borrow();
            (stage.round, stage.servers.len())
        };
        let pause = Duration::from_millis(if servers > 1 { 50 } else { 200 });
        let another = self.stage.wait_for(|stage| stage.round != round || stage.phase == Phase::Done);
        let _ = tokio::time::timeout(pause, another).await;
    }
}

/// Each round has a queue of its own.
fn queue(round: u32) -> String {
    format!("soak-{round}")
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

/// The planted bug: see [`Plant::ForgetfulDisk`].
fn forget(builder: &Builder, round: u32) {
    let old = builder.folder().join("after-first-kill");
    match round {
        0 => copy_folder(builder.data_folder(), &old),
        1 => {
            std::fs::remove_dir_all(builder.data_folder()).expect("the data folder can be removed");
            copy_folder(&old, builder.data_folder());
        }
        _ => {}
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
