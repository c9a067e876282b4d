//! A private server is private, obeys, and leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use tidegate_test_redis::{Connection, Fsync, Persistence, Reply, Server, shared};
use tokio::net::{TcpStream, UnixStream};

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn servers_keep_apart_and_leave_nothing_behind() {
    let (first, second) = (Server::start().await, Server::start().await);
    assert_ne!(first.port(), second.port());
    first.cli(&["SET", "key", "first"]).await;
    assert_eq!(second.command(&["GET", "key"]).await, Reply::Nil);

    let (pid, folder) = (first.pid(), first.folder().to_owned());
    assert!(runs(pid) && folder.is_dir());
    drop(first);
    assert!(!runs(pid), "redis runs on after its handle was dropped");
    assert!(!folder.exists(), "the folder stays");
    second.pause();
    let pid = second.pid();
    drop(second);
    assert!(!runs(pid), "a paused redis runs on");
}

#[tokio::test]
async fn a_server_ends_with_a_test_that_panics() {
    let test = tokio::spawn(async {
        let server = Server::start().await;
        let pid = server.pid();
        std::panic::panic_any(pid);
    });
    let pid = *test.await.unwrap_err().into_panic().downcast::<u32>().unwrap();
    assert!(!runs(pid));
}

#[tokio::test]
async fn an_append_only_file_survives_a_kill_and_nothing_else_does() {
    let kept = Server::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let lost = Server::start().await;
    for server in [&kept, &lost] {
        server.cli(&["SET", "key", "value"]).await;
        let (port, pid) = (server.port(), server.pid());
        server.kill();
        assert!(!server.is_running() && server.try_command(&["PING"]).await.is_err());
        server.restart().await;
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
    }
    assert_eq!(kept.cli(&["GET", "key"]).await, "value");
    assert_eq!(lost.command(&["GET", "key"]).await, Reply::Nil);
}

#[tokio::test]
async fn a_running_server_restarts_and_a_stopped_one_is_gone() {
    let server = Server::builder().persistence(Persistence::Aof(Fsync::No)).start().await;
    server.cli(&["SET", "key", "value"]).await;
    server.restart().await;
    assert_eq!(server.cli(&["GET", "key"]).await, "value");
    server.stop().await;
    assert!(!server.is_running() && TcpStream::connect(server.addr()).await.is_err());
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let server = Server::start().await;
    let mut connection = Connection::tcp(server.addr()).await.unwrap();
    server.pause();
    connection.send(&["PING"]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), connection.reply()).await.is_err());
    server.resume();
    // The reply given up above may have been half read; there was nothing to read.
    assert_eq!(connection.reply().await.unwrap().to_string(), "PONG");
}

#[tokio::test]
async fn settings_reach_the_server() {
    let server = Server::builder()
        .maxmemory(8 << 20)
        .requirepass("secret")
        .acl("app on >word ~app:* &* -@all +get +ping")
        .config("hz 50")
        .start()
        .await;
    assert_eq!(server.cli(&["CONFIG", "GET", "maxmemory"]).await, "maxmemory\n8388608");
    assert_eq!(server.cli(&["CONFIG", "GET", "hz"]).await, "hz\n50");
    assert_eq!(server.url(), format!("redis://:secret@127.0.0.1:{}", server.port()));
    assert_eq!(server.url_as("app", "word"), format!("redis://app:word@127.0.0.1:{}", server.port()));

    let mut connection = Connection::tcp(server.addr()).await.unwrap();
    assert!(connection.command(&["PING"]).await.unwrap().is_error("NOAUTH"));
    assert!(connection.command(&["AUTH", "secret"]).await.unwrap() == Reply::Text("OK".into()));
    assert!(connection.command(&["AUTH", "app", "word"]).await.unwrap() == Reply::Text("OK".into()));
    assert_eq!(connection.command(&["GET", "app:1"]).await.unwrap(), Reply::Nil);
    assert!(connection.command(&["GET", "other"]).await.unwrap().is_error("NOPERM"));
    assert!(connection.command(&["SET", "app:1", "x"]).await.unwrap().is_error("NOPERM"));
}

#[tokio::test]
async fn memory_is_bounded_when_asked_for() {
    let server = Server::builder().maxmemory(8 << 20).start().await;
    let before = server.used_memory().await;
    let value = "x".repeat(1 << 20);
    let mut replies = Vec::new();
    for key in 0..8 {
        replies.push(server.command(&["SET", &key.to_string(), &value]).await);
    }
    assert!(replies.last().unwrap().is_error("OOM"), "{replies:?}");
    assert!(server.used_memory().await > before + (1 << 20));
}

#[tokio::test]
async fn a_tls_server_speaks_no_plain_text_and_the_harness_still_reaches_it() {
    let server = Server::builder().tls().start().await;
    assert_eq!(server.cli(&["PING"]).await, "PONG");
    assert!(server.url().starts_with("rediss://127.0.0.1:"));
    assert!(Connection::tcp(server.addr()).await.unwrap().command(&["PING"]).await.is_err());
    let certificate = std::fs::read_to_string(server.ca()).unwrap();
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn the_unix_socket_is_there() {
    let server = Server::start().await;
    assert!(UnixStream::connect(server.socket()).await.is_ok());
    assert_eq!(server.connect().await.unwrap().command(&["PING"]).await.unwrap().to_string(), "PONG");
}

#[tokio::test]
async fn only_commands_of_others_are_counted() {
    let server = Server::start().await;
    assert_eq!(server.commands_processed().await, 0);
    let mut connection = Connection::tcp(server.addr()).await.unwrap();
    for _ in 0..7 {
        connection.command(&["INCR", "n"]).await.unwrap();
    }
    connection.command(&["CLIENT", "SETNAME", "me"]).await.unwrap();
    server.cli(&["GET", "n"]).await;
    server.cli(&["CONFIG", "GET", "port"]).await;
    assert_eq!(server.commands_processed().await, 8);
    let by_name = server.commands_by_name().await;
    let expected = [("client|setname".to_owned(), 1), ("incr".to_owned(), 7)];
    assert_eq!(by_name.into_iter().collect::<Vec<_>>(), expected);
    server.restart().await;
    assert_eq!(server.commands_processed().await, 0);
}

#[tokio::test]
async fn every_client_can_be_cut() {
    let server = Server::start().await;
    let mut plain = Connection::tcp(server.addr()).await.unwrap();
    let mut subscriber = Connection::tcp(server.addr()).await.unwrap();
    plain.command(&["PING"]).await.unwrap();
    subscriber.command(&["SUBSCRIBE", "news"]).await.unwrap();
    assert_eq!(server.client_kill_all().await, 2);
    assert!(plain.reply().await.is_err() && subscriber.reply().await.is_err());
}

#[tokio::test]
#[should_panic(expected = "its log ends with")]
async fn a_server_that_cannot_start_says_why() {
    Server::builder().config("no-such-setting 1").start().await;
}

#[tokio::test]
async fn one_server_is_shared_by_all_tests_of_a_program() {
    assert_eq!(shared().await.pid(), shared().await.pid());
    assert_eq!(shared().await.cli(&["PING"]).await, "PONG");
}
