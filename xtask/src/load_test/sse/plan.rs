//! What to do and how much of it, from the words of the command line.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::arguments::Arguments;
use crate::load_test::redis::Persistence;

/// The kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    Idle,
    Fanout,
    Churn,
    Stalled,
    Many,
}

/// What is killed while listeners come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Redis,
    Server,
    /// Both at once; Redis is back first.
    Both,
}

/// All flags, with the defaults of the scenario.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) url: Option<String>,
    pub(super) token: Option<String>,
    /// A Redis of our own beneath the server; `None`: its embedded store.
    pub(super) redis: Option<Persistence>,
    pub(super) listeners: usize,
    /// Events per second.
    pub(super) rate: f64,
    pub(super) time: Duration,
    /// Events per request; above 1 they go as fast as listeners take them.
    pub(super) burst: usize,
    /// Size of an event's data.
    pub(super) bytes: usize,
    pub(super) threads: usize,
    pub(super) sources: usize,
    pub(super) peers: bool,
    pub(super) kill: Option<Victim>,
    pub(super) every: Duration,
    pub(super) truncate: bool,
    /// Policies for listeners that stall.
    pub(super) slow: Vec<String>,
    /// How many streams, one run after the other.
    pub(super) streams: Vec<usize>,
    /// The program to start instead of the one built here.
    pub(super) binary: Option<String>,
    /// Flags for the server that is started.
    pub(super) flags: Vec<String>,
}

impl Plan {
    pub(super) fn read(words: Vec<String>, flags: Vec<String>) -> Result<Self> {
        let mut given = Arguments::new(words);
        let kill = given.value::<String>("--kill")?.map(|victim| victim_of(&victim)).transpose()?;
        let truncate = given.flag("--truncate");
        let on_redis = given.flag("--redis");
        let embedded = given.flag("--embedded");
        let persistence = given.value("--persistence")?;
        let seconds = |given: &mut Arguments, name| -> Result<Option<Duration>> {
            let seconds: Option<f64> = given.value(name)?;
            seconds.map(|seconds| Ok(Duration::try_from_secs_f64(seconds)?)).transpose()
        };
        let every = seconds(&mut given, "--every")?;
        let time = seconds(&mut given, "--seconds")?;
        let listeners = given.value("--listeners")?;
        let rate = given.value("--rate")?;
        let list = |text: Option<String>, default: &str| -> Vec<String> {
            text.as_deref().unwrap_or(default).split(',').map(str::to_owned).collect()
        };
        let slow = list(given.value("--slow")?, "close,skip,latest");
        let streams = list(given.value("--streams")?, "100,1000,10000");
        let mut plan = Self {
            scenario: Scenario::Idle,
            url: given.value("--url")?,
            token: given.value::<String>("--token-file")?.map(|path| crate::load_test::token(&path)).transpose()?,
            redis: None,
            listeners: 0,
            rate: 0.0,
            time: Duration::ZERO,
            burst: given.value("--burst")?.unwrap_or(1),
            bytes: given.value("--bytes")?.unwrap_or(0),
            threads: given.value("--threads")?.unwrap_or(1),
            sources: given.value("--sources")?.unwrap_or(32),
            peers: given.flag("--peers"),
            kill,
            every: every.unwrap_or(Duration::from_secs(10)),
            truncate,
            slow,
            streams: streams.iter().map(|number| number.parse()).collect::<Result<_, _>>()?,
            binary: given.value("--binary")?,
            flags,
        };
        plan.scenario = match given.names()?.as_slice() {
            [name] => scenario_of(name)?,
            names => bail!("which of idle, fanout, churn, stalled, many? {names:?} is not one\n\n{}", super::usage()),
        };
        plan.fill_in(listeners, rate, time);
        let redis = on_redis || (plan.is_redis_by_default() && !embedded);
        plan.redis = redis.then_some(persistence.unwrap_or(plan.usual_persistence()));
        plan.check()?;
        Ok(plan)
    }

    fn fill_in(&mut self, listeners: Option<usize>, rate: Option<f64>, time: Option<Duration>) {
        let (usual_listeners, usual_rate, usual_seconds) = match self.scenario {
            Scenario::Idle => (10_000, 20.0, 10),
            Scenario::Fanout => (1000, 100.0, 10),
            Scenario::Churn => (2000, 50.0, 120),
            Scenario::Stalled => (1000, 50.0, 60),
            Scenario::Many => (0, 200.0, 10),
        };
        self.listeners = listeners.unwrap_or(usual_listeners);
        self.rate = rate.unwrap_or(usual_rate);
        self.time = time.unwrap_or(Duration::from_secs(usual_seconds));
        if self.scenario == Scenario::Stalled && self.bytes == 0 {
            // Enough for a minute to fill every buffer on the way.
            self.bytes = 1000;
        }
    }

    fn is_redis_by_default(&self) -> bool {
        matches!(self.scenario, Scenario::Idle | Scenario::Many) || self.kills_redis()
    }

    fn kills_redis(&self) -> bool {
        matches!(self.kill, Some(Victim::Redis | Victim::Both))
    }

    /// Measuring goes without a disk in the way; what is killed has to keep its word.
    fn usual_persistence(&self) -> Persistence {
        match (self.scenario, self.truncate) {
            (Scenario::Churn, true) => Persistence::EverySecond,
            (Scenario::Churn, false) => Persistence::Always,
            _ => Persistence::None,
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.rate.is_finite() && self.rate > 0.0, "--rate has to be above 0");
        ensure!(!self.time.is_zero() && !self.every.is_zero(), "--seconds and --every have to be above 0");
        ensure!(self.listeners > 0 || self.scenario == Scenario::Many, "--listeners has to be above 0");
        ensure!((1..=1000).contains(&self.burst), "--burst is 1 to 1000");
        ensure!((1..=64).contains(&self.threads), "--threads is 1 to 64");
        ensure!((1..=200).contains(&self.sources), "--sources is 1 to 200");
        ensure!(self.kill.is_none() || self.scenario == Scenario::Churn, "--kill goes with churn");
        ensure!(self.kill.is_none() || self.url.is_none(), "--kill wants a server of our own, not --url");
        ensure!(!self.peers || self.scenario == Scenario::Fanout, "--peers goes with fanout");
        let is_redis_killed = self.kills_redis();
        ensure!(!self.truncate || is_redis_killed, "--truncate goes with --kill redis or both");
        ensure!(!is_redis_killed || self.redis.is_some(), "to kill Redis does not go with --embedded");
        ensure!(
            !is_redis_killed || self.redis != Some(Persistence::None),
            "a killed Redis without persistence has lost everything; use --persistence everysec --truncate"
        );
        for policy in &self.slow {
            ensure!(["close", "skip", "latest"].contains(&policy.as_str()), "--slow is close, skip or latest");
        }
        Ok(())
    }
}

fn victim_of(text: &str) -> Result<Victim> {
    match text {
        "redis" => Ok(Victim::Redis),
        "server" => Ok(Victim::Server),
        "both" => Ok(Victim::Both),
        _ => bail!("--kill {text}: it is redis, server or both"),
    }
}

fn scenario_of(text: &str) -> Result<Scenario> {
    match text {
        "idle" => Ok(Scenario::Idle),
        "fanout" => Ok(Scenario::Fanout),
        "churn" => Ok(Scenario::Churn),
        "stalled" => Ok(Scenario::Stalled),
        "many" => Ok(Scenario::Many),
        _ => bail!("{text} is none of idle, fanout, churn, stalled, many"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan> {
        Plan::read(line.split_whitespace().map(str::to_owned).collect(), Vec::new())
    }

    #[test]
    fn each_scenario_runs_on_what_it_is_about() {
        assert_eq!(plan("idle").unwrap().redis, Some(Persistence::None));
        assert_eq!(plan("fanout").unwrap().redis, None);
        assert_eq!(plan("fanout --redis").unwrap().redis, Some(Persistence::None));
        assert_eq!(plan("many --embedded").unwrap().redis, None);
        assert_eq!(plan("churn --kill redis").unwrap().redis, Some(Persistence::Always));
        assert_eq!(plan("churn --kill redis --truncate").unwrap().redis, Some(Persistence::EverySecond));
        assert_eq!(plan("churn --kill server").unwrap().redis, None);
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        for line in [
            "",
            "idle fanout",
            "sleep",
            "fanout --kill redis",
            "churn --kill disk",
            "churn --truncate",
            "churn --kill redis --embedded",
            "churn --kill redis --persistence none",
            "churn --kill server --url http://127.0.0.1:1",
            "stalled --slow sometimes",
            "fanout --burst 0",
            "fanout --rate 0",
            "idle --peers",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
