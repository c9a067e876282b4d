//! A crowd against a server of fifty lines that does to events what a test asks for: is every fault found?

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::crowd::{Crowd, CrowdPlan, Outcome, Source};
use super::event_id::EventId;
use super::judgement::{Judgement, judge};
use super::ledger::Ledger;
use super::order::Faults;
use crate::load_test::fake;

/// Patience in which a listener hears what a local server has already written.
const HEARD: Duration = Duration::from_secs(10);

fn frame(n: u64) -> String {
    format!("id: 10-{n}\ndata: {{\"n\":{n},\"at\":0}}\n\n")
}

fn frames(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(frame).collect()
}

/// Answers each connection with the next text and keeps it open until the client has gone; tells the heads of requests.
/// A text that begins with `!` is the whole answer, after which the server hangs up.
fn server(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let (mut heads, mut open) = (Vec::new(), Vec::new());
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            heads.push(fake::request(&mut stream).unwrap().0);
            match answer.strip_prefix('!') {
                Some(all) => stream.get_mut().write_all(all.as_bytes()).unwrap(),
                None => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                    stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
                    open.push(stream);
                }
            }
        }
        for mut stream in open {
            // Ends when the client goes.
            while fake::request(&mut stream).is_ok() {}
        }
        heads
    });
    (address, serving)
}

fn plan(target: SocketAddr, listeners: usize) -> CrowdPlan {
    CrowdPlan {
        target,
        token: None,
        streams: vec![Source { path: "/sse".to_owned(), after: Some(EventId { ms: 10, seq: 0 }), next: 1 }],
        listeners,
        slow: 0,
        threads: 1,
        sources: 1,
        leaves_after: None,
        has_ids: true,
        epoch: Instant::now(),
    }
}

/// Events 1 to 9 were acknowledged.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1);
    (0..10).for_each(|n| {
        ledger.tried(0, n);
        ledger.acknowledge(0, n, EventId { ms: 10, seq: n });
    });
    ledger
}

fn listened(answers: Vec<String>, listeners: usize) -> (Outcome, Vec<String>) {
    let (address, serving) = server(answers);
    let crowd = Crowd::open(&plan(address, listeners), HEARD).unwrap();
    let outcome = crowd.finish(&[10], HEARD).unwrap();
    (outcome, serving.join().unwrap())
}

fn judged(answer: String) -> Judgement {
    judge(&listened(vec![answer], 1).0, &ledger())
}

#[test]
fn listeners_that_hear_everything_are_content() {
    let (outcome, heads) = listened(vec![frames(1..10); 3], 3);
    let judgement = judge(&outcome, &ledger());
    assert!(judgement.is_exact(), "{}", judgement.text());
    assert_eq!((judgement.listeners, outcome.counts.events, outcome.latency.count()), (3, 27, 27));
    assert!(heads[0].starts_with("GET /sse HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("\r\nLast-Event-ID: 10-0\r\n"), "{}", heads[0]);
}

#[test]
fn a_planted_loss_repeat_and_swap_are_found() {
    let lost = judged(frames([1, 2, 3, 5, 6, 7, 8, 9]));
    assert_eq!(lost.faults, Faults { lost: 1, ..Faults::default() });
    let repeated = judged(frames([1, 2, 3, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!(repeated.faults, Faults { repeated: 1, descending: 1, ..Faults::default() });
    let swapped = judged(frames([1, 2, 4, 3, 5, 6, 7, 8, 9]));
    assert_eq!(swapped.faults, Faults { reordered: 1, descending: 1, ..Faults::default() });
}

#[test]
fn a_loss_that_is_told_is_none() {
    let gap = "id: 10-4\nevent: gap\ndata: {\"from\":\"10-2\",\"to\":\"10-4\",\"reason\":\"trimmed\"}\n\n";
    let judgement = judged(frames([1, 2]) + gap + &frames(5..10));
    assert!(judgement.is_exact(), "{}", judgement.text());
    assert_eq!((judgement.gaps, judgement.told), (1, 2));
}

#[test]
fn a_listener_that_is_cut_off_comes_back_to_where_it_was() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let cut = format!("!{head}{}id: 10-4\ndata: {{\"n\"", frames(1..4));
    let placed = format!("!{head}id: 10-3\n\n");
    let (outcome, heads) = listened(vec![cut, placed, frames(4..10)], 1);
    let judgement = judge(&outcome, &ledger());
    assert!(judgement.is_exact(), "{}", judgement.text());
    assert_eq!((outcome.counts.connections, outcome.counts.cut), (3, 2));
    for head in &heads[1..] {
        assert!(head.contains("\r\nLast-Event-ID: 10-3\r\n"), "{head}");
    }
}

#[test]
fn a_refusal_is_counted_and_the_listener_tries_again() {
    let refusal = "!HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (outcome, _) = listened(vec![refusal, frames(1..10)], 1);
    assert!(judge(&outcome, &ledger()).is_exact());
    assert_eq!(outcome.counts.errors.get("503"), Some(&1));
}

#[test]
fn a_listener_that_stalls_reads_on_later() {
    let (begin, begun) = mpsc::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        fake::request(&mut stream).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        begun.recv().unwrap();
        stream.get_mut().write_all(frames(1..10).as_bytes()).unwrap();
        while fake::request(&mut stream).is_ok() {}
    });
    let crowd = Crowd::open(&CrowdPlan { slow: 1, ..plan(address, 1) }, HEARD).unwrap();
    crowd.stall(true);
    begin.send(()).unwrap();
    crowd.stall(false);
    let outcome = crowd.finish(&[10], HEARD).unwrap();
    serving.join().unwrap();
    assert!(judge(&outcome, &ledger()).is_exact());
    assert_eq!(outcome.latency.count(), 0, "those that stall do not count for the others");
}
