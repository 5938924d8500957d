//! The laws of the history: which runs there were, and what the index held after each.

use dupfind::model::group::Summary;
use dupfind::model::history::{Figures, HistoryFilter, Run};
use dupfind::model::path::VolumePath;
use dupfind::model::scan::{ScanCounts, ScanKind, ScanStatus};
use dupfind::model::settings::ScanSettings;
use std::path::Path;

use super::backend::{Backend, World, entry, extent};

const ALL: HistoryFilter = HistoryFilter { root: None, limit: 100 };

fn counts() -> ScanCounts {
    ScanCounts {
        directories: 1,
        files_seen: 2,
        bytes_seen: 3,
        added: 4,
        updated: 5,
        removed: 6,
        hashed: 7,
        bytes_read: 8,
        problems: 9,
        events: 10,
    }
}

fn held(files: u64) -> Summary {
    Summary {
        files,
        bytes: 20,
        groups: 30,
        redundant_files: 40,
        reclaimable_bytes: 50,
        pending_files: 60,
        ..Summary::default()
    }
}

async fn runs(world: &World, filter: HistoryFilter) -> Vec<Run> {
    world.index.history(filter).await.unwrap()
}

pub(crate) async fn every_run_is_told_as_it_was<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    assert!(runs(&world, ALL).await.is_empty());
    let mut writer = world.writer().await;
    let other = extent(world.volume_id, "/other");
    let other = writer.put_root(&other, Path::new("/other"), &ScanSettings::default()).await.unwrap();
    let within = VolumePath::new(b"/r/odd\xff");
    let mut ids = Vec::new();
    for (kind, within) in ScanKind::ALL.into_iter().zip([None, None, None, None, Some(&within), None, None]) {
        let root = (kind != ScanKind::FilesFrom).then_some(world.root);
        ids.push(writer.begin_scan(root, kind, within).await.unwrap());
        let scan = *ids.last().unwrap();
        writer.finish_discovery(scan, None, &[], &[]).await.unwrap();
        writer.end_scan(scan, ScanStatus::Completed, &counts(), None).await.unwrap();
    }
    let failed = writer.begin_scan(Some(other), ScanKind::Scan, None).await.unwrap();
    writer.end_scan(failed, ScanStatus::Failed, &ScanCounts::default(), Some("no such disk")).await.unwrap();
    writer.note_figures(&ids[3..4], &held(10)).await.unwrap();
    writer.close().await.unwrap();

    let told = runs(&world, ALL).await;
    assert_eq!(told.len(), 8);
    assert!(told.is_sorted_by(|newer, older| newer.id > older.id), "the newest first");
    assert_eq!((told[0].id, told[0].status), (failed, ScanStatus::Failed));
    assert_eq!((told[0].error.as_deref(), told[0].discovered_at), (Some("no such disk"), None));
    let told: Vec<&Run> = told[1..].iter().rev().collect();
    for ((run, kind), id) in told.iter().zip(ScanKind::ALL).zip(&ids) {
        assert_eq!((run.kind, run.id, run.status), (kind, *id, ScanStatus::Completed));
        assert_eq!((run.counts, run.error.as_deref()), (counts(), None));
        assert_eq!(run.root.is_none(), kind == ScanKind::FilesFrom);
        assert!(run.started_at <= run.discovered_at.unwrap() && run.discovered_at <= run.ended_at);
        assert_eq!(run.figures.is_some(), kind == ScanKind::Startup, "only where it was counted");
    }
    let root = told[4].root.as_ref().unwrap();
    assert_eq!((root.id, root.path.as_path()), (world.root, Path::new("/r")));
    assert_eq!((&root.extent, &root.within), (&extent(world.volume_id, "/r"), &Some(within)));
    assert_eq!(told[0].root.as_ref().unwrap().within, None);
    let figures = Figures { files: 10, bytes: 20, groups: 30, redundant_files: 40, reclaimable_bytes: 50 };
    assert_eq!(told[3].figures, Some(figures));

    let of_other = runs(&world, HistoryFilter { root: Some(other), limit: 100 }).await;
    assert_eq!(of_other.iter().map(|run| run.id).collect::<Vec<_>>(), [failed]);
    let latest = runs(&world, HistoryFilter { root: Some(world.root), limit: 2 }).await;
    assert_eq!(latest.iter().map(|run| run.id).collect::<Vec<_>>(), [ids[6], ids[5]]);
}

pub(crate) async fn a_run_whose_process_died_is_told_as_interrupted_before_anybody_marks_it<
    B: Backend + 'static,
>() {
    let world = World::new::<B>().await;
    let mut writer = world.writer().await;
    let scan = writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    writer.commit().await.unwrap();
    let status = async || runs(&world, ALL).await.iter().find(|run| run.id == scan).unwrap().status;
    assert_eq!(status().await, ScanStatus::Running);
    drop(writer);
    B::outwait_the_dead().await;
    assert_eq!(status().await, ScanStatus::Interrupted);
    let run = runs(&world, ALL).await.remove(0);
    assert_eq!((run.error.as_deref(), run.ended_at), (Some("the process that ran it died"), None));

    let mut writer = world.writer().await;
    writer.begin_scan(Some(world.root), ScanKind::Resume, None).await.unwrap();
    writer.commit().await.unwrap();
    let told: Vec<ScanStatus> = runs(&world, ALL).await.iter().map(|run| run.status).collect();
    assert_eq!(told, [ScanStatus::Running, ScanStatus::Interrupted], "the dead one beside one that lives");
    writer.close().await.unwrap();
}

pub(crate) async fn figures_develop_and_are_thinned<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    assert!(world.index.development(10).await.unwrap().is_empty());
    world.scan(&[world.whole("/r", vec![entry("a", 1, 1)])]).await;
    assert!(world.index.development(10).await.unwrap().is_empty(), "nobody counted");
    let mut writer = world.writer().await;
    for files in 0..30 {
        let scan = writer.begin_scan(Some(world.root), ScanKind::Watch, None).await.unwrap();
        writer.end_scan(scan, ScanStatus::Completed, &counts(), None).await.unwrap();
        writer.note_figures(&[scan], &held(files)).await.unwrap();
        writer.commit().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    writer.close().await.unwrap();
    let ended = async |files: u64| {
        let all = runs(&world, ALL).await;
        all.iter().find(|run| run.figures.is_some_and(|figures| figures.files == files)).unwrap().ended_at
    };
    for points in [1, 2, 7, 1000] {
        let told = world.index.development(points).await.unwrap();
        assert!(!told.is_empty() && told.len() <= points as usize, "{} of {points}", told.len());
        assert!(told.is_sorted_by(|a, b| a.at < b.at && a.figures.files < b.figures.files), "{told:?}");
        let last = told.last().unwrap();
        assert_eq!((last.figures.files, Some(last.at)), (29, ended(29).await), "the latest is always told");
    }
    let some = world.index.development(7).await.unwrap();
    assert!(some.len() > 3, "spread over the time: {some:?}");
    let all = world.index.development(1000).await.unwrap();
    assert_eq!((all.len(), Some(all[3].at)), (30, ended(3).await));
    assert_eq!(all[0].figures.reclaimable_bytes, 50);
}
