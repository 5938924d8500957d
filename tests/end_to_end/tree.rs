//! What happens to a tree, at random, and an oracle that compares its bytes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

/// Something that happens to a tree. Names and contents come from small sets, so that they meet.
#[derive(Debug, Clone)]
pub(crate) enum Event {
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
    Append {
        name: u8,
        content: u8,
    },
    Truncate {
        name: u8,
        length: u8,
    },
    RenameDirectory {
        from: u8,
        to: u8,
    },
    /// As editors save: a new file takes the name.
    Replace {
        name: u8,
        content: u8,
    },
    ChangeMode {
        name: u8,
        mode: u8,
    },
    /// Puts the mtime back by hours.
    TouchBack {
        name: u8,
        hours: u8,
    },
    /// Leads nowhere, and is no file.
    Symlink {
        name: u8,
    },
    /// Moves a directory out of the tree, and another back in.
    SwapOutside {
        name: u8,
    },
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::Write { name, content }),
        2 => any::<u8>().prop_map(|name| Event::Remove { name }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Event::HardLink { from, to }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Event::Rename { from, to }),
        1 => any::<u8>().prop_map(|name| Event::RemoveDirectory { name }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::RewriteInSecret { name, content }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::Append { name, content }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, length)| Event::Truncate { name, length }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Event::RenameDirectory { from, to }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(name, content)| Event::Replace { name, content }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, mode)| Event::ChangeMode { name, mode }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, hours)| Event::TouchBack { name, hours }),
        1 => any::<u8>().prop_map(|name| Event::Symlink { name }),
        1 => any::<u8>().prop_map(|name| Event::SwapOutside { name }),
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

pub(crate) fn apply(tree: &Path, event: &Event) {
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
        Event::Append { name, content } => append(&at(*name), &content_of(*content)),
        Event::Truncate { name, length } => {
            File::options().write(true).open(at(*name)).and_then(|file| file.set_len(u64::from(*length % 12)))
        }
        Event::RenameDirectory { from, to } => {
            let directory = |name: u8| tree.join(DIRECTORIES[usize::from(name) % DIRECTORIES.len()]);
            make_parent(&directory(*to)).and_then(|()| std::fs::rename(directory(*from), directory(*to)))
        }
        Event::Replace { name, content } => {
            let new = tree.join("being-saved");
            make_parent(&at(*name))
                .and_then(|()| std::fs::write(&new, content_of(*content)))
                .and_then(|()| std::fs::rename(&new, at(*name)))
                .or_else(|_| std::fs::remove_file(&new))
        }
        Event::ChangeMode { name, mode } => {
            let mode = std::fs::Permissions::from_mode(0o600 | u32::from(mode % 2) << 2);
            std::fs::set_permissions(at(*name), mode)
        }
        Event::TouchBack { name, hours } => File::options()
            .write(true)
            .open(at(*name))
            .and_then(|file| file.set_modified(SystemTime::now() - Duration::from_hours(u64::from(*hours)))),
        Event::Symlink { name } => {
            make_parent(&at(*name)).and_then(|()| std::os::unix::fs::symlink("nowhere", at(*name)))
        }
        Event::SwapOutside { name } => {
            let inside = tree.join(DIRECTORIES[usize::from(*name) % DIRECTORIES.len()]);
            let (out, other) = (tree.with_extension("out"), tree.with_extension("other"));
            let _ = std::fs::rename(&inside, &other);
            let _ = make_parent(&inside).and_then(|()| std::fs::rename(&out, &inside));
            std::fs::rename(&other, &out)
        }
    };
}

/// Directories that are moved as a whole.
const DIRECTORIES: [&str; 5] = ["d", "d/e", "moved", "moved/e", "d/moved"];

fn append(path: &Path, content: &[u8]) -> std::io::Result<()> {
    File::options().append(true).open(path)?.write_all(&content[..content.len().min(10)])
}

fn rewrite_in_secret(path: &Path, content: u8) -> std::io::Result<()> {
    let modified = std::fs::metadata(path)?.modified()?;
    std::fs::write(path, content_of(content))?;
    File::options().write(true).open(path)?.set_modified(modified)
}

/// Groups of equal files, found by comparing every byte with every byte.
pub(crate) fn brute_force(tree: &Path) -> Vec<Vec<OsString>> {
    groups_of_equal_files(tree, 1)
}

/// The same, of files from this size on.
pub(crate) fn groups_of_equal_files(tree: &Path, min_size: usize) -> Vec<Vec<OsString>> {
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
            if !metadata.is_file() {
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            if content.len() >= min_size {
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
