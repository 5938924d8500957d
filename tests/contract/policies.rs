//! The laws about which files are hashed.

use dupfind::model::group::ReportFilter;
use dupfind::model::listing::Problem;
use dupfind::model::pending::{Finding, SMALL_FILE, Scope, Stage, Unread};
use dupfind::model::settings::HashPolicy::{All, Candidates, None as Nothing};

use super::backend::{Backend, HOST, World, entry, extent, hashed, paths, sampled};

/// Names and bytes that are pending, as kept figures (or those that would be kept) and as counted anew.
async fn pending_figures(world: &World) -> (u64, u64) {
    // No file is empty, so the filter passes all; but only without one are figures kept.
    let counted = ReportFilter { min_size: 1, ..ReportFilter::default() };
    let counted = world.index.summary(&counted).await.unwrap();
    let mut writer = world.writer().await;
    assert_eq!(writer.settle(Unread::Perhaps).await.unwrap(), counted);
    writer.close().await.unwrap();
    assert_eq!(world.index.summary(&ReportFilter::default()).await.unwrap(), counted);
    (counted.pending_files, counted.pending_bytes)
}

pub(crate) async fn what_is_never_read_is_neither_candidate_nor_partner<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let large = SMALL_FILE + 1;
    let mut listings = [
        world.whole("/r", vec![entry("a", 5, 1), entry("x", large, 2)]),
        world.whole("/r/never", vec![entry("b", 5, 3), entry("y", large, 4), entry("z", 9, 5)]),
        world.whole("/r/never/deep", vec![entry("c", 5, 6), entry("z", 9, 7)]),
        world.whole("/r/nevertheless", vec![entry("z", 9, 8)]),
    ];
    world.put_root("/r/never", Nothing).await;
    world.scan(&listings).await;
    for stage in [Stage::Everything, Stage::Size, Stage::Sample] {
        assert!(world.jobs(stage).await.is_empty(), "{stage:?}");
    }
    assert_eq!(pending_figures(&world).await, (0, 0));

    listings[0].entries.push(entry("d", 5, 9));
    world.scan(&listings).await;
    assert_eq!(world.pending(Stage::Size).await, [["/r/a"], ["/r/d"]]);
    assert_eq!(pending_figures(&world).await, (2, 10));
    world.answer(Stage::Size, |_| hashed(1)).await;
    assert_eq!(pending_figures(&world).await, (0, 0));

    // What it said before is no matter.
    world.put_root("/r/never", Candidates).await;
    assert_eq!(pending_figures(&world).await, (7, 2 * 5 + 2 * large + 3 * 9));
    let content =
        |stamp: dupfind::model::stamp::Stamp| if stamp.size > SMALL_FILE { sampled(1) } else { hashed(1) };
    world.answer(Stage::Size, |job| content(job.stamp)).await;
    assert_eq!(pending_figures(&world).await, (2, 2 * large));

    world.put_root("/r/never", Nothing).await;
    assert!(world.jobs(Stage::Sample).await.is_empty(), "a sample that is known is no partner, either");
    assert_eq!(pending_figures(&world).await, (0, 0));
    let groups =
        ["9: /r/never/deep/z /r/never/z /r/nevertheless/z", "5: /r/a /r/d /r/never/b /r/never/deep/c"];
    assert_eq!(world.groups(&ReportFilter::default()).await, groups, "what is known stays");
    listings[3].entries.push(entry("e", 9, 10));
    world.scan(&listings).await;
    assert_eq!(world.pending(Stage::Size).await, [["/r/nevertheless/e"]], "its partner is beside it");
    listings[3].entries.remove(0);
    world.scan(&listings).await;
    assert!(world.jobs(Stage::Size).await.is_empty(), "now all are where nothing is read");
}

pub(crate) async fn a_directory_goes_by_the_nearest_root_around_it<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.put_root("/r", All).await;
    world.put_root("/r/some", Candidates).await;
    world.put_root("/r/some/all", All).await;
    world.put_root("/r/some/never", Nothing).await;
    world.put_root("/r/some/never/all", All).await;
    let alone = |path: &str, number: u64| world.whole(path, vec![entry("f", 10 + number, number)]);
    let listings = [
        alone("/r", 1),
        alone("/r/else", 2),
        alone("/r/some", 3),
        alone("/r/some/else", 4),
        alone("/r/some/all/d", 5),
        alone("/r/some/never", 6),
        alone("/r/some/never/else", 7),
        alone("/r/some/never/all/d", 8),
    ];
    world.scan(&listings).await;
    let below = Scope { extents: vec![extent(world.volume_id, "/r/some")], ..world.everywhere() };
    let below = world.jobs_in(Stage::Everything, &below).await;
    let below: Vec<String> = below.iter().flat_map(paths).collect();
    assert_eq!(below, ["/r/some/all/d/f", "/r/some/never/all/d/f"]);
    // In PostgreSQL what was chosen before comes first.
    let mut wholly = world.pending(Stage::Everything).await.concat();
    wholly.sort();
    assert_eq!(wholly, [&["/r/else/f".to_owned(), "/r/f".to_owned()], &below[..]].concat());
    assert!(world.jobs(Stage::Size).await.is_empty());
    assert_eq!(pending_figures(&world).await, (4, 11 + 12 + 15 + 18));
    let within =
        ReportFilter { under: Some(vec![extent(world.volume_id, "/r/some")]), ..ReportFilter::default() };
    assert_eq!(world.index.summary(&within).await.unwrap().pending_files, 2);
    // Without a root of their own, directories go by the next one around them.
    let never = world.put_root("/r/some/never", Nothing).await;
    let mut writer = world.writer().await;
    writer.remove_root(Some(never), &[]).await.unwrap();
    writer.close().await.unwrap();
    world.put_root("/r/some", All).await;
    assert_eq!(world.jobs(Stage::Everything).await.len(), 8);
    world.answer(Stage::Everything, |_| hashed(1)).await;
    assert_eq!(pending_figures(&world).await, (0, 0));
}

pub(crate) async fn what_went_wrong_with_a_file_that_is_not_read_any_more_is_forgotten<
    B: Backend + 'static,
>() {
    let world = World::new::<B>().await;
    let listings =
        [world.whole("/r", vec![entry("a", 5, 1)]), world.whole("/r/never", vec![entry("b", 5, 2)])];
    world.scan(&listings).await;
    world.answer(Stage::Size, |_| Finding::Failed(Problem::Io("bad sector".to_owned()))).await;
    let problems = async || {
        let places = world.index.places(HOST).await.unwrap();
        let rows = world.index.problems(&places, 10).await.unwrap();
        let summary = world.index.summary(&ReportFilter::default()).await.unwrap();
        assert_eq!(summary.problems, rows.len() as u64);
        rows.iter().map(|row| row.path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(problems().await, ["/r/a", "/r/never/b"]);
    world.put_root("/r/never", Nothing).await;
    assert_eq!(problems().await, ["/r/a"]);
    world.put_root("/r/never", Candidates).await;
    assert_eq!(problems().await, ["/r/a"]);
    assert_eq!(world.pending(Stage::Size).await, [["/r/a"], ["/r/never/b"]], "both are tried again");
    world.answer(Stage::Size, |_| Finding::Failed(Problem::Io("bad sector".to_owned()))).await;
    let inner = world.put_root("/r/never", Candidates).await;
    world.put_root("/r", Nothing).await;
    assert_eq!(problems().await, ["/r/never/b"]);
    let mut writer = world.writer().await;
    writer.remove_root(Some(inner), &[extent(world.volume_id, "/r/never")]).await.unwrap();
    writer.close().await.unwrap();
    assert!(problems().await.is_empty(), "the root around it says that nothing is read");
}

/// In PostgreSQL pieces of work outlive those who chose them.
pub(crate) async fn what_was_chosen_before_is_not_read_where_nothing_is_read_now<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 5, 1), entry("b", 5, 2)]),
        world.whole("/r/never", vec![entry("c", 5, 3)]),
    ];
    world.scan(&listings).await;
    assert_eq!(world.jobs(Stage::Size).await.len(), 3, "they are chosen, and not answered");
    world.put_root("/r/never", Nothing).await;
    let mounts = world.index.mounts(HOST).await.unwrap();
    for helps in [true, false] {
        let mut writer = world.writer().await;
        let scope = Scope { helps, ..world.everywhere() };
        let mut reader = writer.pending(Stage::Size, &scope, &mounts).await.unwrap();
        let mut names = Vec::new();
        loop {
            let jobs = reader.next().await.unwrap();
            if jobs.is_empty() {
                break;
            }
            names.extend(jobs.iter().flat_map(paths));
        }
        assert_eq!(names, ["/r/a", "/r/b"], "helps: {helps}");
        drop(reader);
        writer.close().await.unwrap();
    }
}
