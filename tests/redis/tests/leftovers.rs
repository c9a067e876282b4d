//! A test program that is killed leaves no process, no listener and no folder behind.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

/// A started program and what it said about each of its servers: process, address, folder.
fn started(what: &str) -> (Child, Vec<[String; 3]>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_private-redis"));
    let mut child = command.arg(what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.skip(1).take_while(|line| line != "ready").collect();
    let servers = lines.iter().map(|line| {
        let words: Vec<String> = line.splitn(3, ' ').map(str::to_owned).collect();
        words.try_into().expect("three words")
    });
    let servers = servers.collect();
    (child, servers)
}

/// A process that ended may wait for its parent as a zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

async fn leaves_nothing(servers: &[[String; 3]]) {
    let start = Instant::now();
    for [pid, addr, folder] in servers {
        while runs(pid) || TcpStream::connect(addr).await.is_ok() || Path::new(folder).exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "left behind: {pid} {addr} {folder}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_behind() {
    let (mut program, servers) = started("cluster");
    assert_eq!(servers.len(), 6);
    for [pid, addr, folder] in &servers {
        assert!(runs(pid) && TcpStream::connect(addr).await.is_ok() && Path::new(folder).is_dir());
    }
    program.kill().unwrap();
    program.wait().unwrap();
    leaves_nothing(&servers).await;
}

#[tokio::test]
async fn a_program_that_ends_leaves_nothing_behind() {
    let (mut program, servers) = started("server");
    assert_eq!(servers.len(), 1);
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    leaves_nothing(&servers).await;
}

#[test]
fn an_unknown_word_is_answered_with_the_usage() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_private-redis"));
    let mut child = command.arg("nonsense").stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success() && said.starts_with("usage: "), "{said}");
}
