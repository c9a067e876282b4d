//! Walking over keys and deleting many.

use std::collections::HashSet;

use tidegate_redis_ops::{DeleteOptions, ScanOptions, Script};
use tidegate_test_redis::Server;
use tokio_util::sync::CancellationToken;

use crate::{command, connect, until};

const FILL: &str = "for i = 1, tonumber(ARGV[1]) do redis.call('SET', ARGV[2] .. i, 'x') end return 1";

async fn fill(redis: &tidegate_redis_ops::Redis, count: usize, prefix: &'static str) {
    let fill = Script::new("fill", FILL);
    redis.run(&fill, &[], vec![count.to_string().into(), prefix.into()]).await.unwrap();
}

#[tokio::test]
async fn a_walk_finds_all_of_its_kind_and_no_others() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    fill(&redis, 5000, "a:").await;
    fill(&redis, 100, "b:").await;
    command(&redis, &["RPUSH", "a:list", "x"]).await.unwrap();
    let walk = async |pattern: &'static str, kind| {
        let (mut scan, mut keys) = (redis.scan(pattern, ScanOptions { count: 500, kind }), HashSet::new());
        while let Some(page) = scan.next_page().await {
            keys.extend(page.unwrap());
        }
        keys.len()
    };
    assert_eq!(walk("a:*", None).await, 5001);
    assert_eq!(walk("a:*", Some("list")).await, 1);
    assert_eq!(walk("*", Some("string")).await, 5100);
    assert_eq!(walk("none", None).await, 0);
}

#[tokio::test]
async fn a_walk_goes_on_where_the_link_broke() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    fill(&redis, 3000, "a:").await;
    let (mut scan, mut keys, mut pages) = (redis.scan("a:*", ScanOptions::default()), HashSet::new(), 0);
    while let Some(page) = scan.next_page().await {
        pages += 1;
        if pages == 5 {
            server.client_kill_all().await;
        }
        keys.extend(page.unwrap_or_default());
    }
    assert_eq!(keys.len(), 3000);
}

#[tokio::test]
async fn deleting_tells_its_progress_and_leaves_the_rest() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    fill(&redis, 10_000, "a:").await;
    fill(&redis, 10, "b:").await;
    let mut heard = Vec::new();
    let options = DeleteOptions { batch: 3000, count: 1000 };
    let deleted =
        redis.delete_matching("a:*", options, |sum| heard.push(sum), &CancellationToken::new()).await.unwrap();
    assert_eq!(deleted, 10_000);
    assert_eq!(heard, [3000, 6000, 9000, 10_000]);
    assert_eq!(server.cli(&["DBSIZE"]).await, "10");
}

#[tokio::test]
async fn deleting_stops_when_told_and_can_go_on() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    fill(&redis, 10_000, "a:").await;
    let cancel = CancellationToken::new();
    let stop = |_| cancel.cancel();
    let deleted = redis.delete_matching("a:*", DeleteOptions::default(), stop, &cancel).await.unwrap();
    assert!((1000..5000).contains(&deleted), "{deleted}");
    let rest = redis.delete_matching("a:*", DeleteOptions::default(), |_| {}, &CancellationToken::new()).await.unwrap();
    assert_eq!(deleted + rest, 10_000);
    until(async || (server.cli(&["DBSIZE"]).await == "0").then_some(())).await;
}
