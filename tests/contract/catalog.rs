//! The laws about roots, volumes, mounts and scans.

use std::path::Path;

use dupfind::model::scan::{ScanCounts, ScanKind, ScanStatus};
use dupfind::model::settings::ScanSettings;
use dupfind::model::volume::VolumeIdentity;

use super::backend::{Backend, HOST, World, entry, extent, mounted};

pub(crate) async fn a_subtree_is_known_by_the_directories_at_and_below_it<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    world.scan(&[world.whole("/r/inner/deep", vec![])]).await;
    let knows = async |path| world.index.knows(&[extent(world.volume_id, path)]).await.unwrap();
    for path in ["", "/r", "/r/inner", "/r/inner/deep"] {
        assert!(knows(path).await, "{path}");
    }
    for path in ["/r/inner/deep/er", "/r/inn", "/r/inner/deep-", "/s"] {
        assert!(!knows(path).await, "{path}");
    }
    let several = [extent(world.volume_id, "/s"), extent(world.volume_id, "/r")];
    assert!(world.index.knows(&several).await.unwrap());
    assert!(!world.index.knows(&[]).await.unwrap());
}

pub(crate) async fn removing_a_root_forgets_what_only_it_covered<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let listings = [
        world.whole("/r", vec![entry("a", 1, 1)]),
        world.whole("/r/inner", vec![entry("b", 2, 2)]),
        world.whole("/r/inner/deep", vec![entry("c", 3, 3)]),
    ];
    world.scan(&listings).await;
    let mut writer = world.writer().await;
    let inner = extent(world.volume_id, "/r/inner");
    let inner_root = writer.put_root(&inner, Path::new("/r/inner"), &ScanSettings::default()).await.unwrap();
    let outer = extent(world.volume_id, "/r");
    assert_eq!(writer.remove_root(Some(world.root), &[outer]).await.unwrap(), 1);
    assert_eq!(writer.remove_root(Some(inner_root), &[inner]).await.unwrap(), 2);
    writer.close().await.unwrap();
    assert!(world.index.roots().await.unwrap().is_empty());
    assert_eq!(world.index.extent_totals(&[extent(world.volume_id, "")]).await.unwrap().directories, 0);
}

pub(crate) async fn scans_are_history_and_dead_ones_are_marked<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    assert!(world.index.roots().await.unwrap()[0].needs_discovery());
    let (first, _) = world.scan(&[world.whole("/r", vec![])]).await;
    let root = &world.index.roots().await.unwrap()[0];
    assert_eq!(root.last_scan.as_ref().unwrap().status, ScanStatus::Running);
    assert!(!root.needs_discovery(), "its walk reached its end");
    let mut writer = world.writer().await;
    let second = writer.begin_scan(Some(world.root), ScanKind::Resume, None).await.unwrap();
    assert!(second > first);
    writer.end_scan(second, ScanStatus::Completed, &ScanCounts::default(), None).await.unwrap();
    writer.close().await.unwrap();
    let root = world.index.roots().await.unwrap().remove(0);
    assert_eq!(root.last_scan.unwrap().status, ScanStatus::Completed);

    let mut writer = world.writer().await;
    writer.begin_scan(Some(world.root), ScanKind::Scan, None).await.unwrap();
    writer.commit().await.unwrap();
    drop(writer);
    B::outwait_the_dead().await;
    drop(world.writer().await);
    let root = world.index.roots().await.unwrap().remove(0);
    assert_eq!(root.last_scan.as_ref().unwrap().status, ScanStatus::Interrupted);
    assert!(root.needs_discovery());
}

pub(crate) async fn volumes_and_mounts_are_remembered_by_host<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let mut writer = world.writer().await;
    let again = writer.register_volume(HOST, &mounted("uuid:main", "", "/moved")).await.unwrap();
    assert_eq!(again, world.volume_id);
    let elsewhere = writer.register_volume("there", &mounted("uuid:main", "/sub", "/mnt")).await.unwrap();
    assert_eq!(elsewhere, world.volume_id);
    writer.close().await.unwrap();
    let place = extent(world.volume_id, "/sub/d");
    let here = world.index.mounts(HOST).await.unwrap();
    assert_eq!(here.absolute(place.volume, &place.path).unwrap(), Path::new("/moved/sub/d"));
    let there = world.index.mounts("there").await.unwrap();
    assert_eq!(there.absolute(place.volume, &place.path).unwrap(), Path::new("/mnt/d"));
    let identity = VolumeIdentity("uuid:main".into());
    assert_eq!(world.index.volumes().await.unwrap(), [(world.volume_id, identity)]);
}
