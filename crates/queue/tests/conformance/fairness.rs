//! Keys share the queue fairly.

use tidegate_queue::{Config, NewJob, Outcome};

use super::{Opening, World, job, kinds, with};

async fn push_keyed(world: &World, kind: &str, key: &str, count: usize) {
    let jobs: Vec<NewJob> = (0..count).map(|_| job(kind).key(key)).collect();
    world.queue.push_many(jobs, None).await.unwrap();
}

pub async fn a_hot_key_does_not_starve_others(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    push_keyed(&world, "hot", "hot", 1000).await;
    push_keyed(&world, "cold", "cold", 2).await;
    assert_eq!(kinds(&world.claim(5).await), ["hot", "cold", "hot", "cold", "hot"]);
}

pub async fn a_key_at_its_limit_is_passed_over(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.key_limit = Some(2))).await;
    push_keyed(&world, "hot", "hot", 10).await;
    push_keyed(&world, "cold", "cold", 1).await;
    assert_eq!(kinds(&world.claim(10).await), ["hot", "cold", "hot"]);
    assert!(world.claim(10).await.is_empty());
}

pub async fn a_key_gets_room_when_its_job_ends(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.key_limit = Some(1))).await;
    push_keyed(&world, "a", "a", 4).await;
    for _ in 0..2 {
        let claimed = world.one().await;
        assert!(world.claim(1).await.is_empty());
        assert_eq!(world.complete(claimed.lease).await, Outcome::Ok);
    }
    // A dead worker frees its slot as well.
    world.one().await;
    world.pass(super::LEASE).await;
    assert_eq!(world.claim(5).await.len(), 1);
}

pub async fn urgency_counts_within_a_key(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.key_limit = Some(1))).await;
    world.push(job("later").key("a")).await;
    world.push(job("urgent").key("a").priority(1)).await;
    let first = world.one().await;
    assert_eq!(&*first.kind, "urgent");
    world.complete(first.lease).await;
    assert_eq!(&*world.one().await.kind, "later");
}

pub async fn jobs_without_a_key_take_turns_with_keys(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, |_| {}).await;
    push_keyed(&world, "hot", "hot", 3).await;
    for _ in 0..3 {
        world.push(job("free")).await;
    }
    assert_eq!(kinds(&world.claim(6).await), ["hot", "free", "free", "free", "hot", "hot"]);
}

pub async fn the_running_limit_holds_over_all_keys(open: impl Fn(Config) -> Opening + 'static) {
    let world = World::new(open, with(|queue| queue.running_limit = Some(2))).await;
    push_keyed(&world, "a", "a", 2).await;
    world.push(job("free")).await;
    let running = world.claim(10).await;
    assert_eq!(running.len(), 2);
    assert!(world.claim(10).await.is_empty());
    world.complete(running[0].lease).await;
    assert_eq!(world.claim(10).await.len(), 1);
}
