//! Real Redis for tests and benches: private servers, a cluster, a Sentinel group, and a proxy that breaks the network
//! at a chosen byte.
//!
//! Each process runs in a folder of its own on free ports of 127.0.0.1 (never 6379) and ends with its handle; should
//! the test program die first, a watchdog ends them. What goes wrong here panics with the reason, as a test should.
//!
//! ```no_run
//! # async fn example() {
//! use tidegate_test_redis::{Fault, Proxy, Server, Toward};
//!
//! let server = Server::start().await;
//! server.cli(&["SET", "greeting", "hello"]).await;
//! let proxy = Proxy::start(server.addr());
//! proxy.cut_once(Toward::Client, 3); // of the next reply, three bytes arrive
//! proxy.set(Toward::Server, Fault::Delay(std::time::Duration::from_millis(5)));
//! server.kill();
//! server.restart().await;
//! # }
//! ```

mod binary;
mod port;
mod wait;
mod watchdog;

mod connection;
mod process;
mod settings;

mod server;
mod shared;

mod cluster;
mod sentinel;

mod proxy;

pub use cluster::Cluster;
pub use connection::{Connection, Reply};
pub use proxy::{Fault, Proxy, Toward, Traffic};
pub use sentinel::Sentinel;
pub use server::Server;
pub use settings::{Builder, Fsync, Persistence};
pub use shared::shared;
