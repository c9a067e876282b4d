//! A Redis to try something with: `cargo run -p tidegate-test-redis -- server` (or `cluster`, or `sentinel`) starts it
//! on free ports, prints its URL and its processes, and ends it at Ctrl-C, or at the end of its input.

use std::process::ExitCode;

use tidegate_test_redis::{Cluster, Sentinel, Server};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None | Some("server") => {
            let server = Server::start().await;
            until_told(&server.url(), &[&server]);
        }
        Some("cluster") => {
            let cluster = Cluster::start().await;
            until_told(&cluster.url(), &cluster.nodes().iter().collect::<Vec<_>>());
        }
        Some("sentinel") => {
            let group = Sentinel::start().await;
            until_told(&group.url(), &group.servers().iter().chain(group.sentinels()).collect::<Vec<_>>());
        }
        Some(_) => {
            eprintln!("usage: private-redis [server|cluster|sentinel]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn until_told(url: &str, servers: &[&Server]) {
    println!("{url}");
    for server in servers {
        println!("{} {} {}", server.pid(), server.addr(), server.folder().display());
    }
    println!("ready");
    // Nothing else is to be done meanwhile, so this may block.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
}
