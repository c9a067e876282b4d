//! What a queue promises, once for every backend. `conformance!(open)` turns each case into a test of the backend that
//! `open` builds; a case never asks which one it is.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use tidegate_queue::{
    Claim, Claimed, Clock, Config, Finish, Lease, ManualClock, NewJob, Outcome, Queue, QueueConfig, QueueName, Queues,
    Retry, State, UnixMillis, Worker,
};

pub mod fairness;
pub mod leases;
pub mod limits;
pub mod looking;
pub mod pushing;
pub mod restart;
pub mod table;

pub type Opening = Pin<Box<dyn Future<Output = Queues>>>;

/// A handle that can be let go of, as a stopped process lets go of everything.
pub struct Held<T>(Option<T>);

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held between starts")
    }
}

/// A backend in a world whose clock is moved by hand.
pub struct World {
    pub queues: Held<Queues>,
    pub queue: Held<Queue>,
    pub clock: ManualClock,
    config: Config,
    reopen: Box<dyn Fn(Config) -> Opening>,
}

impl World {
    /// `open` is called for every start; what it keeps durable it keeps between calls.
    pub async fn new(open: impl Fn(Config) -> Opening + 'static, tune: impl FnOnce(&mut Config)) -> Self {
        let clock = ManualClock::new(UnixMillis(1_700_000_000_000));
        let mut config = Config { clock: Clock::Manual(clock.clone()), seed: Some(1), ..Config::default() };
        tune(&mut config);
        let queues = open(config.clone()).await;
        let queue = queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
        Self { queues: Held(Some(queues)), queue: Held(Some(queue)), clock, config, reopen: Box::new(open) }
    }

    /// Stops and starts again.
    pub async fn restart(&mut self) {
        self.queues.close().await.unwrap();
        (self.queues, self.queue) = (Held(None), Held(None));
        self.queues = Held(Some((self.reopen)(self.config.clone()).await));
        self.switch("q").await;
    }

    /// Goes on with another queue.
    pub async fn switch(&mut self, name: &str) {
        self.queue = Held(Some(self.queues.queue(&QueueName::new(name).unwrap()).await.unwrap()));
    }

    pub async fn push(&self, job: NewJob) -> String {
        self.queue.push(job).await.unwrap().id.to_string()
    }

    pub async fn claim(&self, limit: usize) -> Vec<Claimed> {
        self.claim_as(Worker::remote("w"), limit).await
    }

    pub async fn claim_as(&self, worker: Worker, limit: usize) -> Vec<Claimed> {
        self.queue.claim(Claim { worker, limit, wait: Duration::ZERO }).await.unwrap()
    }

    /// Claims one job that must be there.
    pub async fn one(&self) -> Claimed {
        self.claim(1).await.pop().expect("a job is available")
    }

    pub async fn state(&self, id: &str) -> State {
        self.queues.job(&id.parse().unwrap()).await.unwrap().state
    }

    pub async fn complete(&self, lease: Lease) -> Outcome {
        self.finish(Finish::Complete { lease, result: None }).await
    }

    pub async fn fail(&self, lease: Lease, retry: Retry) -> Outcome {
        self.finish(Finish::Fail { lease, error: "no luck".into(), retry }).await
    }

    pub async fn finish(&self, finish: Finish) -> Outcome {
        self.queue.finish(vec![finish]).await.unwrap()[0]
    }

    pub async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.queue.upkeep().await.unwrap();
    }
}

pub const LEASE: Duration = Duration::from_secs(10);

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn job(kind: &str) -> NewJob {
    NewJob::new(kind, "{}")
}

/// The ids of claimed jobs, in order.
pub fn ids(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|job| job.id.to_string()).collect()
}

/// The kinds of claimed jobs, in order.
pub fn kinds(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|job| job.kind.to_string()).collect()
}

pub fn with(change: impl FnOnce(&mut QueueConfig)) -> impl FnOnce(&mut Config) {
    |config| change(&mut config.default)
}

/// One test per case and backend.
#[macro_export]
macro_rules! cases {
    ($open:path; $($module:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $case() {
                $crate::conformance::$module::$case($open()).await;
            })+
        })+
    };
}

/// What every backend promises.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::cases! { $open;
            pushing: a_job_comes_back_byte_for_byte, large_payloads_and_results_come_back_byte_for_byte,
                more_urgent_jobs_run_first_and_equals_in_order, a_delayed_job_waits_for_its_time,
                the_later_of_run_at_and_delay_counts, a_job_that_does_not_start_in_time_expires,
                a_live_duplicate_is_answered_with_the_first, a_dedup_window_ends_before_the_job_does,
                a_repeated_submission_answers_with_the_first, values_out_of_range_are_refused_by_name,
                many_are_judged_each_on_its_own;
            leases: a_lease_is_good_once, a_lease_named_twice_in_one_call_ends_its_job_once,
                a_lease_of_another_queue_opens_nothing, an_expired_lease_is_rescued_at_its_old_place,
                a_beat_keeps_a_job_for_as_long_as_it_takes, a_job_that_kills_its_workers_runs_out_of_attempts,
                an_attempt_past_its_deadline_is_told_and_then_failed, a_released_job_keeps_its_attempt_and_its_place,
                a_failed_job_waits_between_zero_and_its_backoff, retry_in_is_exact, a_failure_for_good_is_discarded,
                cancelling_a_running_job_reaches_its_worker, a_cancelled_job_that_completes_is_completed,
                a_cancel_is_answered_although_nothing_is_kept, progress_is_seen_and_clamped, a_waiting_claim_wakes_for_a_job,
                a_dropped_claim_leaves_nothing_behind, draining_answers_waiting_claims;
            fairness: a_hot_key_does_not_starve_others, a_key_at_its_limit_is_passed_over,
                a_key_gets_room_when_its_job_ends, urgency_counts_within_a_key, jobs_without_a_key_take_turns_with_keys,
                the_running_limit_holds_over_all_keys;
            limits: a_full_queue_says_so_and_when_to_come_back, bytes_are_bounded_too, the_oldest_gives_way_by_policy,
                the_newest_gives_way_by_policy, a_retry_that_does_not_fit_loses_nobody,
                finished_jobs_are_bounded_beside_cancelled_ones, finished_jobs_are_kept_for_their_retention,
                too_many_finished_push_out_completed_before_dead_letters, paused_queues_hand_out_nothing,
                a_purge_deletes_one_state_and_counts, there_are_only_so_many_queues, all_queues_together_are_bounded,
                a_claim_hands_out_only_so_many_bytes, a_claim_cut_by_its_bytes_does_not_put_the_next_to_sleep,
                idempotency_keys_are_bounded_by_their_jobs_too, history_is_bounded;
            looking: a_list_pages_through_a_state, a_list_filters_by_kind_and_key, the_log_can_be_replayed,
                stats_count_every_state, subscribers_see_what_happens, a_follower_hears_of_its_job_only,
                unknown_jobs_are_not_found;
            table: every_verb_answers_in_every_state;
            restart: everything_accepted_is_there_after_a_restart, a_lease_of_before_a_restart_is_stale_once_rescued,
                attempts_are_counted_over_restarts, pause_and_cancel_survive_a_restart,
                a_job_retried_by_hand_holds_its_dedup_key_over_a_restart, numbers_are_never_used_again, a_start_that_forgot_others_uses_none_of_their_numbers,
                the_dead_letter_set_survives_a_restart;
        }
    };
}
