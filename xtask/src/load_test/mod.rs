//! `cargo xtask load-test`: open-loop load over HTTP. Requests leave at a fixed rate, whatever the server does, and
//! latencies count from the moment a request *should* have left: a server that stalls is charged for everybody who
//! would have come meanwhile (no coordinated omission).

mod client;
#[cfg(test)]
mod fake;
mod folder;
mod jobs;
mod pace;
mod redis;
mod report;
mod resp;
mod server;
mod sse;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::client::Client;
use self::server::Server;
use crate::arguments::Arguments;

/// What to do and how much of it.
#[derive(Clone, Debug)]
struct Plan {
    /// `host:port` of the server.
    address: String,
    /// Bearer token, where the server wants one.
    token: Option<String>,
    /// Jobs per second.
    rate: f64,
    duration: Duration,
    /// Connections that submit. A request that finds all of them busy waits, and its wait is counted.
    connections: usize,
    /// Workers, each with a connection of its own.
    workers: usize,
    /// Jobs a worker takes at once.
    batch: usize,
}

pub(crate) fn usage() -> String {
    "cargo xtask load-test jobs [--url http://127.0.0.1:7700] [--rate 500] [--seconds 10] [--connections 32]\n\
     \x20                         [--workers 4] [--batch 16] [--token-file FILE]\n\n\
     Submits no-op jobs at a fixed rate and lets workers claim and complete them, all over HTTP. Prints percentiles of\n\
     submitting and of the way from submission to a worker, throughput and errors by status. Fails when a job that was\n\
     acknowledged is not completed. Without --url it builds the release server and starts one of its own: free port,\n\
     fresh data folder under target/load-test, removed at the end.\n\n"
        .to_owned()
        + &sse::usage()
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let (mut words, passed_on) = arguments.rest();
    if let Some(at) = words.iter().position(|word| word == "sse") {
        words.remove(at);
        return sse::run(words, passed_on);
    }
    ensure!(passed_on.is_empty(), "load-test jobs takes nothing after --");
    load_jobs(Arguments::new(words))
}

fn load_jobs(mut arguments: Arguments) -> Result<ExitCode> {
    let url: Option<String> = arguments.value("--url")?;
    let token_file: Option<String> = arguments.value("--token-file")?;
    let mut plan = Plan {
        address: String::new(),
        token: token_file.map(|path| token(&path)).transpose()?,
        rate: arguments.value("--rate")?.unwrap_or(500.0),
        duration: Duration::from_secs(arguments.value("--seconds")?.unwrap_or(10)),
        connections: arguments.value("--connections")?.unwrap_or(32),
        workers: arguments.value("--workers")?.unwrap_or(4),
        batch: arguments.value("--batch")?.unwrap_or(16),
    };
    let names = arguments.names()?;
    if names != ["jobs"] {
        bail!("what to load? there are: jobs, sse\n\n{}", usage());
    }
    plan.check()?;
    // Held to the end: dropping it stops the server.
    let own = if url.is_none() { Some(Server::start(None, &[])?) } else { None };
    plan.address = match (&url, &own) {
        (Some(url), _) => address_of(url)?,
        (None, Some(server)) => server.address.clone(),
        (None, None) => bail!("no server"),
    };
    expect_ready(&plan.address, plan.token.clone())?;
    println!(
        "load-test jobs: {}/s for {} s on {}, {} connections, {} workers taking up to {} jobs",
        plan.rate,
        plan.duration.as_secs(),
        plan.address,
        plan.connections,
        plan.workers,
        plan.batch
    );
    let report = jobs::run(&plan);
    println!("{}", report.text());
    Ok(if report.kept_its_word() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Plan {
    fn check(&self) -> Result<()> {
        ensure!(self.rate.is_finite() && self.rate > 0.0, "--rate has to be above 0");
        ensure!(!self.duration.is_zero(), "--seconds has to be above 0");
        ensure!(self.connections > 0 && self.workers > 0, "--connections and --workers have to be above 0");
        ensure!((1..=1000).contains(&self.batch), "--batch is 1 to 1000");
        // Four bytes of memory per job and an hour of patience are enough for a test.
        ensure!(self.jobs() <= 50_000_000, "more than 50 million jobs: lower --rate or --seconds");
        Ok(())
    }

    fn jobs(&self) -> u64 {
        (self.rate * self.duration.as_secs_f64()).ceil() as u64
    }

    fn client(&self) -> Client {
        Client::new(&self.address, self.token.clone())
    }
}

fn token(path: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(line.with_context(|| format!("{path} holds no token"))?.to_owned())
}

fn address_of(url: &str) -> Result<String> {
    let address = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
    let address = address.trim_end_matches('/');
    ensure!(!address.contains('/'), "{url} has a path; the host is enough");
    Ok(if address.contains(':') { address.to_owned() } else { format!("{address}:80") })
}

fn expect_ready(address: &str, token: Option<String>) -> Result<()> {
    let answer = Client::new(address, token).get("/readyz").with_context(|| format!("no server at {address}"))?;
    ensure!(answer.status == 200, "the server at {address} is not ready: {} {}", answer.status, answer.text());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_a_plain_url() {
        assert_eq!(address_of("http://127.0.0.1:7700/").unwrap(), "127.0.0.1:7700");
        assert_eq!(address_of("http://jobs.internal").unwrap(), "jobs.internal:80");
        assert!(address_of("https://127.0.0.1:7700").is_err());
        assert!(address_of("http://127.0.0.1:7700/api").is_err());
    }
}
