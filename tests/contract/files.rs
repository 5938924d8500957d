//! The laws of single files: what is known of each, and where its copies are.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dupfind::model::digest::Digest;
use dupfind::model::file::{FileItem, FilesFilter, KnownFile, WantedFiles};
use dupfind::model::listing::{Entry, Problem};
use dupfind::model::pending::{Finding, SMALL_FILE, Stage, Unread};
use dupfind::model::rot::Rereading;
use dupfind::model::settings::{HashPolicy, ScanSettings};
use dupfind::model::volume::Extent;

use super::backend::{Backend, HOST, World, entry, extent, hashed, mounted, sampled};

fn below(world: &World, path: &str) -> FilesFilter {
    let wanted = WantedFiles::Below(vec![extent(world.volume_id, path)]);
    FilesFilter { wanted, limit: None, with_copies: false }
}

fn named(world: &World, directory: &str, name: &str) -> FilesFilter {
    let directory = extent(world.volume_id, directory);
    let wanted = WantedFiles::Named { directory, name: name.as_bytes().into() };
    FilesFilter { wanted, limit: None, with_copies: true }
}

async fn items(world: &World, filter: &FilesFilter) -> Vec<FileItem> {
    let places = world.index.places(HOST).await.unwrap();
    let mut reader = world.index.files(filter, &places).await.unwrap();
    let mut items = Vec::new();
    loop {
        let window = reader.next().await.unwrap();
        if window.is_empty() {
            return items;
        }
        items.extend(window);
    }
}

async fn files(world: &World, filter: &FilesFilter) -> Vec<KnownFile> {
    let file = |item| match item {
        FileItem::File(file) => Some(file),
        FileItem::Copy(_) => None,
    };
    items(world, filter).await.into_iter().filter_map(file).collect()
}

/// Files and their copies as `path path=link`.
async fn told(world: &World, filter: &FilesFilter) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for item in items(world, filter).await {
        match item {
            FileItem::File(file) => told.push(format!("{} {}:", file.path.display(), file.copies)),
            FileItem::Copy(copy) => {
                let joint = if copy.first_name { ' ' } else { '=' };
                let last = told.last_mut().unwrap();
                last.push(joint);
                last.push_str(&copy.path.display().to_string());
            }
        }
    }
    told
}

/// Each in a state of its own.
async fn states(world: &World) {
    let large = SMALL_FILE + 1;
    let listing = world.whole(
        "/r",
        vec![
            entry("alone", 5, 1),
            entry("copied", 7, 2),
            entry("copy", 7, 3),
            entry("failed", 9, 4),
            entry("fine", 9, 5),
            entry("ruled-out", large, 6),
            entry("ruled-out-too", large, 7),
        ],
    );
    world.scan(&[listing]).await;
    world
        .answer(Stage::Size, |job| match job.names[0].key.name.as_ref() {
            b"failed" => Finding::Failed(Problem::PermissionDenied),
            b"ruled-out" => sampled(1),
            b"ruled-out-too" => sampled(2),
            b"fine" => hashed(9),
            _ => hashed(7),
        })
        .await;
}

pub(crate) async fn each_file_is_told_with_what_is_known_of_it<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    states(&world).await;
    let all = files(&world, &below(&world, "/r")).await;
    let short = |file: &KnownFile| {
        let name = file.path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, file.digest.map(|digest| digest.0[0]), file.is_sampled, file.is_pending, file.copies)
    };
    let expected = [
        ("alone", None, false, false, 0),
        ("copied", Some(7), false, false, 1),
        ("copy", Some(7), false, false, 1),
        ("failed", None, false, false, 0),
        ("fine", Some(9), false, false, 0),
        ("ruled-out", None, true, false, 0),
        ("ruled-out-too", None, true, false, 0),
    ]
    .map(|(name, hash, sampled, pending, copies)| (name.to_owned(), hash, sampled, pending, copies));
    assert_eq!(all.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(all[3].problem.as_deref(), Some("permission denied"));
    assert_eq!(all[1].stamp, entry("copied", 7, 2).stamp);
    assert_eq!((all[1].digest, &all[1].host), (Some(Digest([7; 32])), &None));
    for file in &all {
        let name = file.path.file_name().unwrap().to_str().unwrap();
        assert_eq!(files(&world, &named(&world, "/r", name)).await, std::slice::from_ref(file), "by itself");
    }
    assert!(files(&world, &named(&world, "/r", "nothing")).await.is_empty());
    assert!(files(&world, &named(&world, "/", "copy")).await.is_empty());

    // New partners: one by size, one by sample.
    let large = SMALL_FILE + 1;
    world.scan(&[world.whole("/r/new", vec![entry("five", 5, 8), entry("large", large, 9)])]).await;
    states(&world).await;
    world
        .scan(&[
            world.whole("/r/new", vec![entry("five", 5, 8), entry("large", large, 9)]),
            world.whole("/r", vec![entry("alone", 5, 1), entry("ruled-out", large, 6)]),
        ])
        .await;
    let pending = async || {
        let all = files(&world, &below(&world, "/r")).await;
        for file in &all {
            let (directory, name) = (file.path.parent().unwrap(), file.path.file_name().unwrap());
            let one = named(&world, directory.to_str().unwrap(), name.to_str().unwrap());
            assert_eq!(files(&world, &one).await, std::slice::from_ref(file), "by itself");
        }
        all.into_iter().filter(|file| file.is_pending).map(|file| file.path).collect::<Vec<PathBuf>>()
    };
    let expected = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<PathBuf>>();
    assert_eq!(pending().await, expected(&["/r/alone", "/r/new/five", "/r/new/large"]));
    let sample = |job: &dupfind::model::pending::Job| {
        if job.stamp.size > SMALL_FILE { sampled(1) } else { hashed(5) }
    };
    world.answer(Stage::Size, sample).await;
    assert_eq!(pending().await, expected(&["/r/ruled-out", "/r/new/large"]), "they share a sample");

    let mut writer = world.writer().await;
    let settings = ScanSettings { hash: HashPolicy::All, ..ScanSettings::default() };
    writer.put_root(&extent(world.volume_id, "/r"), "/r".as_ref(), &settings).await.unwrap();
    writer.close().await.unwrap();
    world.answer(Stage::Sample, |_| hashed(6)).await;
    world.scan(&[world.whole("/r", vec![entry("unique", 77, 99)])]).await;
    assert_eq!(pending().await, expected(&["/r/unique"]), "every file is to be hashed");
}

pub(crate) async fn files_come_by_directory_and_in_windows<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let many: Vec<Entry> =
        (0..2500_u64).map(|number| entry(&format!("{number:05}"), 100 + number, 100 + number)).collect();
    world
        .scan(&[
            world.whole("/r", vec![entry("top", 1, 1)]),
            world.whole("/r/a", many),
            world.whole("/r/a b", vec![entry("x", 2, 2)]),
            world.whole("/r/a/deep", vec![entry("y", 3, 3)]),
            world.whole("/r/empty", vec![]),
            world.whole("/r/z", vec![entry("z", 4, 4)]),
            world.whole("/rest", vec![entry("other", 5, 5)]),
        ])
        .await;
    let paths = async |filter: &FilesFilter| {
        let files = files(&world, filter).await;
        files.into_iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>()
    };
    let all = paths(&below(&world, "/r")).await;
    assert_eq!(all.len(), 2504);
    assert_eq!((all[0].as_str(), all[1].as_str()), ("/r/top", "/r/a/00000"));
    assert_eq!(
        all[2501..],
        ["/r/a b/x", "/r/a/deep/y", "/r/z/z"],
        "by the bytes of their directories' paths"
    );
    assert!(all[1..2501].is_sorted());
    assert_eq!(paths(&below(&world, "/r/a")).await, [&all[1..2501], &all[2502..2503]].concat());
    assert_eq!(paths(&below(&world, "")).await.len(), 2505);
    assert!(paths(&below(&world, "/r/empty")).await.is_empty());
    for limit in [0, 1, 1024, 1500, 9999] {
        let limited = FilesFilter { limit: Some(limit), ..below(&world, "/r") };
        let limit = usize::try_from(limit).unwrap();
        assert_eq!(paths(&limited).await, all[..limit.min(all.len())]);
    }
    let twice: Vec<Extent> =
        ["/r/a", "/r", "/r/a/deep", "/r"].map(|path| extent(world.volume_id, path)).into();
    let twice = FilesFilter { wanted: WantedFiles::Below(twice), ..below(&world, "") };
    assert_eq!(paths(&twice).await, all, "subtrees in each other are told once");
}

pub(crate) async fn the_copies_of_a_file_are_those_of_the_report<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let link = |name, inode| Entry { has_other_names: true, ..entry(name, 9, inode) };
    world
        .scan(&[
            world.whole("/r", vec![link("a", 1), link("a-link", 1), entry("b", 9, 2), entry("x", 9, 3)]),
            world.whole("/r/d", vec![link("a-too", 4), link("c", 4)]),
        ])
        .await;
    let is_x = |job: &dupfind::model::pending::Job| job.names[0].key.name.as_ref() == b"x";
    world.answer(Stage::Size, |job| if is_x(job) { hashed(3) } else { hashed(1) }).await;
    let expected = [
        "/r/a 2:=/r/a-link /r/b /r/d/a-too=/r/d/c",
        "/r/a-link 2:=/r/a /r/b /r/d/a-too=/r/d/c",
        "/r/b 2: /r/a=/r/a-link /r/d/a-too=/r/d/c",
        "/r/x 0:",
        "/r/d/a-too 2:=/r/d/c /r/a=/r/a-link /r/b",
        "/r/d/c 2:=/r/d/a-too /r/a=/r/a-link /r/b",
    ];
    let with_copies = FilesFilter { with_copies: true, ..below(&world, "/r") };
    assert_eq!(told(&world, &with_copies).await, expected);
    assert_eq!(told(&world, &named(&world, "/r", "b")).await, expected[2..3]);
    let below_d = FilesFilter { with_copies: true, ..below(&world, "/r/d") };
    assert_eq!(told(&world, &below_d).await, expected[4..], "copies elsewhere count");

    // Once it is settled there is an index over hashes; and a second volume tells its files apart.
    let mut writer = world.writer().await;
    writer.settle(Unread::Perhaps).await.unwrap();
    writer.register_volume(HOST, &mounted("uuid:other", "", "/mnt")).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(told(&world, &with_copies).await, expected);
    assert_eq!(told(&world, &named(&world, "/r/d", "c")).await, expected[5..]);
}

pub(crate) async fn a_file_with_thousands_of_copies_has_them_all<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    let entries: Vec<Entry> =
        (0..3000_u64).map(|number| entry(&format!("{number:05}"), 7, number / 2 + 1)).collect();
    world.scan(&[world.whole("/r", entries), world.whole("/r/z", vec![entry("last", 7, 9000)])]).await;
    world.answer(Stage::Size, |_| hashed(1)).await;
    for is_settled in [false, true] {
        if is_settled {
            let mut writer = world.writer().await;
            writer.settle(Unread::Perhaps).await.unwrap();
            writer.close().await.unwrap();
        }
        let items = items(&world, &named(&world, "/r", "00005")).await;
        let FileItem::File(file) = &items[0] else { panic!("a file comes first") };
        assert_eq!(file.copies, 1500);
        let mut others = BTreeSet::new();
        let mut first_names = 0;
        for item in &items[1..] {
            let FileItem::Copy(copy) = item else { panic!("one file was asked for") };
            first_names += u64::from(copy.first_name);
            assert!(others.insert(copy.path.clone()), "{} comes twice", copy.path.display());
        }
        assert_eq!((others.len(), first_names), (3000, 1500));
        let FileItem::Copy(own) = &items[1] else { panic!("its own hard link comes first") };
        assert_eq!((own.first_name, own.path.to_str().unwrap()), (false, "/r/00004"));
        let all = files(&world, &below(&world, "/r")).await;
        assert!(all.len() == 3001 && all.iter().all(|file| file.copies == 1500));
        let with_copies = FilesFilter { with_copies: true, limit: Some(2), ..below(&world, "/r/z") };
        assert_eq!(told(&world, &with_copies).await.len(), 1);
    }
}

pub(crate) async fn a_rotten_file_is_told_with_its_problem<B: Backend + 'static>() {
    let world = World::new::<B>().await;
    states(&world).await;
    let rotten = |path: &str| hashed(if path == "/r/copy" { 8 } else { 7 });
    world.reread(Rereading::Hashed(None), rotten).await;
    for filter in [below(&world, "/r"), named(&world, "/r", "copy")] {
        let found = files(&world, &filter).await;
        let file = found.iter().find(|file| file.path.ends_with("copy")).unwrap();
        assert_eq!((file.digest, file.is_pending, file.copies), (None, false, 0));
        assert!(file.problem.as_ref().unwrap().contains("bit rot"), "{file:?}");
    }
    assert_eq!(
        told(&world, &named(&world, "/r", "copied")).await,
        ["/r/copied 0:"],
        "it has no copy any more"
    );
}
