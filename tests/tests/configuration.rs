//! Starts that must not succeed, and what they say.

use tidegate_tests::{Exit, Server, run};

/// Nothing of a refused start may look like a crash.
fn clear(exit: &Exit) {
    for word in ["panicked", "RUST_BACKTRACE", "unwrap"] {
        assert!(!exit.said().contains(word), "{}", exit.said());
    }
}

#[tokio::test]
async fn a_public_address_without_tokens_is_refused_and_the_way_out_named() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let exit = Server::builder().listen(address).refusal().await;
        assert_eq!(exit.code, Some(78), "{}", exit.said());
        for word in ["--token-file", "--insecure-public"] {
            assert!(exit.said().contains(word), "{word} is not named: {}", exit.said());
        }
        clear(&exit);
    }
    let server = Server::builder().listen("0.0.0.0:0").args(["--insecure-public"]).start().await;
    assert!(server.banner().contains("0.0.0.0"), "{}", server.banner());
}

#[tokio::test]
async fn wrong_flags_are_usage_errors() {
    let bad: [&[&str]; 5] =
        [&["--no-such-flag"], &["serve", "--listen"], &["frobnicate"], &["serve", "extra"], &["config"]];
    for args in bad {
        let exit = run(args, &[]).await;
        assert_eq!(exit.code, Some(2), "{args:?}: {}", exit.said());
        clear(&exit);
    }
}

#[tokio::test]
async fn everything_wrong_with_a_configuration_is_reported_together() {
    let builder = Server::builder().config("lease = \"forever\"\nleese = \"10s\"\nworkers = 0\n");
    let builder = builder.env("TIDEGATE_HEAD_TIMEOUT", "soon").args(["--body-bytes-max", "huge"]);
    let exit = builder.refusal().await;
    assert_eq!(exit.code, Some(78), "{}", exit.said());
    for word in
        ["forever", "leese", "workers", "TIDEGATE_HEAD_TIMEOUT", "soon", "body-bytes-max", "huge", "tidegate.toml"]
    {
        assert!(exit.said().contains(word), "{word} is missing in: {}", exit.said());
    }
    clear(&exit);
}

#[tokio::test]
async fn a_listen_address_that_is_none_is_named() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999", ""] {
        let exit = Server::builder().listen(address).refusal().await;
        assert!([Some(2), Some(78)].contains(&exit.code), "{}", exit.said());
        clear(&exit);
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_with_exit_code_69() {
    let server = Server::start().await;
    let exit = Server::builder().listen(&server.address().to_string()).refusal().await;
    assert_eq!(exit.code, Some(69), "{}", exit.said());
    assert!(exit.said().contains(&server.address().to_string()), "{}", exit.said());
    clear(&exit);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_named_with_exit_code_69() {
    let builder = Server::builder();
    let file = builder.folder().join("a-file");
    std::fs::write(&file, "not a folder").expect("the temporary folder is writable");
    let exit = builder.clone().data(&file).refusal().await;
    assert_eq!(exit.code, Some(69), "{}", exit.said());
    assert!(exit.said().contains("a-file"), "{}", exit.said());
    clear(&exit);
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "not a folder");
}

#[tokio::test]
async fn a_wrong_redis_url_is_named_and_its_password_never_shown() {
    for url in
        ["redis://user:hunter2@localhost:port", "hunter2@localhost", "redis://:a?hunter2@x", "https://u:hunter2@x"]
    {
        let exit = Server::builder().env("REDIS_URL", url).refusal().await;
        assert_eq!(exit.code, Some(78), "{}", exit.said());
        assert!(exit.said().contains("REDIS_URL") && !exit.said().contains("hunter2"), "{}", exit.said());
        assert!(exit.said().contains("redis-sentinel") || exit.said().contains("redis[s]-sentinel"), "{}", exit.said());
        clear(&exit);
    }
    let print = run(&["config", "print"], &[("REDIS_URL", "rediss://user:hunter2@example.org?ca=/x")]).await;
    assert_eq!(print.code, Some(0), "{}", print.said());
    assert!(print.stdout.contains("rediss://<redacted>@example.org:6379/0?ca=/x"), "{}", print.stdout);
}

#[tokio::test]
async fn missing_and_broken_configuration_files_are_named() {
    let exit = run(&["config", "check", "--config", "/does/not/exist.toml"], &[]).await;
    assert_eq!(exit.code, Some(78), "{}", exit.said());
    assert!(exit.said().contains("/does/not/exist.toml"), "{}", exit.said());
    let exit = Server::builder().config("listen = [[[").refusal().await;
    assert_eq!(exit.code, Some(78), "{}", exit.said());
    assert!(exit.said().contains("tidegate.toml"), "{}", exit.said());
    clear(&exit);
}
