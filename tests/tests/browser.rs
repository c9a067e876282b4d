//! A real browser: an `EventSource` page in Chromium is cut off again and again, and by itself misses and repeats nothing.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_test_redis::{Fsync, Persistence, Server as Redis};
use tidegate_tests::{Browser, Builder, Gateway, Server, endless_job, place};

/// A browser waits some seconds before it comes back, a busy machine some more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Listens to `PATH` and reports what it hears, in order, one report after the other.
const PAGE: &str = r#"<!doctype html>
<title>EventSource</title>
<script>
  let last = Promise.resolve();
  const report = (what) => {
    last = last.then(() => fetch("/report", { method: "POST", body: JSON.stringify(what) })).catch(() => {});
  };
  const source = new EventSource("PATH");
  const heard = (event) => report({ type: event.type, id: event.lastEventId, data: event.data });
  for (const type of ["message", "order.created", "gap"]) source.addEventListener(type, heard);
  source.onopen = () => report({ type: "open" });
  source.onerror = () => report({ type: "error", closed: source.readyState === EventSource.CLOSED });
</script>
"#;

/// A page in a browser, and what it has heard.
struct Page {
    gateway: Gateway,
    _browser: Browser,
    /// Ids and numbers of the events heard.
    heard: Vec<(String, u64)>,
}

impl Page {
    async fn open(path: &str, server: &Server) -> Self {
        let gateway = Gateway::start(&PAGE.replace("PATH", path), server.address()).await;
        let browser = Browser::open(&gateway.url());
        Self { gateway, _browser: browser, heard: Vec::new() }
    }

    /// The next report but for errors after which the browser tries again.
    async fn report(&mut self) -> Value {
        loop {
            let report = self.gateway.report(PATIENCE).await;
            let report: Value = serde_json::from_str(&report).expect("the page reports JSON");
            assert_ne!(report["closed"], true, "the browser gave up; heard so far: {:?}", self.heard);
            if report["type"] != "error" {
                return report;
            }
        }
    }

    /// Waits until the page has connected.
    async fn connected(&mut self) {
        let report = self.report().await;
        assert_eq!(report["type"], "open", "{report}");
    }

    /// Listens until so many events were heard in all.
    async fn hear(&mut self, count: usize) {
        while self.heard.len() < count {
            let report = self.report().await;
            if report["type"] == "open" {
                continue;
            }
            assert_ne!(report["type"], "gap", "nothing was lost: {report}");
            let data: Value = serde_json::from_str(report["data"].as_str().unwrap_or_default()).expect("JSON");
            let id = report["id"].as_str().expect("an id").to_owned();
            self.heard.push((id, data["n"].as_u64().expect("a number")));
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.heard.iter().map(|(_, number)| *number).collect()
    }
}

/// The server again, where it was.
async fn again(server: &Server) -> Server {
    server.rebuilder().listen(&server.address().to_string()).start().await
}

/// Cut off by the network, by a kill and by a restart, publishing all the while.
async fn survives_everything(builder: Builder) {
    let mut server = builder.start().await;
    let mut ids = server.client().publish_numbers("browser", 0..5).await;
    let mut page = Page::open("/api/streams/browser/sse?after=0", &server).await;
    page.hear(5).await;
    ids.extend(server.client().publish_numbers("browser", 5..10).await);
    page.hear(10).await;
    let mut next = 10;
    for ending in ["cut", "kill", "restart", "cut"] {
        match ending {
            "cut" => page.gateway.cut(),
            "kill" => {
                server.process().kill().await;
                server = again(&server).await;
            }
            _ => {
                server.process().signal(Signal::TERM);
                assert_eq!(server.process().wait(PATIENCE).await.code(), Some(0));
                server = again(&server).await;
            }
        }
        // While the browser is away, and when it is back.
        let client = server.client();
        ids.extend(client.publish_numbers("browser", next..next + 5).await);
        page.hear(ids.len()).await;
        let typed = json!({"type": "order.created", "data": {"n": next + 5}});
        ids.push(client.publish_event("browser", typed).await);
        page.hear(ids.len()).await;
        next += 6;
    }
    assert_eq!(page.numbers(), (0..next).collect::<Vec<_>>());
    assert_eq!(page.heard.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids);
    assert!(ids.is_sorted_by(|a, b| place(a) < place(b)), "{ids:?}");
    assert!(page.gateway.passed() >= 5, "it came back after each of the four endings");
}

#[tokio::test]
async fn an_event_source_cut_off_by_network_kill_and_restart_hears_everything_once() {
    survives_everything(Server::builder()).await;
}

#[tokio::test]
async fn an_event_source_on_redis_hears_everything_once_too() {
    let redis = Redis::start().await;
    survives_everything(Server::builder().redis(&redis.url())).await;
}

#[tokio::test]
async fn an_event_source_stays_while_redis_is_killed_and_restarted() {
    let redis = Redis::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let server = Server::builder().redis(&redis.url()).start().await;
    let client = server.client();
    client.publish_numbers("browser", 0..5).await;
    let mut page = Page::open("/api/streams/browser/sse?after=0", &server).await;
    page.hear(5).await;
    redis.kill();
    // It must find its way also where it comes back while Redis is away.
    page.gateway.cut();
    let passed = page.gateway.passed();
    page.gateway.passed_more_than(passed, PATIENCE).await;
    redis.restart().await;
    tidegate_tests::eventually("the server has its Redis again", PATIENCE, || async {
        (client.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    client.publish_numbers("browser", 5..10).await;
    page.hear(10).await;
    assert_eq!(page.numbers(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_source_of_many_streams_resumes_in_each() {
    let server = Server::start().await;
    let client = server.client();
    let mut page = Page::open("/api/events?streams=one,many.*", &server).await;
    page.connected().await;
    for n in 0..30_u64 {
        client.publish(["one", "many.a", "many.b"][n as usize % 3], json!({"n": n})).await;
        if n % 10 == 4 {
            page.hear(n as usize + 1).await;
            page.gateway.cut();
        }
    }
    page.hear(30).await;
    let mut numbers = page.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_source_that_has_heard_nothing_yet_misses_nothing() {
    let server = Server::start().await;
    let client = server.client();
    client.publish_numbers("quiet", 100..105).await;
    for path in ["/api/streams/quiet/sse", "/api/events?streams=quiet,more.*"] {
        let mut page = Page::open(path, &server).await;
        page.connected().await;
        // The place where it begins has been told.
        page.gateway.frames_more_than(0, PATIENCE).await;
        page.gateway.cut();
        client.publish_numbers("quiet", 0..3).await;
        page.hear(3).await;
        assert_eq!(page.numbers(), [0, 1, 2], "{path}");
    }
}

#[tokio::test]
async fn an_event_source_waits_for_a_server_that_takes_long_to_drain() {
    let builder = Server::builder().env("TIDEGATE_DRAIN_TIMEOUT", "600s");
    let mut server = builder.start().await;
    let client = server.client();
    let job = client.submit(endless_job()).await;
    client.job_at_work(&job.job_id).await;
    client.publish_numbers("browser", 0..3).await;
    let mut page = Page::open("/api/streams/browser/sse?after=0", &server).await;
    page.hear(3).await;
    server.process().signal(Signal::TERM);
    // It comes back while the server still drains: an answer it cannot use would be the end of it.
    let passed = page.gateway.passed();
    tokio::select! {
        () = page.gateway.passed_more_than(passed, PATIENCE) => {}
        // Nobody listens any more: it cannot be given such an answer.
        () = refuses(&server) => {}
    }
    server.process().signal(Signal::TERM);
    server.process().wait(PATIENCE).await;
    let server = again(&server).await;
    server.client().publish_numbers("browser", 3..6).await;
    page.hear(6).await;
    assert_eq!(page.numbers(), (0..6).collect::<Vec<_>>());
}

/// Waits until the server takes no connections.
async fn refuses(server: &Server) {
    let address = server.address();
    tidegate_tests::eventually("the server takes no connections", PATIENCE, || async {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}
