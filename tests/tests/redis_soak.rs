//! `kill -9` of servers that share one Redis, of that Redis, and of primaries whose replicas take over, all under load:
//! a few rounds of what the `soak` program does for long.

use tidegate_test_redis::Fsync;
use tidegate_tests::{
    Answer, Event, Finish, History, Judged, Place, Plan, Server, Soak, Violation, check, check_failovers,
};

/// Three servers, 8 workers. Redis has every write with the system before it answers, so that killing it loses nothing:
/// with `everysec` it holds writes back while an earlier sync is running, and what it has acknowledged meanwhile dies
/// with it. The soak measures how often that happens.
fn plan(place: Place) -> Plan {
    Plan {
        place,
        servers: 3,
        rounds: 4,
        redis_rounds: 2,
        outage_ms: (0, 500),
        submitters: 12,
        workers: 8,
        jobs_per_round: 3000,
        round_ms: (200, 700),
        seed: 20_263,
        plant: None,
    }
}

fn shown(history: &History, violations: &[Violation]) -> String {
    let evidence = violations.first().map(|first| history.about(&first.jobs()));
    format!("{} violations, first: {:#?}, {evidence:#?}", violations.len(), violations.first())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_servers_and_of_their_redis_under_load_break_no_promise() {
    let (history, figures) = Soak::run(plan(Place::Redis(Fsync::Always)), &Server::builder()).await;
    println!("{figures:?}");
    let violations = check(&history);
    assert!(violations.is_empty(), "{}", shown(&history, &violations));
    // A run that did nothing proves nothing.
    assert_eq!((figures.kills, figures.redis_kills), (4, 2));
    assert!(figures.acknowledged > 300 && figures.accepted > 300, "{figures:?}");
    let amid = (figures.kills_amid_submissions, figures.kills_amid_finishes);
    assert!(amid.0 >= 3 && amid.1 >= 2, "kills must come while calls are on their way: {figures:?}");
    assert!(figures.submits_unknown + figures.finishes_unknown > 0, "no kill left an answer unknown: {figures:?}");

    planted(&history);
}

/// Plants one bug at a time in the history of the live run.
fn planted(history: &History) {
    let of = |wanted: &str, event: &Event| match event {
        Event::Claimed { job, lease, op, .. } if job == wanted => Some((lease.clone(), *op)),
        _ => None,
    };
    let done = history.events.iter().find_map(|(_, event)| match event {
        Event::Final { job, status, .. } if status == "completed" => Some(job.clone()),
        _ => None,
    });
    let done = done.expect("a job was completed");
    let (lease, op) = history.events.iter().find_map(|(_, event)| of(&done, event)).expect("it was claimed");
    let claimed = history.events.iter().find(|(_, event)| of(&done, event).is_some()).expect("it was claimed").clone();

    let finds = |what: &str, history: &History, is_it: &dyn Fn(&Violation) -> bool| {
        let found = check(history);
        assert!(found.iter().any(is_it), "{what}: {found:?}");
    };
    let mut forgotten = history.clone();
    forgotten.events.retain(|(_, event)| !matches!(event, Event::Final { job, .. } if *job == done));
    finds("I1", &forgotten, &|one| *one == Violation::Lost { job: done.clone() });
    // A kill of a server excuses none of these where jobs outlive it.
    let second = |lease: &str, job: &str, op| Event::Claimed {
        boot: 0,
        sent: claimed.0,
        lease_ms: 1000,
        lease: lease.to_owned(),
        job: job.to_owned(),
        op,
    };
    let twice = history.clone().then(second("another", "never-accepted", op));
    finds("one key, two jobs", &twice, &|one| matches!(one, Violation::Doubled { op: doubled, .. } if *doubled == op));
    let reused = history.clone().then(second("another", &done, u64::MAX));
    finds("one id, two submissions", &reused, &|one| matches!(one, Violation::Reused { job, .. } if *job == done));
    let again = history.clone().then(second(&lease, &done, op));
    finds(
        "one lease, twice",
        &again,
        &|one| matches!(one, Violation::LeaseTwice { lease: name, .. } if *name == lease),
    );

    let mut both = history.clone();
    let at = both.events.iter().position(|event| *event == claimed).expect("it was claimed");
    both.events.insert(at + 1, (claimed.0, Event::ServerKilled { server: 0 }));
    both.events.insert(at + 2, (claimed.0, second("another", &done, op)));
    finds("I3", &both, &|one| matches!(one, Violation::TwoLeases { job, .. } if *job == done));
    let ended = history.clone().then(Event::FinishSent { lease: lease.clone(), finish: Finish::Discard });
    let ended = ended.then(Event::FinishAnswered { lease, answer: Answer::Accepted });
    finds("I2", &ended, &|one| matches!(one, Violation::EndedTwice { job, .. } if *job == done));
    let mut live = history.clone();
    let (at, _) = history.events[0];
    let submits = |op, job: &str| {
        let sent = (at, Event::SubmitSent { op, dedup: Some("same".to_owned()) });
        [sent, (at, Event::SubmitAccepted { op, job: job.to_owned(), duplicate: false })]
    };
    let at_once = [submits(u64::MAX, "one"), submits(u64::MAX - 1, "two")].concat();
    live.events.splice(0..0, at_once);
    finds("I4", &live, &|one| matches!(one, Violation::TwoLive { dedup, .. } if dedup == "same"));
}

/// Redis replicates after it has answered, so a failover may forget; what it forgets is bounded by what was acknowledged
/// after the last moment known to be on the replica, and no name is ever given again.
async fn failovers(place: Place) {
    // Two failovers and as many restarts take long enough on a busy machine.
    let plan = Plan { rounds: 1, redis_rounds: 1, outage_ms: (20, 200), ..plan(place) };
    let (history, figures) = Soak::run(plan, &Server::builder()).await;
    let Judged { forgotten, violations, at_risk, lost_before } = check_failovers(&history);
    let lost = forgotten.iter().filter(|one| matches!(one, Violation::Lost { .. })).count();
    println!("{figures:?}\n{lost} of {at_risk} at risk were lost, at most {lost_before:?} old; {}", forgotten.len());
    assert!(violations.is_empty(), "{}", shown(&history, &violations));
    assert_eq!(figures.redis_kills, 1);
    assert!(figures.acknowledged > 300 && figures.accepted > 300, "{figures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_a_cluster_under_load_forgets_only_what_was_not_replicated_and_gives_no_name_twice() {
    failovers(Place::Cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinels_under_load_forgets_only_what_was_not_replicated_and_gives_no_name_twice() {
    failovers(Place::Sentinel).await;
}
