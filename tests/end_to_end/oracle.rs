//! Random trees, changed at random, against an oracle that compares bytes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::support::Sandbox;

/// Something that happens to a tree. Names and contents come from small sets, so that they meet.
#[derive(Debug, Clone)]
enum Event {
    Write {
        name: u8,
        content: u8,
    },
    Remove {
        name: u8,
    },
    HardLink {
        from: u8,
        to: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    RemoveDirectory {
        name: u8,
    },
    /// Changes the content and puts the old mtime back: only ctime tells.
    RewriteInSecret {
        name: u8,
        content: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::Write { name, content }),
        2 => any::<u8>().prop_map(|name| Event::Remove { name }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Event::HardLink { from, to }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Event::Rename { from, to }),
        1 => any::<u8>().prop_map(|name| Event::RemoveDirectory { name }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::RewriteInSecret { name, content }),
    ]
}

/// A name out of forty, some of them odd, in nested directories.
fn path_of(name: u8) -> PathBuf {
    let directories: [&[u8]; 5] = [b"", b"d", b"d/e", b"d/e/new\nline", b"\xff"];
    let files: [&[u8]; 8] = [b"a", b"b", b"c c", b"\xfe", "\u{202e}x".as_bytes(), b"'", b"-", b"long"];
    let name = usize::from(name);
    Path::new(OsStr::from_bytes(directories[name % 5])).join(OsStr::from_bytes(files[name / 5 % 8]))
}

/// A content out of thirty: some share their length, some are large and differ in one place only.
fn content_of(content: u8) -> Vec<u8> {
    let kind = content % 30;
    match kind {
        0..=9 => vec![b'a' + kind % 3; 10],
        10..=19 => vec![b'x'; usize::from(kind % 4) * 7],
        _ => {
            let mut large = vec![0; 200_000];
            let place = [0, 100_000, 199_999, 60_000][usize::from(kind % 4)];
            large[place] = 1 + kind % 2;
            large
        }
    }
}

fn apply(tree: &Path, event: &Event) {
    // Many events make no sense at their moment (a name that is gone, a link onto itself): nothing happens.
    let at = |name: u8| tree.join(path_of(name));
    let make_parent = |path: &Path| std::fs::create_dir_all(path.parent().unwrap());
    let _ = match event {
        Event::Write { name, content } => {
            make_parent(&at(*name)).and_then(|()| std::fs::write(at(*name), content_of(*content)))
        }
        Event::Remove { name } => std::fs::remove_file(at(*name)),
        Event::HardLink { from, to } => {
            make_parent(&at(*to)).and_then(|()| std::fs::hard_link(at(*from), at(*to)))
        }
        Event::Rename { from, to } => {
            make_parent(&at(*to)).and_then(|()| std::fs::rename(at(*from), at(*to)))
        }
        Event::RemoveDirectory { name } => match at(*name).parent() {
            Some(parent) if parent != tree => std::fs::remove_dir_all(parent),
            _ => Ok(()),
        },
        Event::RewriteInSecret { name, content } => rewrite_in_secret(&at(*name), *content),
    };
}

fn rewrite_in_secret(path: &Path, content: u8) -> std::io::Result<()> {
    let modified = std::fs::metadata(path)?.modified()?;
    std::fs::write(path, content_of(content))?;
    std::fs::File::options().write(true).open(path)?.set_modified(modified)
}

/// Groups of equal files, found by comparing every byte with every byte.
fn brute_force(tree: &Path) -> Vec<Vec<OsString>> {
    let mut files: BTreeMap<u64, (Vec<u8>, Vec<OsString>)> = BTreeMap::new();
    let mut directories = vec![tree.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                directories.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            if !content.is_empty() {
                let name = path.strip_prefix(tree).unwrap().as_os_str().to_owned();
                files.entry(metadata.ino()).or_insert_with(|| (content, Vec::new())).1.push(name);
            }
        }
    }
    let mut groups: Vec<(Vec<u8>, usize, Vec<OsString>)> = Vec::new();
    for (content, names) in files.into_values() {
        match groups.iter_mut().find(|(other, ..)| *other == content) {
            Some((_, files, group)) => {
                *files += 1;
                group.extend(names);
            }
            None => groups.push((content, 1, names)),
        }
    }
    let duplicated = groups.into_iter().filter(|(_, files, _)| *files > 1);
    let mut groups: Vec<Vec<OsString>> = duplicated.map(|(.., names)| names).collect();
    for group in &mut groups {
        group.sort();
    }
    groups.sort();
    groups
}

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
