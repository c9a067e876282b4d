//! The conformance suite on the embedded backend, in memory and on disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "shared by the suites of all backends")]
mod conformance;

use std::rc::Rc;

use conformance::Opening;
use tidegate_metrics::Registry;
use tidegate_queue::{Config, Queues, TABLES};
use tidegate_store::Store;

/// Every start is on the same memory.
fn memory() -> impl Fn(Config) -> Opening + 'static {
    let store = Store::memory(TABLES);
    move |config| {
        let store = store.clone();
        Box::pin(async move { Queues::open(store, config, &Registry::new()).await.unwrap() })
    }
}

/// Every start is on the same folder.
fn disk() -> impl Fn(Config) -> Opening + 'static {
    let folder = Rc::new(tempfile::tempdir().unwrap());
    move |config| {
        let folder = Rc::clone(&folder);
        Box::pin(async move {
            let registry = Registry::new();
            let store = Store::open(tidegate_store::Config::new(folder.path()), TABLES, &registry).unwrap();
            Queues::open(store, config, &registry).await.unwrap()
        })
    }
}

macro_rules! on {
    ($name:ident) => {
        mod $name {
            crate::conformance! { crate::$name;
                pushing: a_job_comes_back_byte_for_byte, large_payloads_and_results_come_back_byte_for_byte,
                    more_urgent_jobs_run_first_and_equals_in_order, a_delayed_job_waits_for_its_time,
                    the_later_of_run_at_and_delay_counts, a_job_that_does_not_start_in_time_expires,
                    a_live_duplicate_is_answered_with_the_first, a_dedup_window_ends_before_the_job_does,
                    a_repeated_submission_answers_with_the_first, values_out_of_range_are_refused_by_name,
                    many_are_judged_each_on_its_own;
                leases: a_lease_is_good_once, a_lease_of_another_queue_opens_nothing, an_expired_lease_is_rescued_at_its_old_place,
                    a_beat_keeps_a_job_for_as_long_as_it_takes, a_job_that_kills_its_workers_runs_out_of_attempts,
                    an_attempt_past_its_deadline_is_told_and_then_failed, a_released_job_keeps_its_attempt_and_its_place,
                    a_failed_job_waits_between_zero_and_its_backoff, retry_in_is_exact, a_failure_for_good_is_discarded,
                    cancelling_a_running_job_reaches_its_worker, a_cancelled_job_that_completes_is_completed, a_cancel_is_answered_although_nothing_is_kept,
                    progress_is_seen_and_clamped, a_waiting_claim_wakes_for_a_job, setting_the_clock_neither_ends_nor_stretches_a_lease, a_dropped_claim_leaves_nothing_behind,
                    draining_answers_waiting_claims;
                fairness: a_hot_key_does_not_starve_others, a_key_at_its_limit_is_passed_over,
                    a_key_gets_room_when_its_job_ends, urgency_counts_within_a_key, jobs_without_a_key_take_turns_with_keys,
                    the_running_limit_holds_over_all_keys;
                limits: a_full_queue_says_so_and_when_to_come_back, bytes_are_bounded_too, the_oldest_gives_way_by_policy,
                    the_newest_gives_way_by_policy, finished_jobs_are_kept_for_their_retention,
                    too_many_finished_push_out_completed_before_dead_letters, paused_queues_hand_out_nothing,
                    a_purge_deletes_one_state_and_counts, there_are_only_so_many_queues, all_queues_together_are_bounded, a_claim_hands_out_only_so_many_bytes, idempotency_keys_are_bounded_by_their_jobs_too, history_is_bounded;
                looking: a_list_pages_through_a_state, a_list_filters_by_kind_and_key, the_log_can_be_replayed,
                    stats_count_every_state, subscribers_see_what_happens, a_follower_hears_of_its_job_only, unknown_jobs_are_not_found;
                table: every_verb_answers_in_every_state;
                restart: everything_accepted_is_there_after_a_restart, a_remote_worker_keeps_its_lease_over_a_restart,
                    a_local_worker_does_not, a_lease_of_before_a_restart_is_stale_once_rescued,
                    attempts_are_counted_over_restarts, pause_and_cancel_survive_a_restart,
                    numbers_are_never_used_again, a_start_that_forgot_others_uses_none_of_their_numbers, the_dead_letter_set_survives_a_restart;
            }
        }
    };
}

on!(memory);
on!(disk);
