//! `kill -9` of the server under load: the history that its clients recorded keeps every promise, and the checker is
//! seen to find planted bugs, in histories made by hand and in a live run.

use std::time::Duration;

use tidegate_tests::{Answer, Event, Finish, History, Place, Plan, Plant, Server, Soak, Violation, check};

fn plan(rounds: u32) -> Plan {
    // 300–900 ms: enough for thousands of calls, short enough that kills hit starts, too.
    Plan {
        place: Place::Disk,
        servers: 1,
        rounds,
        redis_rounds: 0,
        outage_ms: (0, 0),
        submitters: 16,
        workers: 8,
        jobs_per_round: 9000,
        round_ms: (300, 900),
        seed: 20_261,
        plant: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_under_load_break_no_promise_and_a_forged_history_is_found() {
    let (history, figures) = Soak::run(plan(5), &Server::builder()).await;
    println!("{figures:?}");
    let violations = check(&history);
    assert!(
        violations.is_empty(),
        "{} violations, first: {:#?}",
        violations.len(),
        &violations[..violations.len().min(5)]
    );
    // A run that did nothing proves nothing.
    assert_eq!(figures.kills, 5);
    assert!(figures.acknowledged > 500 && figures.accepted > 500, "{figures:?}");
    assert!(figures.submits_unknown + figures.finishes_unknown > 0, "no kill hit a request in flight: {figures:?}");

    planted(&history);
}

/// Plants one bug at a time in a history of the live run.
fn planted(history: &History) {
    let completed = history.events.iter().find_map(|(_, event)| match event {
        Event::Final { job, status, .. } if status == "completed" => Some(job.clone()),
        _ => None,
    });
    let completed = completed.expect("a job was completed");
    let lease = history.events.iter().find_map(|(_, event)| match event {
        Event::Claimed { job, lease, .. } if *job == completed => Some(lease.clone()),
        _ => None,
    });
    let lease = lease.expect("it was claimed");

    let mut forgotten = history.clone();
    forgotten.events.retain(|(_, event)| !matches!(event, Event::Final { job, .. } if *job == completed));
    assert_eq!(check(&forgotten), [Violation::Lost { job: completed.clone() }]);

    let forged = history
        .clone()
        .then(Event::FinishSent { lease: lease.clone(), finish: Finish::Complete("\"forged\"".to_owned()) })
        .then(Event::FinishAnswered { lease, answer: Answer::Accepted });
    let found = check(&forged);
    assert!(found.iter().any(|one| matches!(one, Violation::EndedTwice { job, .. } if *job == completed)), "{found:?}");

    // One that was told only once: a repetition may be stale because the first was carried out.
    let told = |name: &str| {
        let sent = |event: &Event| matches!(event, Event::FinishSent { lease, .. } if lease == name);
        history.events.iter().filter(|(_, event)| sent(event)).count()
    };
    let stale = history.events.iter().position(
        |(_, event)| matches!(event, Event::FinishAnswered { answer: Answer::Stale, lease } if told(lease) == 1),
    );
    if let Some(stale) = stale {
        let mut believed = history.clone();
        if let Event::FinishAnswered { answer, .. } = &mut believed.events[stale].1 {
            *answer = Answer::Accepted;
        }
        assert!(!check(&believed).is_empty(), "a stale completion that was accepted is found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_forgets_is_found_in_a_live_run() {
    let plan = Plan { rounds: 3, jobs_per_round: 500, seed: 7, plant: Some(Plant::ForgetfulDisk), ..plan(3) };
    let (history, _) = Soak::run(plan, &Server::builder()).await;
    let violations = check(&history);
    let lost = violations.iter().filter(|one| matches!(one, Violation::Lost { .. })).count();
    assert!(lost > 0, "the jobs of the second round are gone and nobody noticed: {violations:?}");
}

// Histories made by hand.

fn sent(op: u64) -> Event {
    Event::SubmitSent { op, dedup: None }
}

fn sent_as(op: u64, dedup: &str) -> Event {
    Event::SubmitSent { op, dedup: Some(dedup.to_owned()) }
}

fn accepted(op: u64, job: &str) -> Event {
    Event::SubmitAccepted { op, job: job.to_owned(), duplicate: false }
}

fn claimed(op: u64, job: &str, lease: &str, sent_ms: u64) -> Event {
    let (lease, job) = (lease.to_owned(), job.to_owned());
    Event::Claimed { boot: 0, sent: Duration::from_millis(sent_ms), lease_ms: 1000, lease, job, op }
}

fn completes(history: History, lease: &str, result: &str, answer: Answer) -> History {
    let finish = Finish::Complete(result.to_owned());
    finishes(history, lease, finish, answer)
}

fn finishes(history: History, lease: &str, finish: Finish, answer: Answer) -> History {
    let name = || lease.to_owned();
    history.then(Event::FinishSent { lease: name(), finish }).then(Event::FinishAnswered { lease: name(), answer })
}

fn ended(job: &str, status: &str, result: Option<&str>) -> Event {
    Event::Final { job: job.to_owned(), status: status.to_owned(), result: result.map(str::to_owned) }
}

/// Submitted as `op` 1, job `j`, claimed under lease `a`.
fn begun() -> History {
    History::default().then(sent(1)).then(accepted(1, "j")).then(claimed(1, "j", "a", 2))
}

#[test]
fn a_plain_life_breaks_no_promise() {
    let history = completes(begun(), "a", "1", Answer::Accepted).then(ended("j", "completed", Some("1")));
    assert_eq!(check(&history), []);
    let lost_answer = completes(begun(), "a", "1", Answer::Unknown).then(ended("j", "completed", Some("1")));
    assert_eq!(check(&lost_answer), []);
    let nobody_was_told = History::default().then(sent(1)).then(Event::SubmitUnknown { op: 1 });
    assert_eq!(check(&nobody_was_told), []);
    let failed = finishes(begun(), "a", Finish::Discard, Answer::Accepted).then(ended("j", "failed", None));
    assert_eq!(check(&failed), []);
}

#[test]
fn an_acknowledged_job_that_is_gone_is_found() {
    let history = History::default().then(sent(1)).then(accepted(1, "j"));
    assert_eq!(check(&history), [Violation::Lost { job: "j".to_owned() }]);
    let unacknowledged =
        History::default().then(sent(1)).then(Event::SubmitUnknown { op: 1 }).then(claimed(1, "j", "a", 2));
    let unacknowledged = completes(unacknowledged, "a", "1", Answer::Accepted);
    assert_eq!(check(&unacknowledged), [Violation::Lost { job: "j".to_owned() }], "its completion was acknowledged");
}

#[test]
fn a_job_that_never_ends_is_found() {
    let history = begun().then(ended("j", "running", None));
    assert_eq!(check(&history), [Violation::NotEnded { job: "j".to_owned(), status: "running".to_owned() }]);
}

#[test]
fn an_end_other_than_the_one_told_is_found() {
    let wrong = |history: History| matches!(&check(&history)[..], [Violation::WrongEnd { job, .. }] if job == "j");
    let done = || completes(begun(), "a", "1", Answer::Accepted);
    assert!(wrong(done().then(ended("j", "failed", None))), "completed, shown as failed");
    assert!(wrong(done().then(ended("j", "completed", Some("2")))), "another result");
    assert!(wrong(done().then(ended("j", "completed", None))), "no result");
    assert!(wrong(begun().then(ended("j", "completed", Some("1")))), "completed by nobody");
    assert!(wrong(begun().then(ended("j", "failed", None))), "failed by nobody");
    let refused = completes(begun(), "a", "1", Answer::Unknown);
    assert!(wrong(refused.then(ended("j", "failed", None))));
}

#[test]
fn one_submission_that_became_two_jobs_is_found() {
    let history = History::default()
        .then(sent(1))
        .then(Event::SubmitUnknown { op: 1 })
        .then(sent(1))
        .then(accepted(1, "j"))
        .then(claimed(1, "j", "a", 4))
        .then(claimed(1, "k", "b", 4));
    let history = completes(history, "a", "1", Answer::Accepted);
    let history = completes(history, "b", "1", Answer::Accepted);
    let history = history.then(ended("j", "completed", Some("1"))).then(ended("k", "completed", Some("1")));
    assert_eq!(check(&history), [Violation::Doubled { op: 1, jobs: ["j".to_owned(), "k".to_owned()] }]);

    // Handed out and gone with its server before anything about it was acknowledged: the second is the only one.
    let vanished = History::default()
        .then(sent(1))
        .then(claimed(1, "j", "a", 1))
        .then(Event::Killed { boot: 0 })
        .then(sent(1))
        .then(accepted(1, "k"))
        .then(claimed(1, "k", "b", 6));
    let vanished = completes(vanished, "b", "1", Answer::Accepted).then(ended("k", "completed", Some("1")));
    assert_eq!(check(&vanished), []);
}

#[test]
fn a_refused_submission_that_exists_is_found() {
    let history = History::default().then(sent(1)).then(Event::SubmitRefused { op: 1 }).then(claimed(1, "j", "a", 2));
    assert_eq!(check(&history), [Violation::RefusedButThere { op: 1, job: "j".to_owned() }]);
}

#[test]
fn a_second_accepted_end_is_found() {
    let history = completes(begun(), "a", "1", Answer::Accepted);
    let history = completes(history, "a", "2", Answer::Accepted).then(ended("j", "completed", Some("1")));
    let leases = ["a".to_owned(), "a".to_owned()];
    assert_eq!(check(&history), [Violation::EndedTwice { job: "j".to_owned(), leases }]);
}

#[test]
fn a_job_handed_out_after_its_end_is_found() {
    let history = completes(begun(), "a", "1", Answer::Accepted).then(claimed(1, "j", "b", 6));
    let history = history.then(ended("j", "completed", Some("1")));
    assert_eq!(check(&history), [Violation::ClaimedAfterEnd { job: "j".to_owned(), lease: "b".to_owned() }]);
}

#[test]
fn an_older_lease_that_is_still_believed_is_found() {
    // The first lease was lost with its server, so handing the job out again was right; believing it afterwards is not.
    let history = begun().then(Event::Killed { boot: 0 });
    let (lease, job) = ("b".to_owned(), "j".to_owned());
    let again = Event::Claimed { boot: 1, sent: Duration::from_millis(5), lease_ms: 1000, lease, job, op: 1 };
    let history = history.then(again);
    let leases = ["a".to_owned(), "b".to_owned()];
    let wanted = Violation::StaleAccepted { job: "j".to_owned(), leases };
    let completed = completes(history.clone(), "a", "1", Answer::Accepted).then(ended("j", "completed", Some("1")));
    assert_eq!(check(&completed), std::slice::from_ref(&wanted));
    let renewed = history.then(Event::Renewed { lease: "a".to_owned(), sent: Duration::from_millis(6) });
    let renewed = completes(renewed, "b", "1", Answer::Accepted).then(ended("j", "completed", Some("1")));
    assert_eq!(check(&renewed), [wanted]);
}

#[test]
fn two_leases_at_once_are_found_and_a_lease_after_expiry_release_or_kill_is_none() {
    let two = |history: History| {
        let history = completes(history, "b", "1", Answer::Accepted).then(ended("j", "completed", Some("1")));
        check(&history).iter().any(|one| matches!(one, Violation::TwoLeases { .. }))
    };
    assert!(two(begun().then(claimed(1, "j", "b", 3))));
    assert!(!two(finishes(begun(), "a", Finish::Release, Answer::Accepted).then(claimed(1, "j", "b", 5))));
    assert!(!two(begun().then(Event::Killed { boot: 0 }).then(claimed(1, "j", "b", 5))));
    let mut later = begun();
    later.events.push((Duration::from_millis(1500), claimed(1, "j", "b", 1400)));
    assert!(!two(later.clone()), "the first had run out");
    let beat = Event::Renewed { lease: "a".to_owned(), sent: Duration::from_millis(900) };
    later.events.insert(3, (Duration::from_millis(950), beat));
    assert!(two(later), "the first had been renewed");
}

#[test]
fn two_live_jobs_under_one_dedup_key_are_found() {
    let history = History::default().then(sent_as(1, "x")).then(accepted(1, "j")).then(sent_as(2, "x"));
    let both = history.clone().then(accepted(2, "k"));
    let found = check(&both);
    let wanted = Violation::TwoLive { dedup: "x".to_owned(), jobs: ["j".to_owned(), "k".to_owned()] };
    assert!(found.contains(&wanted), "{found:?}");
    let after = completes(history.then(claimed(1, "j", "a", 3)), "a", "1", Answer::Accepted).then(accepted(2, "k"));
    assert!(!check(&after).contains(&wanted), "the first had ended");
    let early = History::default().then(sent_as(1, "x")).then(claimed(1, "j", "a", 1)).then(sent_as(2, "x"));
    let early = completes(early, "a", "1", Answer::Accepted).then(accepted(2, "k")).then(accepted(1, "j"));
    assert!(
        !check(&early).iter().any(|one| matches!(one, Violation::TwoLive { .. })),
        "done before it was acknowledged"
    );
}
