//! Breaks things, by three hands at once: the network of each process, Redis, the processes. Each hand mends what it
//! broke before it goes on, and before the end.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tidegate_test_redis::{Proxy, Reply, Server, Toward};
use tokio::time::{Instant, sleep};

use super::faults::{Fault, Hand};
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
    pub(super) server: &'a Server,
    pub(super) proxies: &'a [Proxy],
    pub(super) until: Instant,
    pub(super) told: Mutex<History>,
}

impl Stage<'_> {
    /// Until the time is over. Processes that died are replaced in `nodes`, and listed behind the others.
    pub(super) async fn break_things(&self, nodes: &mut Vec<Node>) {
        let (even, odd): (Vec<_>, Vec<_>) = self.proxies.iter().enumerate().partition(|(number, _)| number % 2 == 0);
        tokio::join!(
            self.break_network(&even, self.plan.random(1)),
            self.break_network(&odd, self.plan.random(2)),
            self.break_redis(self.plan.random(3)),
            self.break_nodes(nodes, self.plan.random(4)),
            tokio::time::sleep_until(self.until),
        );
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

    async fn break_redis(&self, mut random: Random) {
        let faults = self.faults_of(Hand::Redis);
        while self.goes_on(&mut random).await && !faults.is_empty() {
            let fault = random.of(&faults);
            self.tells(fault, "");
            match fault {
                Fault::Restart => self.restart(false, &mut random).await,
                Fault::RestartTailLost => self.restart(true, &mut random).await,
                Fault::Flush => {
                    let start = now();
                    self.server.cli(&["FLUSHALL"]).await;
                    self.changed(What::All, start);
                }
                Fault::ForeignDelete => self.delete(&mut random).await,
                Fault::KillClients => drop(self.server.client_kill_all().await),
                Fault::PauseClients => {
                    let span = self.span(&mut random).as_millis().to_string();
                    self.server.cli(&["CLIENT", "PAUSE", &span, random.of(&["ALL", "WRITE"])]).await;
                }
                Fault::FreezeRedis => {
                    self.server.pause();
                    sleep(self.span(&mut random)).await;
                    self.server.resume();
                }
                Fault::MassInvalidation => self.invalidate_masses(&mut random).await,
                _ => self.evict(&mut random).await,
            }
            self.mended(fault, "");
        }
    }

    async fn restart(&self, loses_tail: bool, random: &mut Random) {
        self.server.kill();
        if loses_tail {
            self.lose_tail(random);
        }
        sleep(Duration::from_millis(random.of(&[0, 0, 50, 400]))).await;
        self.server.restart().await;
    }

    /// Cuts the end off the append-only file, up to all of it.
    fn lose_tail(&self, random: &mut Random) {
        let Some(log) = append_only_file(self.server) else { return };
        let file = File::options().write(true).open(log).expect("the append-only file can be opened");
        let length = file.metadata().expect("it has a length").len();
        let lost = random.of(&[length / 10, length / 3, length.min(2000), length]);
        file.set_len(length - random.below(lost + 1)).expect("it can be cut");
    }

    async fn delete(&self, random: &mut Random) {
        let number = random.below(self.plan.keys);
        let key = format!("{}{number}", ["ab:", "a", "b:"][usize::try_from(number % 3).unwrap_or(0)]);
        let start = now();
        let reply = self.server.command(&["DEL", &format!("{VALUES}{{{key}}}")]).await;
        // Nothing there, nothing changed.
        if reply == Reply::Int(1) {
            self.changed(What::Key(key), start);
        }
    }

    async fn invalidate_masses(&self, random: &mut Random) {
        let (calls, keys) = random.of(&[(1, 20_000), (50, 100), (400, 2)]);
        let mut connection = self.server.connect().await.expect("redis is here");
        for call in 0..calls {
            let (many, from) = (keys.to_string(), (call * keys).to_string());
            connection.command(&["EVAL", MASS, "0", VALUES, &many, &from]).await.expect("redis answers");
        }
    }

    async fn evict(&self, random: &mut Random) {
        let set = async |name: &str, value: &str| drop(self.server.cli(&["CONFIG", "SET", name, value]).await);
        set("maxmemory-policy", "allkeys-lru").await;
        // Less than an empty one takes: everything must go, and writes are refused.
        let most = random.of(&[1, self.server.used_memory().await * 99 / 100]);
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
                let url = self.server.url_through(&self.proxies[seat]);
                if let Some(mut fresh) = Node::try_start(self.plan, number, &url).await {
                    fresh.begin().await;
                    let dead = std::mem::replace(&mut nodes[seat], fresh);
                    nodes.push(dead);
                }
            }
            self.mended(fault, &what);
        }
    }
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
