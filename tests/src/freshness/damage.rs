//! Breaks things, by three hands at once: the network of each process, Redis, the processes. Each hand mends what it
//! broke before it goes on, and before the end.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tidegate_test_redis::{Cluster, Proxy, Reply, Server, Toward};
use tokio::time::{Instant, sleep};

use super::faults::{Fault, Hand};
use super::ground::Ground;
use super::history::{Change, History, What};
use super::node::Node;
use super::plan::Plan;
use super::random::Random;

/// Where the values of the caches lie.
const VALUES: &str = "tidegate:cache:default:v:";
/// Writes `ARGV[2]` keys from `ARGV[3]` on, and deletes them again.
const MASS: &str = "for i = ARGV[3], ARGV[3] + ARGV[2] do redis.call('SET', ARGV[1] .. '{mass:' .. i .. '}', 'x', 'PX', 2000) end \
                    for i = ARGV[3], ARGV[3] + ARGV[2] do redis.call('UNLINK', ARGV[1] .. '{mass:' .. i .. '}') end";

/// What the hands share.
pub(super) struct Stage<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ground: &'a Ground,
    pub(super) until: Instant,
    pub(super) told: Mutex<History>,
}

impl Stage<'_> {
    /// Until the time is over. Processes that died are replaced in `nodes`, and listed behind the others.
    pub(super) async fn break_things(&self, nodes: &mut Vec<Node>) {
        let broken_nodes = self.break_nodes(nodes, self.plan.random(4));
        let over = tokio::time::sleep_until(self.until);
        match self.ground {
            Ground::One { server, proxies } => {
                let proxies = proxies.iter().enumerate();
                let (even, odd): (Vec<_>, Vec<_>) = proxies.partition(|(number, _)| number % 2 == 0);
                tokio::join!(
                    self.break_network(&even, self.plan.random(1)),
                    self.break_network(&odd, self.plan.random(2)),
                    self.break_redis(server, self.plan.random(3)),
                    broken_nodes,
                    over,
                );
            }
            Ground::Cluster(cluster) => {
                tokio::join!(self.break_cluster(cluster, self.plan.random(3)), broken_nodes, over);
            }
        }
    }

    fn faults_of(&self, hand: Hand) -> Vec<Fault> {
        self.plan.faults.iter().copied().filter(|fault| fault.hand() == hand).collect()
    }

    /// A pause, and whether there is time for more.
    async fn goes_on(&self, random: &mut Random) -> bool {
        sleep(Duration::from_millis(random.within(10, 250))).await;
        Instant::now() < self.until
    }

    fn tells(&self, fault: Fault, what: &str) {
        let mut told = self.told.lock().expect("nobody panicked");
        told.faults.push((now(), format!("{fault:?} {what}")));
        *told.fault_counts.entry(format!("{fault:?}")).or_default() += 1;
    }

    fn mended(&self, fault: Fault, what: &str) {
        self.told.lock().expect("nobody panicked").faults.push((now(), format!("{fault:?} {what} is over")));
    }

    fn changed(&self, what: What, start: u64) {
        let change = Change { node: None, what, start, end: now() };
        self.told.lock().expect("nobody panicked").changes.push(change);
    }

    async fn break_network(&self, proxies: &[(usize, &Proxy)], mut random: Random) {
        let faults = self.faults_of(Hand::Network);
        while self.goes_on(&mut random).await && !faults.is_empty() {
            let (number, proxy) = random.of(proxies);
            let (fault, what) = (random.of(&faults), format!("of process {number}"));
            self.tells(fault, &what);
            if break_line(proxy, fault, &mut random) {
                sleep(self.span(&mut random)).await;
                proxy.heal();
                self.mended(fault, &what);
            }
        }
    }

    /// From a moment to thrice as long as a value may be stale.
    fn span(&self, random: &mut Random) -> Duration {
        let staleness = u64::try_from(self.plan.heard_within.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random.within(10, 3 * staleness))
    }

    async fn break_cluster(&self, cluster: &Cluster, mut random: Random) {
        let faults = self.faults_of(Hand::Redis);
        while self.goes_on(&mut random).await && !faults.is_empty() {
            let (fault, key) = (random.of(&faults), self.key(&mut random));
            self.tells(fault, &key);
            let name = value_name(&key);
            match fault {
                Fault::Flush => {
                    let start = now();
                    cluster.flush_all().await;
                    self.changed(What::All, start);
                }
                Fault::ForeignDelete => self.delete(cluster.primary_of(&name).await, key.clone()).await,
                Fault::KillClients => drop(cluster.primary_of(&name).await.client_kill_all().await),
                Fault::FreezeRedis => {
                    let primary = cluster.primary_of(&name).await;
                    primary.pause();
                    // Now and then long enough for its replica to take over.
                    sleep(Duration::from_millis(random.of(&[100, 600, 4000]))).await;
                    primary.resume();
                    cluster.wait_until_healthy().await;
                }
                _ => {
                    let dead = cluster.kill_primary_of(&name).await;
                    cluster.wait_for_failover(&name).await;
                    dead.restart().await;
                    cluster.wait_until_healthy().await;
                }
            }
            self.mended(fault, &key);
        }
    }

    /// One of the keys that the processes use.
    fn key(&self, random: &mut Random) -> String {
        let number = random.below(self.plan.keys);
        format!("{}{number}", ["ab:", "a", "b:"][usize::try_from(number % 3).unwrap_or(0)])
    }

    async fn break_redis(&self, server: &Server, mut random: Random) {
        let faults = self.faults_of(Hand::Redis);
        while self.goes_on(&mut random).await && !faults.is_empty() {
            let fault = random.of(&faults);
            self.tells(fault, "");
            match fault {
                Fault::Restart => self.restart(server, false, &mut random).await,
                Fault::RestartTailLost => self.restart(server, true, &mut random).await,
                Fault::Flush => {
                    let start = now();
                    server.cli(&["FLUSHALL"]).await;
                    self.changed(What::All, start);
                }
                Fault::ForeignDelete => self.delete(server, self.key(&mut random)).await,
                Fault::KillClients => drop(server.client_kill_all().await),
                Fault::PauseClients => {
                    let span = self.span(&mut random).as_millis().to_string();
                    server.cli(&["CLIENT", "PAUSE", &span, random.of(&["ALL", "WRITE"])]).await;
                }
                Fault::FreezeRedis => {
                    server.pause();
                    sleep(self.span(&mut random)).await;
                    server.resume();
                }
                Fault::MassInvalidation => invalidate_masses(server, &mut random).await,
                _ => self.evict(server, &mut random).await,
            }
            self.mended(fault, "");
        }
    }

    async fn restart(&self, server: &Server, loses_tail: bool, random: &mut Random) {
        server.kill();
        if loses_tail {
            lose_tail(server, random);
        }
        sleep(Duration::from_millis(random.of(&[0, 0, 50, 400]))).await;
        server.restart().await;
    }

    async fn delete(&self, server: &Server, key: String) {
        let start = now();
        let reply = server.command(&["DEL", &value_name(&key)]).await;
        // Nothing there, nothing changed.
        if reply == Reply::Int(1) {
            self.changed(What::Key(key), start);
        }
    }

    async fn evict(&self, server: &Server, random: &mut Random) {
        let set = async |name: &str, value: &str| drop(server.cli(&["CONFIG", "SET", name, value]).await);
        set("maxmemory-policy", "allkeys-lru").await;
        // Less than an empty one takes: everything must go, and writes are refused.
        let most = random.of(&[1, server.used_memory().await * 99 / 100]);
        set("maxmemory", &most.to_string()).await;
        sleep(self.span(random) / 3).await;
        set("maxmemory", "0").await;
    }

    async fn break_nodes(&self, nodes: &mut Vec<Node>, mut random: Random) {
        let faults = self.faults_of(Hand::Nodes);
        // A process knows much only when it has lived for a while.
        while self.goes_on(&mut random).await && self.goes_on(&mut random).await && !faults.is_empty() {
            let seat = usize::try_from(random.below(self.plan.nodes as u64)).unwrap_or(0);
            let (fault, what) = (random.of(&faults), format!("{}", nodes[seat].number));
            self.tells(fault, &what);
            if fault == Fault::FreezeNode {
                nodes[seat].freeze();
                sleep(self.span(&mut random)).await;
                nodes[seat].thaw();
            } else {
                nodes[seat].kill();
                // A number of its own, and the part of the one it replaces.
                let number = seat + self.plan.nodes * (1 + nodes.len() - self.plan.nodes);
                if let Some(mut fresh) = Node::try_start(self.plan, number, &self.ground.url(seat)).await {
                    fresh.begin().await;
                    let dead = std::mem::replace(&mut nodes[seat], fresh);
                    nodes.push(dead);
                }
            }
            self.mended(fault, &what);
        }
    }
}

/// Where the value of a key lies.
fn value_name(key: &str) -> String {
    format!("{VALUES}{{{key}}}")
}

async fn invalidate_masses(server: &Server, random: &mut Random) {
    let (calls, keys) = random.of(&[(1, 20_000), (50, 100), (400, 2)]);
    let mut connection = server.connect().await.expect("redis is here");
    for call in 0..calls {
        let (many, from) = (keys.to_string(), (call * keys).to_string());
        connection.command(&["EVAL", MASS, "0", VALUES, &many, &from]).await.expect("redis answers");
    }
}

/// Cuts the end off the append-only file, up to all of it.
fn lose_tail(server: &Server, random: &mut Random) {
    let Some(log) = append_only_file(server) else { return };
    let file = File::options().write(true).open(log).expect("the append-only file can be opened");
    let length = file.metadata().expect("it has a length").len();
    let lost = random.of(&[length / 10, length / 3, length.min(2000), length]);
    file.set_len(length - random.below(lost + 1)).expect("it can be cut");
}

/// Breaks a line; whether that lasts until it is healed.
fn break_line(proxy: &Proxy, fault: Fault, random: &mut Random) -> bool {
    use tidegate_test_redis::Fault as Line;
    const BOTH: &[Toward] = &[Toward::Server, Toward::Client];
    let ways = random.of(&[&BOTH[..1], &BOTH[1..], BOTH]);
    let each = |fault: Line| ways.iter().for_each(|way| proxy.set(*way, fault));
    match fault {
        Fault::Cut => proxy.kill_all(),
        Fault::Reset => proxy.reset_all(),
        Fault::CutAtByte => proxy.cut_once(ways[0], random.below(2000)),
        Fault::Delay => each(Line::Delay(Duration::from_millis(random.within(2, 150)))),
        Fault::Blackhole => each(Line::Blackhole),
        Fault::Stall => each(Line::Stall),
        Fault::HalfClose => each(Line::HalfClose),
        Fault::Throttle => each(Line::BytesPerSecond(random.of(&[500, 5000, 50_000]))),
        _ => {
            proxy.refuse();
            proxy.kill_all();
        }
    }
    !matches!(fault, Fault::Cut | Fault::Reset | Fault::CutAtByte)
}

/// The part of the append-only file that grows.
fn append_only_file(server: &Server) -> Option<PathBuf> {
    let folder = std::fs::read_dir(server.folder().join("appendonlydir")).ok()?;
    let mut files: Vec<PathBuf> = folder.filter_map(|file| Some(file.ok()?.path())).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".incr.aof"));
    files.sort();
    files.pop()
}

/// Nanoseconds of the clock that all processes of the machine share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
