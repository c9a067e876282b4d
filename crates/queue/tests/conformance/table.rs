//! Every verb in every state.

use tidegate_queue::{Config, Error, Finish, Lease, Outcome, Progress, Retry, State, Worker};

use super::{Opening, World, job, secs};

/// What a verb did: accepted, refused as stale, refused as a conflict, or had nothing to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Did {
    Ok,
    Stale,
    Conflict,
    Nothing,
    Invalid,
}

const VERBS: [&str; 10] =
    ["complete", "retry later", "fail for good", "release", "beat", "progress", "claim", "cancel", "retry", "purge"];

/// Brings a job into a state; the lease is the last one it had, or one that never was.
async fn bring(world: &World, state: State) -> (String, Lease) {
    let delay = if state == State::Scheduled { secs(60) } else { secs(0) };
    let id = world.push(job("k").delay(delay)).await;
    if matches!(state, State::Scheduled | State::Available) {
        return (id, "1.1.1".parse().unwrap());
    }
    let lease = world.one().await.lease;
    match state {
        State::Retryable => _ = world.fail(lease, Retry::In(secs(60))).await,
        State::Completed => _ = world.complete(lease).await,
        State::Discarded => _ = world.fail(lease, Retry::Never).await,
        State::Cancelled => {
            world.fail(lease, Retry::In(secs(60))).await;
            world.queues.cancel(&id.parse().unwrap()).await.unwrap();
        }
        _ => {}
    }
    (id, lease)
}

async fn run(world: &World, verb: &str, id: &str, lease: Lease, state: State) -> Did {
    let outcome = |outcome| if outcome == Outcome::Ok { Did::Ok } else { Did::Stale };
    let answer = |answer: Result<_, Error>| match answer {
        Ok(_) => Did::Ok,
        Err(Error::Conflict { .. }) => Did::Conflict,
        Err(other) => panic!("{other}"),
    };
    match verb {
        "complete" => outcome(world.complete(lease).await),
        "retry later" => outcome(world.fail(lease, Retry::In(secs(5))).await),
        "fail for good" => outcome(world.fail(lease, Retry::Never).await),
        "release" => outcome(world.finish(Finish::Release { lease }).await),
        "beat" => {
            let beat = world.queue.beat(&Worker::remote("w"), &[lease]).await.unwrap();
            if beat.stale.is_empty() { Did::Ok } else { Did::Stale }
        }
        "progress" => {
            outcome(world.queue.progress(vec![Progress { lease, progress: 0.1, note: None }]).await.unwrap()[0])
        }
        "claim" => {
            if world.claim(1).await.is_empty() {
                Did::Nothing
            } else {
                Did::Ok
            }
        }
        "cancel" => answer(world.queues.cancel(&id.parse().unwrap()).await),
        "retry" => answer(world.queues.retry(&id.parse().unwrap()).await),
        "purge" => match world.queue.purge(state).await {
            Ok(count) => {
                if count == 1 {
                    Did::Ok
                } else {
                    Did::Nothing
                }
            }
            Err(Error::Invalid { .. }) => Did::Invalid,
            Err(other) => panic!("{other}"),
        },
        _ => unreachable!("{verb}"),
    }
}

/// What a verb must do in a state, and where the job is then; `None`: its record is gone.
fn expected(verb: &str, state: State) -> (Did, Option<State>) {
    use State::{Available, Cancelled, Completed, Discarded, Retryable, Running, Scheduled};
    let stays = Some(state);
    match (verb, state) {
        ("complete", Running) => (Did::Ok, Some(Completed)),
        ("retry later", Running) => (Did::Ok, Some(Retryable)),
        ("fail for good", Running) => (Did::Ok, Some(Discarded)),
        ("release", Running) => (Did::Ok, Some(Available)),
        ("beat" | "progress", Running) => (Did::Ok, stays),
        ("complete" | "retry later" | "fail for good" | "release" | "beat" | "progress", _) => (Did::Stale, stays),
        ("claim", Available) => (Did::Ok, Some(Running)),
        ("claim", _) => (Did::Nothing, stays),
        ("cancel", Scheduled | Available | Retryable | Cancelled) => (Did::Ok, Some(Cancelled)),
        ("cancel", Running) => (Did::Ok, stays),
        ("cancel", Completed | Discarded) => (Did::Conflict, stays),
        ("retry", Cancelled | Discarded) => (Did::Ok, Some(Available)),
        ("retry", _) => (Did::Conflict, stays),
        ("purge", Running) => (Did::Invalid, stays),
        ("purge", _) => (Did::Ok, None),
        _ => unreachable!("{verb}"),
    }
}

pub async fn every_verb_answers_in_every_state(open: impl Fn(Config) -> Opening + 'static) {
    let mut world = World::new(open, |_| {}).await;
    for verb in VERBS {
        for state in State::ALL {
            world.switch(&format!("{verb}-{state:?}").replace(' ', "-")).await;
            let (id, lease) = bring(&world, state).await;
            assert_eq!(world.state(&id).await, state);
            let (did, after) = expected(verb, state);
            assert_eq!(run(&world, verb, &id, lease, state).await, did, "{verb} of a job that is {state:?}");
            assert_eq!(
                world.queues.job(&id.parse().unwrap()).await.ok().map(|job| job.state),
                after,
                "{verb} after {state:?}"
            );
            if let Some(after) = after {
                assert!(state == after || state.can_become(after), "{state:?} → {after:?} is not in the table");
            }
        }
        world.restart().await;
    }
}
