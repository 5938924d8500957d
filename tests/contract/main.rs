//! What every index has to do, whatever database it lives in.
//!
//! Each test is written once, over a [`Backend`], and runs on each of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backend;
mod catalog;
mod files;
mod following;
mod history;
mod laws;
mod policies;
mod rot;
#[path = "../server/mod.rs"]
mod server;

use backend::{Postgres, Sqlite};

macro_rules! contract {
    ($($code:ident { $($law:ident)* })*) => {
        mod sqlite {
            use super::*;

            $($(
                #[tokio::test(flavor = "local")]
                async fn $law() {
                    $code::$law::<Sqlite>().await;
                }
            )*)*
        }

        mod postgres {
            use super::*;

            $($(
                #[tokio::test(flavor = "local")]
                async fn $law() {
                    $code::$law::<Postgres>().await;
                }
            )*)*
        }
    };
}

contract! {
    laws {
        a_new_row_has_no_hash_and_an_unchanged_one_keeps_it
        each_part_of_a_stamp_resets_the_hash
        a_whole_listing_removes_what_it_does_not_hold_and_a_selection_does_not
        pieces_of_a_directory_are_one_listing
        an_unreadable_directory_keeps_its_rows_and_those_below
        finishing_removes_directories_that_were_not_listed
        finishing_spares_what_belongs_to_other_roots_and_other_volumes
        only_shared_sizes_are_pending_and_hard_links_are_one_job
        pending_is_limited_to_what_a_scope_needs_and_what_can_be_reached
        large_files_are_sampled_and_then_hashed_if_samples_are_shared
        outcomes_are_written_only_to_rows_that_did_not_change
        what_failed_is_counted_and_tried_again
        a_racy_hash_is_forgotten_by_the_next_listing
        a_null_hash_matches_nothing
        groups_are_of_physical_files_and_reports_are_ordered
        a_report_is_the_same_before_and_after_its_groups_are_kept
        a_walk_may_come_to_a_directory_again
        what_was_just_written_can_be_answered
        kept_figures_are_those_of_the_moment
        a_directory_is_compared_whenever_something_in_it_has_to_be_done
    }

    catalog {
        removing_a_root_forgets_what_only_it_covered
        scans_are_history_and_dead_ones_are_marked
        volumes_and_mounts_are_remembered_by_host
        a_subtree_is_known_by_the_directories_at_and_below_it
    }

    following {
        names_that_are_gone_take_what_was_below_them
        a_directory_that_moved_keeps_all_that_is_known
        a_file_that_moved_keeps_its_hash_if_it_is_what_it_was
        a_part_is_walked_and_the_rest_is_left
        a_scan_that_goes_on_is_newer_than_all_before
        only_named_directories_of_a_scope_need_anything
        a_small_scope_needs_the_same_however_it_is_found
        the_names_of_a_physical_file_are_found
        who_watches_is_said_and_taken_back
    }

    files {
        each_file_is_told_with_what_is_known_of_it
        files_come_by_directory_and_in_windows
        the_copies_of_a_file_are_those_of_the_report
        a_file_with_thousands_of_copies_has_them_all
        a_rotten_file_is_told_with_its_problem
    }

    history {
        every_run_is_told_as_it_was
        a_run_whose_process_died_is_told_as_interrupted_before_anybody_marks_it
        figures_develop_and_are_thinned
    }

    policies {
        what_is_never_read_is_neither_candidate_nor_partner
        a_directory_goes_by_the_nearest_root_around_it
        what_went_wrong_with_a_file_that_is_not_read_any_more_is_forgotten
        what_was_chosen_before_is_not_read_where_nothing_is_read_now
    }

    rot {
        what_has_a_hash_is_read_again_in_physical_order
        a_rotten_file_matches_nothing_and_no_scan_takes_it_for_sound
        a_file_in_place_of_a_rotten_one_is_known_by_its_hash
        findings_end_with_their_files
        a_finding_follows_a_file_that_is_renamed
        a_finding_follows_a_move_that_was_seen
        what_has_a_hash_is_verified_where_nothing_is_read
        what_was_chosen_before_it_was_found_rotten_is_not_read
        accepted_rot_is_sound
        what_cannot_be_read_again_is_compared_when_it_can
        a_large_rotten_file_finds_its_copies_and_is_found
        only_what_has_the_stamp_still_is_found_rotten
        samples_in_a_row_reach_everything_once
        a_verification_keeps_nobody_from_walking_and_is_no_walk
    }
}

/// In PostgreSQL each call lasts when it returns.
#[tokio::test(flavor = "local")]
async fn in_sqlite_nothing_lasts_without_a_commit() {
    laws::nothing_lasts_without_a_commit::<Sqlite>().await;
}

/// A server that refuses a statement for its size gets smaller ones, until it takes them.
#[tokio::test(flavor = "local")]
async fn in_postgres_a_statement_too_large_is_sent_in_smaller_pieces() {
    laws::what_is_refused_for_its_size_is_sent_in_pieces().await;
}

/// What a verification is to read is in the database, for others to clear away.
#[tokio::test(flavor = "local")]
async fn in_postgres_a_run_that_was_taken_for_dead_does_not_come_to_its_end() {
    rot::a_run_that_was_taken_for_dead_does_not_come_to_its_end::<Postgres>().await;
}

/// A worker whose line was cut while it took a lease holds it without knowing.
#[tokio::test(flavor = "local")]
async fn in_postgres_a_lease_taken_unknown_to_its_holder_is_read() {
    laws::a_lease_that_was_taken_unknown_to_its_holder_is_read().await;
}
