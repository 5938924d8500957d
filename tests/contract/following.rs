//! The laws about what a watcher tells: moves, names that are gone, parts of a root, and who watches.

use std::time::Duration;

use dupfind::model::group::ReportFilter;
use dupfind::model::listing::{Absent, Coverage, Move, Problem};
use dupfind::model::path::VolumePath;
use dupfind::model::pending::{Finding, Job, SMALL_FILE, Scope, Stage};
use dupfind::model::scan::{ScanCounts, ScanKind, ScanStatus};
use dupfind::model::settings::HashPolicy;
use dupfind::model::stamp::{Nanos, Stamp};
use dupfind::model::upkeep::{NextReconciliation, Upkeep, WatchMode, WatchSign};

use super::backend::{Backend, HOST, World, entry, extent, hashed, outcomes, paths, sampled};

fn path(path: &str) -> VolumePath {
    VolumePath::new(path.as_bytes())
}

fn names(names: &[&str]) -> Vec<Box<[u8]>> {
    names.iter().map(|name| name.as_bytes().into()).collect()
}

impl World {
    /// What a watcher saw, written in one go.
    async fn follow(&self, moves: &[Move], listings: &[dupfind::model::listing::Listing]) -> ScanCounts {
        let mut writer = self.writer().await;
        let scan = writer.begin_scan(Some(self.root), ScanKind::Watch, None).await.unwrap();
        writer.write_moves(scan, moves).await.unwrap();
        let counts = writer.write_listings(scan, listings).await.unwrap().counts;
        writer.finish_parts(scan, self.root, &[], &[]).await.unwrap();
        writer.end_scan(scan, ScanStatus::Completed, &counts, None).await.unwrap();
        writer.close().await.unwrap();
        counts
    }

    fn move_of(&self, from: &str, to: &str, stamp: Option<Stamp>) -> Move {
        Move { volume: self.volume.clone(), from: path(from), to: path(to), stamp }
    }

    async fn everything(&self) -> Vec<String> {
        self.groups(&ReportFilter::default()).await
    }
}

pub(crate) async fn names_that_are_gone_take_what_was_below_them<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)]),
        world.whole("/r/d", vec![entry("c", 5, 3)]),
        world.whole("/r/d/e", vec![entry("f", 5, 4)]),
        world.whole("/r/d-not", vec![entry("g", 5, 5)]),
    ];
    world.scan(&listings).await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    let absent =
        Absent { files: names(&["a", "d", "never"]), directories: names(&["a", "d"]), linked: Vec::new() };
    let counts = world.follow(&[], &[world.listing("/r", Coverage::Selected(absent), vec![])]).await;
    assert_eq!(counts.removed, 3);
    assert_eq!(world.everything().await, ["5: /r/b /r/d-not/g"]);
    // What is there again is new.
    world
        .follow(&[], &[world.listing("/r", Coverage::Selected(Absent::default()), vec![entry("a", 5, 1)])])
        .await;
    assert_eq!(world.pending(Stage::Size).await, [["/r/a"]]);
}

pub(crate) async fn a_directory_that_moved_keeps_all_that_is_known<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1)]),
        world.whole("/r/d", vec![entry("b", 5, 2)]),
        world.whole("/r/d/e", vec![entry("c", 5, 3)]),
        world.whole("/r/there", vec![entry("replaced", 5, 4)]),
    ];
    world.scan(&listings).await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    world
        .follow(&[world.move_of("/r/d", "/r/there", None), world.move_of("/r/none", "/r/nowhere", None)], &[])
        .await;
    assert_eq!(world.everything().await, ["5: /r/a /r/there/b /r/there/e/c"]);
    assert!(world.jobs(Stage::Size).await.is_empty());
    let (_, counts) = world
        .scan(&[
            world.whole("/r", vec![entry("a", 5, 1)]),
            world.whole("/r/there", vec![entry("b", 5, 2)]),
            world.whole("/r/there/e", vec![entry("c", 5, 3)]),
        ])
        .await;
    assert!(!counts.have_changes(), "{counts:?}");
}

pub(crate) async fn a_file_that_moved_keeps_its_hash_if_it_is_what_it_was<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let files = ["a", "b", "c", "d"].iter().zip(1..).map(|(name, inode)| entry(name, 5, inode));
    world.scan(&[world.whole("/r", files.collect()), world.whole("/r/new", vec![entry("x", 9, 9)])]).await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    let stamp = |inode, mtime| Stamp { size: 5, mtime: Nanos(mtime), ctime: Nanos(7_000), inode };
    let moves = [
        world.move_of("/r/a", "/r/new/x", Some(stamp(1, 1_000))),
        // Another file has its name by now, or it was written to.
        world.move_of("/r/b", "/r/bb", Some(stamp(77, 1_000))),
        world.move_of("/r/c", "/r/cc", Some(stamp(3, 1_001))),
    ];
    world.follow(&moves, &[]).await;
    assert_eq!(world.everything().await, ["5: /r/b /r/c /r/d /r/new/x"]);
    // Its new ctime is known: looked at, it is unchanged.
    let mut seen = entry("x", 5, 1);
    seen.stamp.ctime = Nanos(7_000);
    let listing = world.listing("/r/new", Coverage::Selected(Absent::default()), vec![seen]);
    assert!(!world.follow(&[], &[listing]).await.have_changes());
    assert_eq!(world.index.count_files().await.unwrap().0, 4);
}

pub(crate) async fn a_part_is_walked_and_the_rest_is_left<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let whole = [
        world.whole("/r", vec![entry("a", 5, 1)]),
        world.whole("/r/d", vec![entry("b", 5, 2)]),
        world.whole("/r/d/gone", vec![entry("c", 5, 3)]),
        world.whole("/r/other", vec![entry("e", 5, 4)]),
    ];
    world.scan(&whole).await;
    let mut writer = world.writer().await;
    let within = path("/r/d");
    let scan = writer.begin_scan(Some(world.root), ScanKind::Reconcile, Some(&within)).await.unwrap();
    writer.write_listings(scan, &[world.whole("/r/d", vec![entry("b", 5, 2)])]).await.unwrap();
    let parts = [extent(world.volume_id, "/r/d")];
    assert_eq!(writer.finish_parts(scan, world.root, &parts, &[]).await.unwrap(), 1);
    writer.end_scan(scan, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(world.index.count_files().await.unwrap().0, 3);
    let root = &world.index.roots().await.unwrap()[0];
    assert_eq!(root.extents, [extent(world.volume_id, "/r")], "a part is no place of its own");
    assert_ne!(root.last_scan.as_ref().unwrap().id, scan, "a part says nothing about the root");
}

pub(crate) async fn a_scan_that_goes_on_is_newer_than_all_before<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let mut writer = world.writer().await;
    let first = writer.begin_scan(Some(world.root), ScanKind::Watch, None).await.unwrap();
    writer.end_scan(first, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
    let other = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    writer.finish_discovery(other, None, &[], &[]).await.unwrap();
    writer.end_scan(other, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
    let again = writer.continue_scan(first).await.unwrap();
    assert!(again > other);
    let counts = ScanCounts { events: 3, added: 2, ..ScanCounts::default() };
    writer.end_scan(again, ScanStatus::Completed, &counts, None).await.unwrap();
    let next = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    assert!(next > again);
    writer.end_scan(next, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
    writer.close().await.unwrap();
    let filter = dupfind::model::history::HistoryFilter { root: None, limit: 10 };
    let runs = world.index.history(filter).await.unwrap();
    let kinds: Vec<_> = runs.iter().map(|run| (run.id, run.kind, run.counts.events)).collect();
    assert_eq!(kinds, [(next, ScanKind::Scan, 0), (again, ScanKind::Watch, 3), (other, ScanKind::Scan, 0)]);
}

pub(crate) async fn only_named_directories_of_a_scope_need_anything<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1)]),
        world.whole("/r/d", vec![entry("b", 5, 2), entry("c", 9, 3)]),
        world.whole("/r/d/e", vec![entry("f", 9, 4)]),
    ];
    world.scan(&listings).await;
    let scope = |directory: &str| Scope {
        extents: Vec::new(),
        directories: vec![extent(world.volume_id, directory)],
        ..world.everywhere()
    };
    let sizes = async |scope: &Scope| -> Vec<u64> {
        world.jobs_in(Stage::Size, scope).await.iter().map(|job| job.stamp.size).collect()
    };
    assert_eq!(sizes(&scope("/r")).await, [5, 5]);
    B::outwait_the_dead().await;
    assert_eq!(sizes(&scope("/r/d/none")).await, [0; 0]);
}

pub(crate) async fn a_small_scope_needs_the_same_however_it_is_found<B: Backend + 'static>() {
    let large = SMALL_FILE + 1;
    for is_expected in [false, true] {
        let world = World::new::<B>().await;
        world.put_root("/r/never", HashPolicy::None).await;
        // So many that a look at each is not worth its while.
        let rest = (0..500).map(|number| entry(&format!("{number}"), 1000 + number, 1000 + number));
        let mut listings = vec![
            world.whole("/r", rest.collect()),
            world.whole("/r/far", vec![entry("a", 5, 1), entry("b", 6, 2), entry("x", large, 3)]),
            world.whole("/r/never", vec![entry("a", 5, 4), entry("c", 8, 5), entry("z", large + 1, 6)]),
            world.whole(
                "/r/here",
                vec![
                    entry("a", 5, 10),
                    entry("c", 8, 11),
                    entry("d", 7, 12),
                    entry("e", 7, 13),
                    entry("link", 9, 14),
                    entry("of", 9, 14),
                    entry("x", large, 15),
                    entry("y", large, 16),
                    entry("z", large + 1, 17),
                ],
            ),
        ];
        world.scan(&listings).await;
        let mut writer = world.writer().await;
        if is_expected {
            writer.expect_small_scopes().await.unwrap();
            writer.expect_small_scopes().await.unwrap();
        }
        writer.close().await.unwrap();
        let here = Scope {
            extents: Vec::new(),
            directories: vec![extent(world.volume_id, "/r/here")],
            ..world.everywhere()
        };
        let answer = async |stage: Stage| {
            let jobs = world.jobs_in(stage, &here).await;
            let told: Vec<String> = jobs.iter().flat_map(paths).collect();
            let finding = |job: &Job| match (stage, job.stamp.inode) {
                (Stage::Size, 3 | 15) => sampled(1),
                (Stage::Size, 16) => sampled(2),
                (Stage::Size, 12) => Finding::Failed(Problem::Vanished),
                _ => hashed(1),
            };
            let answers: Vec<_> = jobs.iter().flat_map(|job| outcomes(job, &finding(job))).collect();
            let mut writer = world.writer().await;
            writer.write_outcomes(answers).await.unwrap();
            writer.commit().await.unwrap();
            writer.close().await.unwrap();
            told
        };
        let by_size =
            ["/r/far/a", "/r/far/x", "/r/here/a", "/r/here/d", "/r/here/e", "/r/here/x", "/r/here/y"];
        assert_eq!(answer(Stage::Size).await, by_size, "{is_expected}");
        assert_eq!(answer(Stage::Sample).await, ["/r/far/x", "/r/here/x"], "{is_expected}");
        assert_eq!(answer(Stage::Size).await, ["/r/here/d"], "what failed is tried again: {is_expected}");
        assert_eq!(world.groups(&ReportFilter::default()).await.len(), 2, "{is_expected}");

        // Who writes much may undo it.
        let many = (0..20_000).map(|number| entry(&format!("{number}"), 50_000 + number, 50_000 + number));
        listings.push(world.whole("/r/many", many.collect()));
        world.scan(&listings).await;
        assert_eq!(answer(Stage::Size).await, ["/r/here/d"], "{is_expected}");
    }
}

pub(crate) async fn the_names_of_a_physical_file_are_found<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, u64::MAX)]),
        world.whole("/r/d", vec![entry("c", 5, 1), entry("e", 5, 2)]),
    ];
    world.scan(&listings).await;
    let found = world.index.names_of(&[(world.volume_id, 1), (world.volume_id, u64::MAX)]).await.unwrap();
    let mut found: Vec<_> = found.iter().map(|it| String::from_utf8_lossy(&it.name).into_owned()).collect();
    found.sort();
    assert_eq!(found, ["a", "b", "c"]);
    let asked = [
        (extent(world.volume_id, "/r/d"), b"e".as_slice().into()),
        (extent(world.volume_id, "/r"), b"e".as_slice().into()),
    ];
    let known = world.index.known_names(&asked).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].stamp, &*known[0].name), (entry("e", 5, 2).stamp, b"e".as_slice()));
}

pub(crate) async fn who_watches_is_said_and_taken_back<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let upkeep =
        Upkeep { watch: true, interval: Some(3600), first: vec!["x".to_owned()], ..Upkeep::default() };
    let mut writer = world.writer().await;
    writer.put_upkeep(world.root, &upkeep).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(world.index.roots().await.unwrap()[0].upkeep, upkeep);
    // While somebody else has the right to write.
    let next = NextReconciliation { at: Nanos(5_000), reason: "every hour".to_owned() };
    let mut sign = WatchSign {
        root: world.root,
        mode: WatchMode::Polled("nfs sends no events".to_owned()),
        since: Nanos(1_000),
        events: 7,
        next: Some(next.clone()),
    };
    world.index.sign_watches(HOST, std::slice::from_ref(&sign)).await.unwrap();
    let watches = world.index.watches().await.unwrap();
    assert_eq!((watches.len(), watches[0].is_alive, watches[0].events), (1, true, 7));
    assert_eq!((&watches[0].mode, &watches[0].next), (&sign.mode, &Some(next)));
    assert!(watches[0].silence < Duration::from_secs(20));
    sign.mode = WatchMode::Live;
    world.index.sign_watches(HOST, &[sign]).await.unwrap();
    assert_eq!(world.index.watches().await.unwrap()[0].mode, WatchMode::Live);
    world.index.end_watches("another", &[world.root]).await.unwrap();
    assert_eq!(world.index.watches().await.unwrap().len(), 1);
    world.index.end_watches(HOST, &[world.root]).await.unwrap();
    assert_eq!(world.index.watches().await.unwrap(), []);
    writer.close().await.unwrap();
}
