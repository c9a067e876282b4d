//! What a seed stands for.

use std::time::Duration;

use tidegate_test_redis::{Builder, Fsync, Persistence, Server};

use super::faults::Fault;
use super::random::Random;

/// Bugs that can be planted in the cache, by the names it gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A fill is kept even if its key was invalidated meanwhile.
    NoFillGuard,
    /// A lost link does not flush memory.
    LostLinkIgnored,
    /// Silence of the link is taken for health.
    SilenceTrusted,
    /// `FLUSHALL` is not heard.
    FlushIgnored,
    /// A restarted Redis is taken for the one it was.
    RestartIgnored,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NoFillGuard, Self::LostLinkIgnored, Self::SilenceTrusted, Self::FlushIgnored, Self::RestartIgnored];
}

/// What the caches share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Redis, each process behind a network of its own.
    One,
    /// A cluster of three primaries and their replicas, which take over, and no network to be broken.
    Cluster,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// What they share.
    pub place: Place,
    /// Processes.
    pub nodes: usize,
    /// How long things break.
    pub lasts: Duration,
    /// H of the caches: shorter than in production, so that a run is long beside it.
    pub staleness: Duration,
    /// How soon others must have heard of a change: H, or less where nothing breaks that would keep them from it.
    pub heard_within: Duration,
    /// The bug, if one is planted.
    pub planted: Option<Planted>,
    /// What may break.
    pub faults: Vec<Fault>,
    pub(super) keys: u64,
    pub(super) persistence: Persistence,
    settings: Vec<&'static str>,
    /// Of a thousand calls of each process, so many are changes of keys, and so many wider ones.
    changes: Vec<(u64, u64)>,
    pause_us: u64,
    slow_loads: u64,
    is_calm: bool,
    prefixes_max: u64,
    entries_max: u64,
}

impl Plan {
    /// Everything may break.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let random = &mut random;
        let nodes = 4;
        let persistence = random.of(&[
            Persistence::None,
            Persistence::Aof(Fsync::No),
            Persistence::Aof(Fsync::EverySecond),
            Persistence::Aof(Fsync::No),
        ]);
        let staleness = Duration::from_millis(random.of(&[300, 300, 400]));
        Self {
            seed,
            place: Place::One,
            nodes,
            lasts: Duration::from_millis(1800),
            staleness,
            heard_within: staleness,
            planted: None,
            faults: some_of(&Fault::ALL, random),
            keys: random.of(&[6, 24, 96]),
            persistence,
            settings: settings(random),
            changes: (0..nodes).map(|node| changes(node, random)).collect(),
            pause_us: random.of(&[300, 1000, 3000]),
            slow_loads: random.of(&[0, 10, 40, 300]),
            is_calm: random.below(6) == 0,
            prefixes_max: random.of(&[1, 2, 256]),
            entries_max: random.of(&[8, 1000, 1000]),
        }
    }

    /// On a cluster, whose primaries die and stand still until their replicas take over.
    #[must_use]
    pub fn on_cluster(seed: u64) -> Self {
        let plan = Self::of(seed);
        let all = [
            Fault::Restart,
            Fault::Restart,
            Fault::FreezeRedis,
            Fault::Flush,
            Fault::ForeignDelete,
            Fault::KillClients,
            Fault::FreezeNode,
            Fault::KillNode,
        ];
        let faults = some_of(&all, &mut plan.random(5));
        Self { place: Place::Cluster, lasts: Duration::from_secs(6), persistence: Persistence::None, faults, ..plan }
    }

    /// The bug is planted, and what breaks and who does how much is what it is about.
    #[must_use]
    pub fn planted(planted: Planted, seed: u64) -> Self {
        let calm = Self { planted: Some(planted), ..Self::calm(seed) };
        match planted {
            // It needs an answer and a change at the same moment.
            Planted::NoFillGuard => {
                Self { keys: 2, changes: vec![(200, 20); 4], pause_us: 200, is_calm: false, ..calm }
            }
            Planted::LostLinkIgnored => {
                Self { faults: vec![Fault::Cut, Fault::Reset, Fault::Refuse, Fault::KillClients], ..calm }
            }
            Planted::SilenceTrusted => Self { faults: vec![Fault::Stall, Fault::Blackhole], ..calm },
            // Whatever is not heard is found out when the link is verified, within H: it can only be seen to be late.
            Planted::FlushIgnored => Self {
                faults: vec![Fault::Flush],
                staleness: Duration::from_secs(4),
                heard_within: Duration::from_millis(500),
                ..calm
            },
            Planted::RestartIgnored => Self {
                faults: vec![Fault::RestartTailLost, Fault::Refuse],
                persistence: Persistence::Aof(Fsync::No),
                ..calm
            },
        }
    }

    /// Nothing breaks, and memory has nearly everything for as long as it likes: only the first process changes something.
    fn calm(seed: u64) -> Self {
        Self {
            faults: Vec::new(),
            settings: Vec::new(),
            keys: 6,
            changes: vec![(10, 1), (0, 0), (0, 0), (0, 0)],
            pause_us: 1000,
            is_calm: true,
            prefixes_max: 256,
            entries_max: 1000,
            ..Self::of(seed)
        }
    }

    pub(super) fn random(&self, part: u64) -> Random {
        Random(self.seed ^ (part << 56))
    }

    pub(super) fn server(&self) -> Builder {
        self.settings
            .iter()
            .fold(Server::builder().persistence(self.persistence), |builder, line| builder.config(*line))
    }

    /// What a process is told. Those that take the place of a dead one are as it was.
    pub(super) fn arguments(&self, number: usize, url: &str) -> Vec<String> {
        let (changes, wide) = self.changes[number % self.nodes];
        let planted = self.planted.map_or_else(|| "Nothing".to_owned(), |planted| format!("{planted:?}"));
        vec![
            format!("url={url}"),
            format!("node={number}"),
            format!("seed={}", self.seed),
            format!("staleness_ms={}", self.staleness.as_millis()),
            format!("planted={planted}"),
            "actors=5".to_owned(),
            format!("keys={}", self.keys),
            format!("changes={changes}"),
            format!("wide={wide}"),
            format!("pause_us={}", self.pause_us),
            format!("slow_loads={}", self.slow_loads),
            format!("calm={}", self.is_calm),
            format!("prefixes_max={}", self.prefixes_max),
            format!("entries_max={}", self.entries_max),
        ]
    }
}

/// A third of all runs meet everything, the others only a few things, but those often.
fn some_of(all: &[Fault], random: &mut Random) -> Vec<Fault> {
    if random.below(3) == 0 {
        return all.to_vec();
    }
    (0..random.within(0, 6)).map(|_| random.of(all)).collect()
}

fn settings(random: &mut Random) -> Vec<&'static str> {
    let lines = [
        "tracking-table-max-keys 1",
        "client-output-buffer-limit normal 131072 0 0",
        "hz 100",
        "lazyfree-lazy-user-del yes",
    ];
    lines.into_iter().filter(|_| random.below(3) == 0).collect()
}

/// The first process changes something in every run; others may only read: what they hold is theirs for long.
fn changes(node: usize, random: &mut Random) -> (u64, u64) {
    let rates = [(0, 0), (0, 0), (4, 1), (30, 6), (150, 20)];
    let least = if node == 0 { 2 } else { 0 };
    random.of(&rates[least..])
}
