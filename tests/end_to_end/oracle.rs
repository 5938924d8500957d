//! Random trees, changed at random, against an oracle that compares bytes.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::support::Sandbox;
use super::tree::{apply, brute_force, event};

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_scan_of_a_changing_tree_finds_what_brute_force_finds(
        rounds in prop::collection::vec(prop::collection::vec(event(), 1..60), 1..5),
        threads in 1..4_usize,
    ) {
        let sandbox = Sandbox::new();
        for events in &rounds {
            for event in events {
                apply(&sandbox.tree(), event);
            }
            let threads = threads.to_string();
            sandbox.run(["scan", "-q", "--threads", &threads, "--batch-size", "11", "tree"]).succeeds();
            prop_assert_eq!(sandbox.groups(), brute_force(&sandbox.tree()));
            let report = sandbox.report();
            prop_assert_eq!(&report["complete"], &serde_json::Value::Bool(true));
        }
    }
}
