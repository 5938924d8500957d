//! The laws of bit rot.

use dupfind::index::{IndexError, PendingReader, Writer};
use dupfind::model::digest::Digest;
use dupfind::model::group::ReportFilter;
use dupfind::model::history::HistoryFilter;
use dupfind::model::listing::{Entry, Move, Problem};
use dupfind::model::path::VolumePath;
use dupfind::model::pending::{Finding, Job, Outcome, SMALL_FILE, Scope, Stage, Unread};
use dupfind::model::rot::{Ending, Rereading, RingPosition, Share};
use dupfind::model::scan::{ScanCounts, ScanId, ScanKind, ScanStatus};
use dupfind::model::settings::HashPolicy;
use dupfind::model::stamp::{Nanos, Stamp};

use super::backend::{Backend, HOST, World, entry, extent, hashed, outcomes, paths, sampled};

impl World {
    /// A run that verifies, at work.
    async fn verification(&self) -> (ScanId, Box<dyn Writer>) {
        let mut writer = self.writer().await;
        let run = writer.begin_scan(Some(self.root), ScanKind::Verify, None).await.unwrap();
        writer.commit().await.unwrap();
        (run, writer)
    }

    async fn rereading_in(&self, what: Rereading, scope: &Scope) -> Vec<Job> {
        let (run, mut writer) = self.verification().await;
        let mounts = self.index.mounts(HOST).await.unwrap();
        let reader: Box<dyn PendingReader> = self.index.rereading(run, what, scope, &mounts).await.unwrap();
        let jobs = drain(reader).await;
        writer.end_scan(run, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
        writer.close().await.unwrap();
        jobs
    }

    async fn rereading(&self, what: Rereading) -> Vec<Vec<String>> {
        self.rereading_in(what, &self.everywhere()).await.iter().map(paths).collect()
    }

    /// Reads again what is chosen; what each file holds, by its path.
    pub(crate) async fn reread(&self, what: Rereading, finding: impl Fn(&str) -> Finding) {
        let answer = |job: &Job| outcomes(job, &finding(&paths(job)[0]));
        let jobs = self.rereading_in(what, &self.everywhere()).await;
        let outcomes: Vec<Outcome> = jobs.iter().flat_map(answer).collect();
        let mut writer = self.writer().await;
        writer.write_verified(outcomes).await.unwrap();
        writer.close().await.unwrap();
    }

    /// Findings as `path: expected found problem | copies`, with the first byte of each hash.
    async fn rot(&self) -> Vec<String> {
        let places = self.index.places(HOST).await.unwrap();
        let rot = self.index.rot(&places, &self.everywhere().extents).await.unwrap();
        let text = |rot: &dupfind::model::rot::Rot| {
            let found = rot.found.map_or("-".to_owned(), |found| found.0[0].to_string());
            let copies: Vec<_> =
                rot.copies.iter().map(|copy| copy.place.path.display().to_string()).collect();
            format!("{}: {} {found} | {}", rot.place.path.display(), rot.expected.0[0], copies.join(" "))
        };
        rot.iter().map(text).collect()
    }

    async fn conclude(&self) -> Vec<(String, Ending)> {
        let places = self.index.places(HOST).await.unwrap();
        let mut writer = self.writer().await;
        let ended = writer.conclude(&places, &self.everywhere().extents).await.unwrap();
        writer.close().await.unwrap();
        ended.into_iter().map(|ended| (ended.place.path.display().to_string(), ended.ending)).collect()
    }

    async fn problems(&self) -> Vec<String> {
        let places = self.index.places(HOST).await.unwrap();
        let problems = self.index.problems(&places, 100).await.unwrap();
        problems.iter().map(|row| format!("{}: {}", row.path.display(), row.problem)).collect()
    }
}

async fn drain(mut reader: Box<dyn PendingReader>) -> Vec<Job> {
    let mut jobs = Vec::new();
    loop {
        let window = reader.next().await.unwrap();
        if window.is_empty() {
            break;
        }
        jobs.extend(window);
    }
    let names: usize = jobs.iter().map(|job| job.names.len()).sum();
    assert_eq!(reader.totals().files, names as u64);
    jobs
}

/// Three files of one content, one of another, one without hash.
async fn world<B: Backend + 'static>() -> (World, Vec<Entry>) {
    let world = World::new::<B>().await;
    let files = vec![entry("a", 5, 3), entry("b", 5, 2), entry("c", 5, 1), entry("lone", 6, 9)];
    world.scan(&[world.whole("/r", files.clone()), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
    world.answer(Stage::Size, |job| hashed(if paths(job) == ["/r/s/d"] { 2 } else { 1 })).await;
    (world, files)
}

const ALL: Rereading = Rereading::Hashed(None);

pub(crate) async fn what_has_a_hash_is_read_again_in_physical_order<B: Backend + 'static>() {
    let (world, mut files) = world::<B>().await;
    let jobs = world.rereading_in(ALL, &world.everywhere()).await;
    assert_eq!(jobs.iter().map(paths).collect::<Vec<_>>(), [["/r/c"], ["/r/b"], ["/r/a"], ["/r/s/d"]]);
    assert_eq!(jobs[0].known, Some(Digest([1; 32])));
    assert_eq!(jobs[3].known, Some(Digest([2; 32])));
    let inner = Scope { extents: vec![extent(world.volume_id, "/r/s")], ..world.everywhere() };
    assert_eq!(world.rereading_in(ALL, &inner).await.len(), 1);
    let unplugged = Scope { reachable: Vec::new(), ..world.everywhere() };
    assert!(world.rereading_in(ALL, &unplugged).await.is_empty());
    assert_eq!(world.index.count_unhashed(&world.everywhere().extents).await.unwrap(), 1);
    assert_eq!(world.index.count_unhashed(&inner.extents).await.unwrap(), 0);

    // Names of one file are one job, unless they were read as different files.
    files.extend([entry("link", 5, 3), entry("e", 5, 8)]);
    world.scan(&[world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
    let racy = |digest| Finding::Hashed {
        digest: Digest([digest; 32]),
        sample: None,
        ctime: Nanos(2_000),
        racy: true,
    };
    world.answer(Stage::Size, |job| if paths(job) == ["/r/e"] { racy(1) } else { hashed(1) }).await;
    assert_eq!(
        world.rereading(ALL).await,
        [vec!["/r/c"], vec!["/r/b"], vec!["/r/a", "/r/link"], vec!["/r/s/d"]],
        "but not what the next scan reads again: it may have changed unseen"
    );
}

pub(crate) async fn a_rotten_file_matches_nothing_and_no_scan_takes_it_for_sound<B: Backend + 'static>() {
    let (world, files) = world::<B>().await;
    let mut writer = world.writer().await;
    writer.settle(Unread::Perhaps).await.unwrap();
    writer.close().await.unwrap();
    let listings = [world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])];
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/b /r/c"]);
    world.reread(ALL, |path| hashed(if path == "/r/b" || path == "/r/s/d" { 2 } else { 1 })).await;
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/c"], "nor what it reads as now");
    assert_eq!(world.rot().await, ["/r/b: 1 2 | /r/a /r/c"]);
    assert_eq!(world.problems().await.len(), 1);
    assert!(world.problems().await[0].contains("bit rot"), "{:?}", world.problems().await);
    let summary = world.index.summary(&ReportFilter::default()).await.unwrap();
    assert_eq!(
        (summary.groups, summary.redundant_files, summary.problems, summary.pending_files),
        (1, 1, 1, 0)
    );

    // Neither a scan nor a scan of everything reads it, and it stays on record.
    world.put_root("/r", HashPolicy::All).await;
    for _ in 0..2 {
        let (_, counts) = world.scan(&listings).await;
        assert_eq!((counts.added, counts.updated, counts.removed), (0, 0, 0));
        assert!(world.jobs(Stage::Size).await.is_empty());
        assert!(world.jobs(Stage::Sample).await.is_empty());
        assert_eq!(world.pending(Stage::Everything).await, [["/r/lone"]]);
        assert!(world.conclude().await.is_empty());
        assert_eq!(world.rot().await, ["/r/b: 1 2 | /r/a /r/c"]);
    }
    assert_eq!(world.rereading(Rereading::OnRecord).await, [["/r/b"]]);
    assert_eq!(world.rereading(ALL).await, [["/r/c"], ["/r/a"], ["/r/s/d"]]);

    // Read again, it is rotten in another way.
    world.reread(Rereading::OnRecord, |_| hashed(7)).await;
    assert_eq!(world.rot().await, ["/r/b: 1 7 | /r/a /r/c"]);
    assert!(world.conclude().await.is_empty());

    // And then as it should be.
    world.reread(Rereading::OnRecord, |_| hashed(1)).await;
    assert!(world.rot().await.is_empty() && world.problems().await.is_empty());
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/b /r/c"]);
    assert_eq!(world.conclude().await, [("/r/b".to_owned(), Ending::Withdrawn)]);
    assert!(world.conclude().await.is_empty(), "said once");
    assert!(world.rereading(Rereading::OnRecord).await.is_empty());
}

pub(crate) async fn a_file_in_place_of_a_rotten_one_is_known_by_its_hash<B: Backend + 'static>() {
    for (digest, ending, groups) in
        [(1, Ending::Restored, "5: /r/a /r/b /r/c"), (9, Ending::Replaced, "5: /r/a /r/c")]
    {
        let (world, mut files) = world::<B>().await;
        world.reread(ALL, |path| hashed(if path == "/r/b" { 2 } else { 1 })).await;
        files[1].stamp.mtime = Nanos(77);
        world.scan(&[world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
        assert!(!world.rot().await.iter().any(|rot| rot.starts_with("/r/b")), "somebody saw to it");
        assert_eq!(world.pending(Stage::Size).await, [["/r/b"]]);
        assert!(!world.conclude().await.iter().any(|(path, _)| path == "/r/b"), "nothing is known of it yet");
        // A run may read it before a scan does.
        assert_eq!(world.rereading(Rereading::OnRecord).await, [["/r/b"], ["/r/s/d"]]);
        world.reread(Rereading::OnRecord, |path| hashed(if path == "/r/b" { digest } else { 2 })).await;
        assert_eq!(
            world.conclude().await,
            [("/r/b".to_owned(), ending), ("/r/s/d".to_owned(), Ending::Withdrawn)]
        );
        assert_eq!(world.groups(&ReportFilter::default()).await, [groups]);
        assert!(world.problems().await.is_empty());
    }
}

pub(crate) async fn findings_end_with_their_files<B: Backend + 'static>() {
    let (world, mut files) = world::<B>().await;
    world.reread(ALL, |path| hashed(if path == "/r/a" { 1 } else { 3 })).await;
    assert_eq!(world.rot().await.len(), 3);
    files.remove(1);
    world.scan(&[world.whole("/r", files)]).await;
    assert_eq!(world.rot().await, ["/r/c: 1 3 | /r/a"]);
    assert_eq!(
        world.conclude().await,
        [("/r/b".to_owned(), Ending::Gone)],
        "that of a directory went with it"
    );
}

pub(crate) async fn a_finding_follows_a_file_that_is_renamed<B: Backend + 'static>() {
    let (world, mut files) = world::<B>().await;
    world.reread(ALL, |path| hashed(if path == "/r/b" || path == "/r/s/d" { 3 } else { 1 })).await;
    assert_eq!(world.rot().await, ["/r/b: 1 3 | /r/a /r/c", "/r/s/d: 2 3 | "]);
    // A rename changes ctime and nothing else; one file gets a second name by the way.
    let moved = |entry: Entry, name: &str| {
        let stamp = Stamp { ctime: Nanos(3_000), ..entry.stamp };
        Entry { name: name.as_bytes().into(), stamp, ..entry }
    };
    files[1] = moved(files[1].clone(), "x");
    files.push(moved(files[1].clone(), "y"));
    let listings = [world.whole("/r", files), world.whole("/r/t", vec![moved(entry("d", 5, 4), "d")])];
    world.scan(&listings).await;
    let read = Finding::Hashed { digest: Digest([3; 32]), sample: None, ctime: Nanos(3_000), racy: false };
    world.answer(Stage::Size, |_| read.clone()).await;
    assert_eq!(world.groups(&ReportFilter::default()).await.len(), 2, "the scan cannot know it yet");
    assert!(world.conclude().await.is_empty());
    assert_eq!(
        world.rot().await,
        ["/r/x: 1 3 | /r/a /r/c", "/r/y: 1 3 | /r/a /r/c", "/r/t/d: 2 3 | "],
        "also with its directory"
    );
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/c"]);
    assert_eq!(world.problems().await.len(), 3);
}

/// What a watcher saw: a file has another ctime then, a directory's files have not.
pub(crate) async fn a_finding_follows_a_move_that_was_seen<B: Backend + 'static>() {
    let (world, mut files) = world::<B>().await;
    world.put_root("/r", HashPolicy::All).await;
    world.answer(Stage::Everything, |_| hashed(5)).await;
    let rotten = |path: &str| match path {
        "/r/b" | "/r/s/d" => hashed(3),
        "/r/c" => hashed(4),
        "/r/lone" => hashed(5),
        _ => hashed(1),
    };
    world.reread(ALL, rotten).await;
    assert_eq!(world.rot().await, ["/r/b: 1 3 | /r/a", "/r/c: 1 4 | /r/a", "/r/s/d: 2 3 | "]);
    let go = async |from: &str, to: &str, stamp: Option<Stamp>| {
        let mut writer = world.writer().await;
        let scan = writer.begin_scan(Some(world.root), ScanKind::Watch, None).await.unwrap();
        let path = |path: &str| VolumePath::new(path.as_bytes());
        let moved = Move { volume: world.volume.clone(), from: path(from), to: path(to), stamp };
        writer.write_moves(scan, &[moved]).await.unwrap();
        writer.end_scan(scan, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
        writer.close().await.unwrap();
    };
    let renamed = |entry: &Entry, ctime: i64| Stamp { ctime: Nanos(ctime), ..entry.stamp };
    go("/r/b", "/r/t/x", Some(renamed(&files[1], 3_000))).await;
    go("/r/s", "/r/u", None).await;
    let followed = ["/r/c: 1 4 | /r/a", "/r/t/x: 1 3 | /r/a", "/r/u/d: 2 3 | "];
    assert_eq!(world.rot().await, followed);
    assert_eq!(world.problems().await.len(), 3);
    for stage in [Stage::Size, Stage::Sample, Stage::Everything] {
        assert!(world.jobs(stage).await.is_empty(), "{stage:?}: no scan reads what is rotten");
    }

    // A listing finds everything as it is known, and the findings stand.
    let moved = files.remove(1);
    let moved = Entry { name: b"x"[..].into(), stamp: renamed(&moved, 3_000), ..moved };
    let listings = [
        world.whole("/r", files.clone()),
        world.whole("/r/t", vec![moved.clone()]),
        world.whole("/r/u", vec![entry("d", 5, 4)]),
    ];
    let (_, counts) = world.scan(&listings).await;
    assert_eq!((counts.added, counts.updated, counts.removed), (0, 0, 0));
    assert_eq!(world.rot().await, followed);
    assert!(world.conclude().await.is_empty());
    let read = Finding::Hashed { digest: Digest([7; 32]), sample: None, ctime: Nanos(3_000), racy: false };
    world.reread(Rereading::OnRecord, |path| if path == "/r/t/x" { read.clone() } else { hashed(6) }).await;
    assert_eq!(world.rot().await, ["/r/c: 1 6 | /r/a", "/r/t/x: 1 7 | /r/a", "/r/u/d: 2 6 | "]);

    // In the place of another, that one's finding gives way; a sound file in the place of a rotten one restores it.
    go("/r/t/x", "/r/c", Some(renamed(&moved, 4_000))).await;
    assert_eq!(world.rot().await, ["/r/c: 1 7 | /r/a", "/r/u/d: 2 6 | "]);
    assert!(world.conclude().await.is_empty());
    go("/r/a", "/r/c", Some(renamed(&files[0], 5_000))).await;
    assert_eq!(world.rot().await, ["/r/u/d: 2 6 | "]);
    assert_eq!(world.conclude().await, [("/r/c".to_owned(), Ending::Restored)]);
    world.reread(Rereading::OnRecord, |_| hashed(2)).await;
    assert_eq!(world.conclude().await, [("/r/u/d".to_owned(), Ending::Withdrawn)]);
    assert!(world.rot().await.is_empty() && world.problems().await.is_empty());

    let mut writer = world.writer().await;
    writer.settle(Unread::Perhaps).await.unwrap();
    writer.close().await.unwrap();
    go("/r/c", "/r/u/d", Some(renamed(&files[0], 6_000))).await;
    // Figures of everything are kept; with a filter that lets everything pass, they are counted.
    let counted = ReportFilter { min_size: 1, ..ReportFilter::default() };
    let counted = world.index.summary(&counted).await.unwrap();
    assert_eq!((counted.files, counted.problems), (2, 0));
    assert_eq!(world.index.summary(&ReportFilter::default()).await.unwrap(), counted);
}

pub(crate) async fn what_has_a_hash_is_verified_where_nothing_is_read<B: Backend + 'static>() {
    let (world, files) = world::<B>().await;
    let inner = vec![entry("d", 5, 4), entry("unread", 5, 5)];
    world.put_root("/r/s", HashPolicy::None).await;
    world.scan(&[world.whole("/r", files), world.whole("/r/s", inner)]).await;
    assert!(world.jobs(Stage::Size).await.is_empty());
    let everything = [["/r/c"], ["/r/b"], ["/r/a"], ["/r/s/d"]];
    assert_eq!(world.rereading(ALL).await, everything, "a hash that is known is verified, and that is all");
    let found = |path: &str| match path {
        "/r/s/d" => hashed(3),
        "/r/b" => Finding::Failed(Problem::Io("bad sector".to_owned())),
        "/r/c" => Finding::Failed(Problem::PermissionDenied),
        _ => hashed(1),
    };
    world.reread(ALL, found).await;
    let (rot, problems) = (world.rot().await, world.problems().await);
    assert_eq!(rot, ["/r/b: 1 - | /r/a /r/c", "/r/s/d: 2 3 | "]);
    assert_eq!(problems.len(), 3);
    let on_record = [["/r/c"], ["/r/b"], ["/r/s/d"]];
    for policy in [HashPolicy::None, HashPolicy::All] {
        for root in ["/r", "/r/s"] {
            world.put_root(root, policy).await;
        }
        assert_eq!(
            (world.rot().await, world.problems().await),
            (rot.clone(), problems.clone()),
            "{policy:?}"
        );
        assert_eq!(world.rereading(Rereading::OnRecord).await, on_record, "{policy:?}");
    }
    let mut wholly = world.pending(Stage::Everything).await.concat();
    wholly.sort();
    assert_eq!(
        wholly,
        ["/r/b", "/r/lone", "/r/s/unread"],
        "what could not be read is tried, what is rotten is not"
    );
}

/// In PostgreSQL pieces of work outlive those who chose them.
pub(crate) async fn what_was_chosen_before_it_was_found_rotten_is_not_read<B: Backend + 'static>() {
    for has_never_read in [false, true] {
        let (world, mut files) = world::<B>().await;
        if has_never_read {
            world.put_root("/r/never", HashPolicy::None).await;
        }
        let error = || Finding::Failed(Problem::Io("bad sector".to_owned()));
        world.reread(ALL, |path| if path == "/r/b" { error() } else { hashed(1) }).await;
        files.push(entry("new", 5, 8));
        world.scan(&[world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
        let chosen = world.pending(Stage::Size).await.concat();
        assert_eq!(chosen, ["/r/b", "/r/new"], "and not answered");
        world.reread(Rereading::OnRecord, |path| if path == "/r/b" { hashed(6) } else { hashed(2) }).await;
        assert_eq!(world.pending(Stage::Size).await, [["/r/new"]], "never read: {has_never_read}");
    }
}

pub(crate) async fn accepted_rot_is_sound<B: Backend + 'static>() {
    let (world, files) = world::<B>().await;
    world.reread(ALL, |path| hashed(if path == "/r/s/d" { 2 } else { 4 })).await;
    assert_eq!(world.rot().await.len(), 3);
    // One reads as it was reported, one as it should, one as something else again.
    let jobs = world.rereading_in(Rereading::OnRecord, &world.everywhere()).await;
    let finding = |job: &Job| match paths(job)[0].as_str() {
        "/r/a" => hashed(4),
        "/r/b" => hashed(1),
        _ => hashed(5),
    };
    let answers = jobs.iter().flat_map(|job| outcomes(job, &finding(job))).collect();
    let mut writer = world.writer().await;
    assert_eq!(writer.accept(answers).await.unwrap(), 1);
    writer.close().await.unwrap();
    assert_eq!(world.rot().await, ["/r/c: 1 5 | /r/b"]);
    assert_eq!(world.conclude().await, [("/r/b".to_owned(), Ending::Withdrawn)]);
    let (_, counts) = world.scan(&[world.whole("/r", files)]).await;
    assert_eq!(counts.updated, 0);
    world.reread(ALL, |path| hashed(if path == "/r/a" { 4 } else { 1 })).await;
    assert_eq!(world.rot().await, ["/r/c: 1 5 | /r/b"], "what was accepted is what it should be");
}

pub(crate) async fn what_cannot_be_read_again_is_compared_when_it_can<B: Backend + 'static>() {
    let (world, _) = world::<B>().await;
    let error = || Finding::Failed(Problem::Io("bad sector".to_owned()));
    let denied = || Finding::Failed(Problem::PermissionDenied);
    world
        .reread(ALL, |path| match path {
            "/r/a" | "/r/b" => error(),
            "/r/s/d" => denied(),
            _ => hashed(1),
        })
        .await;
    assert_eq!(world.rot().await, ["/r/a: 1 - | /r/c", "/r/b: 1 - | /r/c"]);
    assert_eq!(world.problems().await, ["/r/a: bad sector", "/r/b: bad sector", "/r/s/d: permission denied"]);
    assert!(world.groups(&ReportFilter::default()).await.is_empty());

    // A scan tries again what could not be read, as ever; what it reads is not what it was, of one.
    assert_eq!(world.pending(Stage::Size).await, [["/r/b"], ["/r/a"]]);
    world.answer(Stage::Size, |job| hashed(if paths(job) == ["/r/b"] { 6 } else { 1 })).await;
    assert_eq!(world.rot().await, ["/r/b: 1 6 | /r/a /r/c"]);
    assert_eq!(world.groups(&ReportFilter::default()).await, ["5: /r/a /r/c"]);
    assert!(world.jobs(Stage::Size).await.is_empty());
    assert_eq!(world.conclude().await, [("/r/a".to_owned(), Ending::Withdrawn)]);

    // What may not be read keeps its hash, and is looked at by each run until it may.
    assert_eq!(world.rereading(ALL).await, [["/r/c"], ["/r/a"]]);
    assert_eq!(world.rereading(Rereading::OnRecord).await, [["/r/b"], ["/r/s/d"]]);
    world.reread(Rereading::OnRecord, |path| if path == "/r/b" { denied() } else { hashed(2) }).await;
    assert_eq!(world.problems().await.len(), 1);
    assert!(world.problems().await[0].contains("bit rot"), "it is rotten all the same");
}

pub(crate) async fn a_large_rotten_file_finds_its_copies_and_is_found<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let size = SMALL_FILE + 1;
    let mut files = vec![entry("a", size, 1), entry("b", size, 2)];
    world.scan(&[world.whole("/r", files.clone())]).await;
    let whole = |digest: u8, sample: u8| Finding::Hashed {
        digest: Digest([digest; 32]),
        sample: Some(dupfind::model::digest::Sample([sample; 16])),
        ctime: Nanos(2_000),
        racy: false,
    };
    world.answer(Stage::Size, |_| sampled(1)).await;
    world.answer(Stage::Sample, |_| whole(1, 1)).await;
    world.reread(ALL, |path| if path == "/r/a" { whole(2, 2) } else { whole(1, 1) }).await;
    assert_eq!(world.rot().await, ["/r/a: 1 2 | /r/b"]);
    // The other one goes; a copy comes, of which only a sample would be read if nothing were like it.
    files[1] = entry("copy", size, 3);
    world.scan(&[world.whole("/r", files.clone())]).await;
    world.answer(Stage::Size, |_| sampled(1)).await;
    assert_eq!(world.pending(Stage::Sample).await, [["/r/copy"]], "and not what is rotten");
    world.answer(Stage::Sample, |_| whole(1, 1)).await;
    assert_eq!(world.rot().await, ["/r/a: 1 2 | /r/copy"]);
    world.reread(Rereading::OnRecord, |_| whole(1, 1)).await;
    // With its sample it is compared with what comes.
    files.push(entry("new", size, 4));
    world.scan(&[world.whole("/r", files)]).await;
    world.answer(Stage::Size, |_| sampled(1)).await;
    world.answer(Stage::Sample, |_| whole(1, 1)).await;
    assert_eq!(world.groups(&ReportFilter::default()).await, [format!("{size}: /r/a /r/copy /r/new")]);
}

pub(crate) async fn only_what_has_the_stamp_still_is_found_rotten<B: Backend + 'static>() {
    let (world, mut files) = world::<B>().await;
    let jobs = world.rereading_in(ALL, &world.everywhere()).await;
    files[1].stamp.ctime = Nanos(99);
    world.scan(&[world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
    let mut writer = world.writer().await;
    writer.write_verified(jobs.iter().flat_map(|job| outcomes(job, &hashed(8))).collect()).await.unwrap();
    writer.close().await.unwrap();
    let rotten: Vec<String> = world.rot().await;
    assert_eq!(rotten.len(), 3);
    assert!(!rotten.iter().any(|rot| rot.starts_with("/r/b")), "{rotten:?}");
    assert_eq!(world.pending(Stage::Size).await, [["/r/b"]]);
}

pub(crate) async fn samples_in_a_row_reach_everything_once<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let files: Vec<Entry> = (0..400_u64).map(|number| entry(&format!("{number:03}"), 5, number)).collect();
    world.scan(&[world.whole("/r", files)]).await;
    world
        .answer(Stage::Size, |job| {
            let digest = Digest(*blake3::hash(paths(job)[0].as_bytes()).as_bytes());
            Finding::Hashed { digest, sample: None, ctime: Nanos(2_000), racy: false }
        })
        .await;
    let share: Share = "5%".parse().unwrap();
    let subtree = extent(world.volume_id, "/r");
    let mut reached = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..20 {
        let before = reached.len();
        let position = world.index.sampled_to(&subtree).await.unwrap();
        for range in share.slices_from(position) {
            reached.extend(world.rereading(Rereading::Hashed(Some(range))).await.into_iter().flatten());
            let mut writer = world.writer().await;
            writer.note_sampled(&subtree, range).await.unwrap();
            // Who was slower does not set it back.
            writer.note_sampled(&subtree, range).await.unwrap();
            writer.close().await.unwrap();
            assert_eq!(world.index.sampled_to(&subtree).await.unwrap(), range.end());
        }
        sizes.push(reached.len() - before);
    }
    reached.sort();
    reached.dedup();
    assert_eq!(reached.len(), 400);
    assert!(
        sizes.iter().all(|size| (5..45).contains(size)) && sizes.iter().sum::<usize>() == 400,
        "{sizes:?}"
    );
    assert_eq!(world.index.sampled_to(&subtree).await.unwrap(), RingPosition::default(), "and begins anew");
    let other = extent(world.volume_id, "");
    assert_eq!(world.index.sampled_to(&other).await.unwrap(), RingPosition::default());
}

/// Else its sample would pass for read.
pub(crate) async fn a_run_that_was_taken_for_dead_does_not_come_to_its_end<B: Backend + 'static>() {
    let (world, _) = world::<B>().await;
    let (run, mut writer) = world.verification().await;
    let mounts = world.index.mounts(HOST).await.unwrap();
    let mut reader = world.index.rereading(run, ALL, &world.everywhere(), &mounts).await.unwrap();
    assert_eq!(reader.totals().files, 4);
    writer.end_scan(run, ScanStatus::Interrupted, &ScanCounts::default(), None).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(world.rereading(ALL).await.len(), 4, "another run takes away what the dead left behind");
    assert!(matches!(reader.next().await, Err(IndexError::TakenForDead)));
}

pub(crate) async fn a_verification_keeps_nobody_from_walking_and_is_no_walk<B: Backend + 'static>() {
    let (world, files) = world::<B>().await;
    let before = world.index.roots().await.unwrap();
    let (run, writer) = world.verification().await;
    // Where one process writes at a time, it gives the right back while it reads.
    let kept = if B::ONLY_ONE_WRITES {
        writer.close().await.unwrap();
        None
    } else {
        Some(writer)
    };
    let told = async |run: ScanId| {
        let runs = world.index.history(HistoryFilter { root: None, limit: 10 }).await.unwrap();
        runs.iter().find(|told| told.id == run).unwrap().status
    };
    assert_eq!(told(run).await, ScanStatus::Running, "though it does not keep the right to write");
    world.scan(&[world.whole("/r", files), world.whole("/r/s", vec![entry("d", 5, 4)])]).await;
    assert_eq!(told(run).await, ScanStatus::Running);
    let mut writer = match kept {
        Some(writer) => writer,
        None => world.writer().await,
    };
    let counts = ScanCounts { hashed: 4, ..ScanCounts::default() };
    writer.end_scan(run, ScanStatus::Completed, &counts, None).await.unwrap();
    writer.close().await.unwrap();
    let roots = world.index.roots().await.unwrap();
    let (last, earlier) = (roots[0].last_scan.clone().unwrap(), before[0].last_scan.clone().unwrap());
    assert!(last.id > earlier.id && last.id > run, "the scan");
}
