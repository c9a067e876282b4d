//! A private Redis on loopback that keeps nothing on disk, and what it says about the work it did.

use std::time::{Duration, Instant};

use tidegate_metrics::Registry;
use tidegate_redis_ops::{Config, Redis};
use tidegate_test_redis::{Connection, Server};
use tokio::sync::oneshot;

/// Starts one. Every command above a millisecond is in its slow log.
pub async fn start() -> Server {
    let lines = ["slowlog-log-slower-than 1000", "slowlog-max-len 100000", "enable-debug-command yes"];
    lines.into_iter().fold(Server::builder(), tidegate_test_redis::Builder::config).start().await
}

/// A handle of ours to it, with connections of its own.
///
/// # Panics
/// When it cannot be reached.
pub async fn connect(server: &Server) -> Redis {
    let config = Config::parse(&server.url()).expect("a URL");
    Redis::connect(config, &Registry::new()).await.expect("a Redis")
}

/// What Redis did in a stretch of work.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Scripts run: what clients asked for.
    pub scripts: u64,
    /// Commands that scripts ran: name, calls, mean in µs.
    pub inner: Vec<(String, u64, f64)>,
    /// Mean of a script, µs.
    pub script_us: f64,
    /// The longest command of all, ms; 0 when none took one.
    pub longest_ms: f64,
    /// Commands that scripts ran, all together.
    pub inner_calls: u64,
    /// Share of the time in which its main thread computed, 0 to 1.
    pub busy: f64,
}

/// What clients send themselves, beside scripts; all other commands ran inside of scripts.
const OUTER: [&str; 20] = [
    "evalsha",
    "eval",
    "script",
    "info",
    "config",
    "slowlog",
    "auth",
    "hello",
    "client",
    "ping",
    "subscribe",
    "select",
    "cluster",
    "acl",
    "command",
    "flushall",
    "unsubscribe",
    "quit",
    "latency",
    "debug",
];

/// Begins a stretch of work.
#[derive(Debug)]
pub struct Watch<'a> {
    server: &'a Server,
    cpu: f64,
    began: Instant,
}

impl<'a> Watch<'a> {
    /// Forgets what was before.
    pub async fn begin(server: &'a Server) -> Self {
        server.cli(&["CONFIG", "RESETSTAT"]).await;
        server.cli(&["SLOWLOG", "RESET"]).await;
        Self { server, cpu: cpu(server).await, began: Instant::now() }
    }

    /// What was done since.
    pub async fn end(self) -> Work {
        let busy = (cpu(self.server).await - self.cpu) / self.began.elapsed().as_secs_f64();
        let mut work = Work { busy, longest_ms: longest_ms(self.server).await, ..Work::default() };
        let mut script_us = 0.0;
        for line in self.server.cli(&["INFO", "commandstats"]).await.lines() {
            let Some((name, stats)) = line.strip_prefix("cmdstat_").and_then(|rest| rest.split_once(':')) else {
                continue;
            };
            let field = |name| stats.split(',').find_map(|field| number(field.strip_prefix(name)?)).unwrap_or_default();
            let name = name.split('|').next().unwrap_or(name);
            if name == "evalsha" || name == "eval" {
                work.scripts += field("calls=") as u64;
                script_us += field("usec=");
            } else if !OUTER.contains(&name) {
                work.inner.push((name.to_owned(), field("calls=") as u64, field("usec_per_call=")));
            }
        }
        work.inner_calls = work.inner.iter().map(|(_, calls, _)| calls).sum();
        work.script_us = script_us / work.scripts.max(1) as f64;
        work
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// Seconds its main thread has computed.
async fn cpu(server: &Server) -> f64 {
    let info = server.cli(&["INFO", "cpu"]).await;
    let field = |name| info.lines().find_map(|line| number(line.strip_prefix(name)?)).unwrap_or_default();
    field("used_cpu_user_main_thread:") + field("used_cpu_sys_main_thread:")
}

async fn longest_ms(server: &Server) -> f64 {
    let slow = server.command(&["SLOWLOG", "GET", "-1"]).await;
    let is_ours = |entry: &&tidegate_test_redis::Reply| {
        let name = entry.items().get(3).and_then(|words| words.items().first()).map(ToString::to_string);
        name.is_some_and(|name| name.starts_with("EVAL"))
    };
    let micros = slow
        .items()
        .iter()
        .filter(is_ours)
        .filter_map(|entry| entry.items().get(2))
        .map(tidegate_test_redis::Reply::int);
    micros.max().unwrap_or(0) as f64 / 1000.0
}

/// Asks `PING` every millisecond on a thread and a connection of its own.
#[derive(Debug)]
pub struct Pinger {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Pinger {
    /// Starts asking.
    ///
    /// # Panics
    /// When Redis cannot be reached.
    #[must_use]
    pub fn start(server: &Server) -> Self {
        let address = server.addr();
        let (stop, mut stopped) = oneshot::channel();
        let asking = async move {
            let mut connection = Connection::tcp(address).await.expect("a connection");
            let (mut ticks, mut worst) = (tokio::time::interval(Duration::from_millis(1)), Duration::ZERO);
            while stopped.try_recv().is_err() {
                ticks.tick().await;
                let asked = Instant::now();
                connection.command(&["PING"]).await.expect("PONG");
                worst = worst.max(asked.elapsed());
            }
            worst
        };
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(asking)
        });
        Self { stop, thread }
    }

    /// The longest wait, in milliseconds.
    ///
    /// # Panics
    /// When Redis went away.
    #[must_use]
    pub fn worst_ms(self) -> f64 {
        self.stop.send(()).expect("it asks");
        self.thread.join().expect("it has asked").as_secs_f64() * 1e3
    }
}
