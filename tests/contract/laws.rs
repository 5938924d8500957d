//! The laws.

use std::path::Path;

use dupfind::model::digest::{Digest, Sample};
use dupfind::model::group::{ReportFilter, SortBy};
use dupfind::model::listing::{Absent, Coverage, Entry, Problem};
use dupfind::model::pending::{FileId, FileKey, Finding, Outcome, SMALL_FILE, Scope, Stage, Unread};
use dupfind::model::scan::ScanKind;
use dupfind::model::settings::{HashPolicy, ScanSettings};
use dupfind::model::stamp::{Nanos, Stamp};

use super::backend::{Backend, HOST, World, entry, extent, hashed, mounted, outcomes, paths, sampled};

pub(crate) async fn a_new_row_has_no_hash_and_an_unchanged_one_keeps_it<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)])];
    let (_, counts) = world.scan(&listings).await;
    assert_eq!((counts.added, counts.updated, counts.removed), (2, 0, 0));
    assert_eq!(world.pending(Stage::Size).await, [["/r/a"], ["/r/b"]]);
    world.answer(Stage::Size, |_| hashed(7)).await;
    assert!(world.pending(Stage::Size).await.is_empty());
    let (_, counts) = world.scan(&listings).await;
    assert_eq!((counts.added, counts.updated, counts.removed), (0, 0, 0));
    assert!(world.pending(Stage::Size).await.is_empty());
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/b"]);
}

pub(crate) async fn each_part_of_a_stamp_resets_the_hash<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let original = entry("a", 5, 1);
    let stamp = original.stamp;
    let changes = [
        Stamp { size: 6, ..stamp },
        Stamp { mtime: Nanos(1_001), ..stamp },
        Stamp { ctime: Nanos(2_001), ..stamp },
        Stamp { inode: u64::MAX, ..stamp },
    ];
    for new_stamp in changes {
        let partner = |stamp: Stamp| Entry { stamp: Stamp { inode: 9, ..stamp }, ..entry("z", 0, 0) };
        world.scan(&[world.whole("/r", vec![original.clone(), partner(stamp)])]).await;
        world.answer(Stage::Size, |_| hashed(7)).await;
        let altered = Entry { stamp: new_stamp, ..original.clone() };
        let (_, counts) = world.scan(&[world.whole("/r", vec![altered.clone(), partner(stamp)])]).await;
        assert_eq!((counts.added, counts.updated), (0, 1));
        assert!(world.groups(&ReportFilter::default()).await.is_empty(), "{altered:?}");
    }
}

pub(crate) async fn a_whole_listing_removes_what_it_does_not_hold_and_a_selection_does_not<
    B: Backend + 'static,
>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r", vec![entry("a", 1, 1), entry("b", 2, 2), entry("c", 3, 3)])]).await;
    let (_, counts) = world.scan(&[world.whole("/r", vec![entry("b", 2, 2)])]).await;
    assert_eq!(counts.removed, 2);
    let mut writer = world.writer().await;
    let scan = writer.begin_scan(None, ScanKind::FilesFrom, None).await.unwrap();
    let named = world.listing("/r", Coverage::Selected(Absent::default()), vec![entry("d", 4, 4)]);
    let counts = writer.write_listings(scan, &[named]).await.unwrap().counts;
    assert_eq!((counts.added, counts.removed), (1, 0));
    writer.finish_discovery(scan, None, &[], &[]).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(world.index.extent_totals(&[extent(world.volume_id, "/r")]).await.unwrap().files, 2);
}

pub(crate) async fn pieces_of_a_directory_are_one_listing<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let name = |number: u64| entry(&format!("{number:05}"), number, number);
    let piece = |first, last, numbers: std::ops::Range<u64>| {
        world.listing("/r", Coverage::Piece { first, last }, numbers.map(name).collect())
    };
    let pieces =
        [piece(true, false, 0..2000), piece(false, false, 2000..4000), piece(false, true, 4000..4500)];
    let (_, counts) = world.scan(&pieces).await;
    assert_eq!((counts.added, counts.updated, counts.removed), (4500, 0, 0));
    let pieces = [piece(true, false, 0..1999), piece(false, true, 2001..4501)];
    let (_, counts) = world.scan(&pieces).await;
    assert_eq!((counts.added, counts.updated, counts.removed), (1, 0, 2));
}

pub(crate) async fn an_unreadable_directory_keeps_its_rows_and_those_below<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let below = [
        world.whole("/r", vec![entry("top", 1, 1)]),
        world.whole("/r/closed", vec![entry("a", 2, 2)]),
        world.whole("/r/closed/deep", vec![entry("b", 3, 3)]),
        world.whole("/r/closedness", vec![entry("c", 4, 4)]),
    ];
    world.scan(&below).await;
    let closed = world.listing("/r/closed", Coverage::Unreadable(Problem::PermissionDenied), Vec::new());
    let (_, counts) = world.scan(&[below[0].clone(), closed]).await;
    assert_eq!(counts.removed, 1, "only the directory whose name merely begins alike");
    let totals = world.index.extent_totals(&[extent(world.volume_id, "/r")]).await.unwrap();
    assert_eq!((totals.files, totals.problems), (3, 1));
    let places = world.index.places(HOST).await.unwrap();
    let problems = world.index.problems(&places, 10).await.unwrap();
    assert_eq!(
        (problems[0].path.as_path(), problems[0].problem.as_str()),
        (Path::new("/r/closed"), "permission denied")
    );
    world.scan(&below).await;
    assert!(world.index.problems(&places, 10).await.unwrap().is_empty());
}

pub(crate) async fn finishing_removes_directories_that_were_not_listed<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let top = world.whole("/r", vec![entry("a", 1, 1)]);
    world.scan(&[top.clone(), world.whole("/r/gone", vec![entry("b", 2, 2)])]).await;
    let (_, counts) = world.scan(&[top]).await;
    assert_eq!(counts.removed, 1);
    let totals = world.index.extent_totals(&[extent(world.volume_id, "")]).await.unwrap();
    assert_eq!((totals.directories, totals.files), (1, 1));
}

pub(crate) async fn finishing_spares_what_belongs_to_other_roots_and_other_volumes<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let usb = mounted("uuid:usb", "", "/r/usb");
    let mut writer = world.writer().await;
    let usb_id = writer.register_volume(HOST, &usb).await.unwrap();
    writer
        .put_root(&extent(world.volume_id, "/r/inner"), Path::new("/r/inner"), &ScanSettings::default())
        .await
        .unwrap();
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    let mut on_usb = world.whole("", vec![entry("u", 1, 1)]);
    on_usb.volume = usb;
    let listings =
        [world.whole("/r", vec![]), world.whole("/r/inner/deep", vec![entry("i", 1, 2)]), on_usb.clone()];
    writer.write_listings(scan, &listings).await.unwrap();
    let extents = [extent(world.volume_id, "/r"), extent(usb_id, "")];
    writer.finish_discovery(scan, Some(world.root), &extents, &[]).await.unwrap();
    writer.close().await.unwrap();

    // The disk is unplugged: the next walk does not enter it.
    let (_, counts) = world.scan(&[world.whole("/r", vec![])]).await;
    assert_eq!(counts.removed, 0);
    let totals = world.index.extent_totals(&extents).await.unwrap();
    assert_eq!(totals.files, 2);
}

pub(crate) async fn a_walk_may_come_to_a_directory_again<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let mut writer = world.writer().await;
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    let batches = [
        (vec![world.whole("/r", vec![entry("a", 1, 1)])], (1, 0)),
        (
            vec![world.whole("/r/x", vec![entry("b", 2, 2)]), world.whole("/r/y", vec![entry("c", 3, 3)])],
            (2, 0),
        ),
        (
            vec![world.whole("/r/z", vec![entry("d", 4, 4)]), world.whole("/r/x", vec![entry("e", 5, 5)])],
            (2, 1),
        ),
        (vec![world.whole("/r/w", vec![entry("f", 6, 6)])], (1, 0)),
    ];
    let mut ids = Vec::new();
    for (batch, (added, removed)) in batches {
        let written = writer.write_listings(scan, &batch).await.unwrap();
        assert_eq!((written.counts.added, written.counts.removed), (added, removed));
        ids.extend(written.directories.into_iter().map(|(directory, _)| directory));
    }
    writer.finish_discovery(scan, Some(world.root), &[extent(world.volume_id, "/r")], &[]).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(ids[4], ids[1], "/r/x");
    let totals = world.index.extent_totals(&[extent(world.volume_id, "/r")]).await.unwrap();
    assert_eq!((totals.directories, totals.files), (5, 5));
}

pub(crate) async fn what_was_just_written_can_be_answered<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r/known", vec![entry("k", 5, 90)])]).await;
    let piece = |first, last| Coverage::Piece { first, last };
    let listings = [
        world.whole("/r", vec![entry("b", 5, 2), entry("a", 5, 1), entry("c", 6, 3)]),
        world.listing("/r/many", piece(true, false), vec![entry("z", 5, 26), entry("y", 5, 25)]),
        world.whole("/r/empty", vec![]),
        world.listing("/r/many", piece(false, true), vec![entry("x", 5, 24)]),
        world.whole("/r/known", vec![entry("k", 5, 90), entry("l", 5, 91)]),
        world.whole("/r/last", vec![entry("d", 7, 4)]),
    ];
    let mut writer = world.writer().await;
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    let written = writer.write_listings(scan, &listings).await.unwrap();
    assert_eq!(written.directories.len(), listings.len());
    for (number, (_, first)) in written.directories.iter().enumerate() {
        let is_new = number != 4 && (B::ONLY_ONE_WRITES || number != 3);
        assert_eq!(first.is_some(), is_new, "of what is new, nothing is: {number}");
    }
    // Odd inodes have one content and even ones another: an answer that reached another row would show.
    let content = |stamp: Stamp| hashed(u8::from(stamp.inode % 2 == 1));
    let (mut answers, mut unanswered) = (Vec::new(), Vec::new());
    for (listing, (directory, first)) in listings.iter().zip(written.directories) {
        let ids = first.map_or(0, |FileId(first)| first)..;
        for (Entry { name, stamp, .. }, id) in listing.entries.iter().zip(ids) {
            let key = FileKey { id: FileId(id), directory, name: name.clone() };
            if first.is_some() {
                answers.push(Outcome {
                    key,
                    expected: *stamp,
                    finding: content(*stamp),
                    stage: Stage::Size,
                    lease: None,
                    known: None,
                });
            } else {
                let path = [listing.directory.as_bytes(), name].join(&b'/');
                unanswered.push((stamp.inode, vec![String::from_utf8(path).unwrap()]));
            }
        }
    }
    writer.write_outcomes(answers).await.unwrap();
    writer.commit().await.unwrap();
    let extents = [extent(world.volume_id, "/r")];
    writer.finish_discovery(scan, Some(world.root), &extents, &[]).await.unwrap();
    writer.close().await.unwrap();
    unanswered.sort_unstable();
    let unanswered: Vec<Vec<String>> = unanswered.into_iter().map(|(_, path)| path).collect();
    assert_eq!(world.pending(Stage::Size).await, unanswered);
    world.answer(Stage::Size, |job| content(job.stamp)).await;
    let by_path = ReportFilter { sort: SortBy::Path, ..ReportFilter::default() };
    assert_eq!(
        world.groups(&by_path).await,
        ["5: /r/a /r/known/l /r/many/y", "5: /r/b /r/known/k /r/many/x /r/many/z"]
    );
}

pub(crate) async fn kept_figures_are_those_of_the_moment<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    // No file is empty, so the filter passes all; but only without one are figures kept.
    let counted = ReportFilter { min_size: 1, ..ReportFilter::default() };
    let agree = async |what: &str| {
        for moment in ["before", "after"] {
            let kept = world.index.summary(&ReportFilter::default()).await.unwrap();
            assert_eq!(kept, world.index.summary(&counted).await.unwrap(), "{moment} settling: {what}");
            let mut writer = world.writer().await;
            let settled = writer.settle(Unread::Perhaps).await.unwrap();
            writer.close().await.unwrap();
            assert_eq!(settled, kept, "what settling counts: {what}");
        }
    };
    let some = [entry("a", 5, 1), entry("b", 5, 2), entry("c", 5, 3)];
    agree("nothing").await;
    world.scan(&[world.whole("/r", some.to_vec())]).await;
    agree("files were added").await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    agree("hashes were written").await;
    let mut changed = some.to_vec();
    changed[0].stamp.mtime = Nanos(77);
    world.scan(&[world.whole("/r", changed.clone())]).await;
    agree("a file changed").await;
    world.answer(Stage::Size, |_| hashed(2)).await;
    agree("it has another hash").await;
    world.scan(&[world.whole("/r", changed[..2].to_vec())]).await;
    agree("a file was removed").await;
    changed[1].stamp.mtime = Nanos(78);
    world.scan(&[world.whole("/r", changed[..2].to_vec())]).await;
    world.answer(Stage::Size, |_| Finding::Failed(Problem::Io("bad sector".to_owned()))).await;
    agree("a file could not be read").await;
    world.answer(Stage::Size, |_| hashed(2)).await;
    agree("it could").await;
    world.scan(&[world.listing("/r", Coverage::Unreadable(Problem::PermissionDenied), vec![])]).await;
    agree("a directory could not be read").await;
    world
        .scan(&[world.whole("/r", changed[..2].to_vec()), world.whole("/r/s", vec![entry("d", 9, 9)])])
        .await;
    agree("it could, and there is another").await;
    world.scan(&[world.whole("/r", changed[..2].to_vec())]).await;
    agree("which is gone").await;
    let all = extent(world.volume_id, "/r");
    let put_root = async |hash| {
        let settings = ScanSettings { hash, ..ScanSettings::default() };
        let mut writer = world.writer().await;
        writer.put_root(&all, Path::new("/r"), &settings).await.unwrap();
        writer.close().await.unwrap();
    };
    let mut writer = world.writer().await;
    changed.push(entry("e", 11, 11));
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    writer.write_listings(scan, &[world.whole("/r", changed.clone())]).await.unwrap();
    writer.close().await.unwrap();
    agree("a file without partner").await;
    for (hash, what) in [
        (HashPolicy::All, "which is to be hashed"),
        (HashPolicy::All, "as before"),
        (HashPolicy::Candidates, "or not, after all"),
    ] {
        put_root(hash).await;
        agree(what).await;
    }
    let mut writer = world.writer().await;
    writer.remove_root(Some(world.root), &[all]).await.unwrap();
    writer.close().await.unwrap();
    agree("everything was forgotten").await;
}

pub(crate) async fn a_directory_is_compared_whenever_something_in_it_has_to_be_done<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)]),
        world.whole("/r/s", vec![entry("c", 5, 3)]),
    ];
    // Three times: first as a new directory, then with a fingerprint to compare, then with one that is the same.
    for _ in 0..3 {
        world.scan(&listings).await;
        assert_eq!(world.pending(Stage::Size).await, [["/r/a"], ["/r/b"], ["/r/s/c"]]);
    }
    let racy = Finding::Hashed { digest: Digest([1; 32]), sample: None, ctime: Nanos(2_000), racy: true };
    world.answer(Stage::Size, |_| racy.clone()).await;
    let (_, counts) = world.scan(&listings).await;
    assert_eq!(
        counts.updated, 3,
        "what was read too early is read again, though the directory looks the same"
    );
    world.answer(Stage::Size, |_| hashed(1)).await;
    world.scan(&listings).await;
    world.scan(&listings).await;
    assert!(world.pending(Stage::Size).await.is_empty());
    // The same names and stamps in other directories are not the same files.
    let (_, counts) = world
        .scan(&[
            world.whole("/r", vec![entry("c", 5, 3)]),
            world.whole("/r/s", vec![entry("a", 5, 1), entry("b", 5, 2)]),
        ])
        .await;
    assert_eq!((counts.added, counts.removed), (3, 3));
}

pub(crate) async fn nothing_lasts_without_a_commit<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [world.whole("/r", vec![entry("a", 1, 1)])];
    let mut writer = world.writer().await;
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    writer.commit().await.unwrap();
    writer.write_listings(scan, &listings).await.unwrap();
    drop(writer);
    assert_eq!(world.index.extent_totals(&[extent(world.volume_id, "")]).await.unwrap().files, 0);
    let (_, counts) = world.scan(&listings).await;
    assert_eq!(counts.added, 1);
}

pub(crate) async fn only_shared_sizes_are_pending_and_hard_links_are_one_job<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let links = vec![entry("l1", 5, 50), entry("l2", 5, 50), entry("unique", 6, 60)];
    world.scan(&[world.whole("/r", links.clone())]).await;
    assert!(world.jobs(Stage::Size).await.is_empty(), "one physical file has no partner");
    let more = world.whole("/r/d", vec![entry("l3", 5, 50), entry("copy", 5, 10)]);
    world.scan(&[world.whole("/r", links), more]).await;
    let pending = world.pending(Stage::Size).await;
    assert_eq!(pending, [vec!["/r/d/copy"], vec!["/r/l1", "/r/l2", "/r/d/l3"]], "by inode");
    assert!(world.jobs(Stage::Everything).await.is_empty(), "no root wants everything");
    world.put_root("/r", HashPolicy::All).await;
    let all = world.pending(Stage::Everything).await;
    assert_eq!(all.len(), 3);
}

pub(crate) async fn pending_is_limited_to_what_a_scope_needs_and_what_can_be_reached<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r/a", vec![entry("x", 5, 1), entry("y", 6, 2), entry("y2", 6, 3)]),
        world.whole("/r/b", vec![entry("x", 5, 4), entry("z", 7, 5), entry("z2", 7, 6)]),
    ];
    world.scan(&listings).await;
    let only_b = Scope { extents: vec![extent(world.volume_id, "/r/b")], ..world.everywhere() };
    let jobs = world.jobs_in(Stage::Size, &only_b).await;
    let names: Vec<_> = jobs.iter().flat_map(paths).collect();
    assert_eq!(names, ["/r/a/x", "/r/b/x", "/r/b/z", "/r/b/z2"], "the partner outside too");
    let unplugged = Scope { reachable: Vec::new(), ..world.everywhere() };
    assert!(world.jobs_in(Stage::Size, &unplugged).await.is_empty());
}

pub(crate) async fn large_files_are_sampled_and_then_hashed_if_samples_are_shared<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let size = SMALL_FILE + 1;
    world
        .scan(&[world.whole("/r", vec![entry("a", size, 1), entry("b", size, 2), entry("c", size, 3)])])
        .await;
    assert!(world.jobs(Stage::Sample).await.is_empty());
    world.answer(Stage::Size, |job| sampled(if paths(job) == ["/r/c"] { 9 } else { 1 })).await;
    assert!(world.jobs(Stage::Size).await.is_empty());
    assert_eq!(world.index.summary(&ReportFilter::default()).await.unwrap().pending_files, 2);
    assert_eq!(world.pending(Stage::Sample).await, [["/r/a"], ["/r/b"]]);
    world.answer(Stage::Sample, |_| hashed(1)).await;
    assert!(world.jobs(Stage::Sample).await.is_empty());
    // The sample stays, so that a newcomer finds it.
    let d = entry("d", size, 4);
    world
        .scan(&[world.whole("/r", vec![entry("a", size, 1), entry("b", size, 2), entry("c", size, 3), d])])
        .await;
    world.answer(Stage::Size, |_| sampled(1)).await;
    assert_eq!(world.pending(Stage::Sample).await, [["/r/d"]]);
}

pub(crate) async fn outcomes_are_written_only_to_rows_that_did_not_change<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2), entry("c", 5, 3)])]).await;
    let jobs = world.jobs(Stage::Size).await;
    let mut changed = entry("b", 5, 2);
    changed.stamp.mtime = Nanos(77);
    world.scan(&[world.whole("/r", vec![entry("a", 5, 1), changed])]).await;
    let all: Vec<_> = jobs.iter().flat_map(|job| outcomes(job, &hashed(1))).collect();
    let mut writer = world.writer().await;
    // One changed and one is gone.
    writer.write_outcomes(all).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(world.pending(Stage::Size).await, [["/r/b"]]);
    assert_eq!(world.index.extent_totals(&[extent(world.volume_id, "")]).await.unwrap().files, 2);
}

pub(crate) async fn what_failed_is_counted_and_tried_again<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)])]).await;
    let now = Stamp { size: 5, mtime: Nanos(8), ctime: Nanos(9), inode: 2 };
    world
        .answer(Stage::Size, |job| match paths(job)[0].as_str() {
            "/r/a" => Finding::Failed(Problem::Io("bad sector".to_owned())),
            _ => Finding::Changed(now),
        })
        .await;
    let summary = world.index.summary(&ReportFilter::default()).await.unwrap();
    assert_eq!((summary.problems, summary.pending_files, summary.groups), (2, 0, 0));
    let jobs = world.jobs(Stage::Size).await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[1].stamp, now, "the row follows the file");
    world.answer(Stage::Size, |_| hashed(1)).await;
    let summary = world.index.summary(&ReportFilter::default()).await.unwrap();
    assert_eq!((summary.problems, summary.groups), (0, 1));
}

pub(crate) async fn a_racy_hash_is_forgotten_by_the_next_listing<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)])];
    world.scan(&listings).await;
    let racy = Finding::Hashed { digest: Digest([1; 32]), sample: None, ctime: Nanos(2_000), racy: true };
    world.answer(Stage::Size, |_| racy.clone()).await;
    assert_eq!(world.groups(&ReportFilter::default()).await.len(), 1, "it counts until then");
    let (_, counts) = world.scan(&listings).await;
    assert_eq!(counts.updated, 2);
    assert_eq!(world.jobs(Stage::Size).await.len(), 2);
}

pub(crate) async fn a_null_hash_matches_nothing<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2), entry("c", 5, 3)])]).await;
    assert!(world.groups(&ReportFilter::default()).await.is_empty());
    world.answer(Stage::Size, |job| if paths(job) == ["/r/a"] { hashed(1) } else { sampled(1) }).await;
    assert!(world.groups(&ReportFilter::default()).await.is_empty(), "equal samples are no proof");
}

pub(crate) async fn groups_are_of_physical_files_and_reports_are_ordered<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r/a", vec![entry("1", 5, 1), entry("2", 5, 1), entry("3", 9, 3)]),
        world.whole("/r/b", vec![entry("1", 5, 4), entry("2", 9, 5), entry("3", 9, 6), entry("only", 5, 1)]),
    ];
    world.scan(&listings).await;
    let large = Some(Sample([0; 16]));
    world
        .answer(Stage::Size, |_| Finding::Hashed {
            digest: Digest([1; 32]),
            sample: large,
            ctime: Nanos(2_000),
            racy: false,
        })
        .await;
    let groups = |filter: ReportFilter| {
        let world = &world;
        async move { world.groups(&filter).await }
    };
    let nine = "9: /r/a/3 /r/b/2 /r/b/3";
    let five = "5: /r/a/1=/r/a/2=/r/b/only /r/b/1";
    assert_eq!(groups(ReportFilter::default()).await, [nine, five], "equal hashes of other sizes are apart");
    assert_eq!(groups(ReportFilter { sort: SortBy::Path, ..ReportFilter::default() }).await, [five, nine]);
    assert_eq!(groups(ReportFilter { limit: Some(1), ..ReportFilter::default() }).await, [nine]);
    assert_eq!(groups(ReportFilter { min_size: 6, ..ReportFilter::default() }).await, [nine]);
    let under = Some(vec![extent(world.volume_id, "/r/b")]);
    let below = ReportFilter { under, ..ReportFilter::default() };
    assert_eq!(groups(below.clone()).await, ["9: /r/b/2 /r/b/3", "5: /r/b/1 /r/b/only"]);
    let summary = world.index.summary(&ReportFilter::default()).await.unwrap();
    assert_eq!((summary.groups, summary.redundant_files, summary.reclaimable_bytes), (2, 3, 23));
    let summary = world.index.summary(&below).await.unwrap();
    assert_eq!((summary.files, summary.groups, summary.redundant_files), (4, 2, 2));
}

pub(crate) async fn a_report_is_the_same_before_and_after_its_groups_are_kept<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let sizes = 1_000..6_000;
    let twins = |directory: &str, first: u64| {
        let file = |size: u64| entry(&size.to_string(), size, first + size);
        world.whole(directory, sizes.clone().map(file).collect())
    };
    world
        .scan(&[twins("/r/a", 0), twins("/r/b", 100_000), world.whole("/r/c", vec![entry("x", 5_000, 1)])])
        .await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    let limited = |limit| ReportFilter { limit, ..ReportFilter::default() };
    let filters = [limited(None), limited(Some(3)), limited(Some(4_500))];
    let mut before = Vec::new();
    for filter in &filters {
        before.push(world.groups(filter).await);
    }
    assert_eq!(before[0].len(), sizes.clone().count());
    assert_eq!(before[0][0], "5000: /r/a/5000 /r/b/5000 /r/c/x", "two to be gained");
    assert_eq!(before[0][1], "5999: /r/a/5999 /r/b/5999");
    let mut writer = world.writer().await;
    writer.settle(Unread::Perhaps).await.unwrap();
    writer.close().await.unwrap();
    for (filter, before) in filters.iter().zip(&before) {
        assert!(world.groups(filter).await == *before, "{filter:?}");
    }
    // One goes: with it, what was kept.
    world.scan(&[twins("/r/a", 0), twins("/r/b", 100_000), world.whole("/r/c", vec![])]).await;
    assert_eq!(world.groups(&filters[1]).await[0], "5999: /r/a/5999 /r/b/5999");
}

/// Only PostgreSQL refuses for reasons of size.
pub(crate) async fn what_is_refused_for_its_size_is_sent_in_pieces() {
    // SQLSTATE 54000 is program_limit_exceeded.
    let world = World::after(
            "create function refuse() returns trigger language plpgsql as $$ begin
                 if (select count(*) from touched) > 300 then raise 'too large' using errcode = '54000'; end if;
                 return null;
             end $$;
             create trigger small_inserts after insert on files referencing new table as touched
                 for each statement execute function refuse();
             create trigger small_updates after update on files referencing new table as touched
                 for each statement execute function refuse()",
    )
    .await;
    let entries: Vec<Entry> =
        (0..5000_u64).map(|number| entry(&format!("{number:05}"), 7, number + 1)).collect();
    let (_, counts) = world.scan(&[world.whole("/r", entries)]).await;
    assert_eq!(counts.added, 5000);
    world.answer(Stage::Size, |_| hashed(1)).await;
    assert!(world.pending(Stage::Size).await.is_empty());
    assert_eq!(world.index.summary(&ReportFilter::default()).await.unwrap().redundant_files, 4999);
}

pub(crate) async fn a_lease_that_was_taken_unknown_to_its_holder_is_read() {
    // As if the line had been cut after the server gave the lease away, and before the answer came.
    let world = World::after(
        "create function give_away() returns trigger language plpgsql as $$ begin
                 new.worker_id := (select max(id) from workers);
                 return new;
             end $$;
             create trigger give_away before insert on leases for each row execute function give_away()",
    )
    .await;
    let entries = (0..5000_u64).map(|number| entry(&format!("{number:05}"), 7, number + 1)).collect();
    world.scan(&[world.whole("/r", entries)]).await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    assert!(world.pending(Stage::Size).await.is_empty());
}
