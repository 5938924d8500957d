//! What is reclaimable, by directory and by type.
//!
//! Each physical file of a group bears an equal share of what the group could free, so that the bars
//! add up and no copy is called the original.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::page::Bar;
use crate::format::{bytes, plural};
use crate::model::group::Group;
use crate::model::path::shown_path;

/// Bars in a chart, the last of them for all the rest.
const BARS: usize = 12;

/// Levels below a root that a directory chart can show.
const LEVELS: usize = 3;

/// Directories or types told apart; further ones count as "other", so that memory stays flat.
const MOST_KEYS: usize = 20_000;

/// If one directory holds more than this share, the level below it tells more (per cent).
const DOMINANT: u64 = 70;

/// Sums of reclaimable bytes.
#[derive(Debug, Default)]
pub(super) struct Charts {
    roots: Vec<PathBuf>,
    levels: [Sums; LEVELS],
    types: Sums,
}

#[derive(Debug, Default)]
struct Sums {
    by_key: HashMap<String, Sum>,
    rest: Sum,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    bytes: u64,
    files: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.files += other.files;
    }
}

impl Charts {
    /// Charts of what lies below these roots.
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, ..Self::default() }
    }

    /// Adds a physical file of a group.
    pub(super) fn add(&mut self, group: &Group, host: Option<&str>, path: &Path) {
        let share = Sum { bytes: group.reclaimable_bytes() / group.files.max(1), files: 1 };
        self.types.add(kind_of(path), share);
        let inside = self.roots.iter().filter(|root| path.starts_with(root));
        let root = inside.max_by_key(|root| root.as_os_str().len()).map_or(Path::new("/"), PathBuf::as_path);
        let below = path.parent().and_then(|directory| directory.strip_prefix(root).ok());
        for (level, sums) in self.levels.iter_mut().enumerate() {
            let mut directory = root.to_path_buf();
            directory.extend(below.into_iter().flat_map(Path::components).take(level + 1));
            sums.add(shown_path(host, &directory), share);
        }
    }

    /// The directories at the highest level below the roots that tells something.
    pub(super) fn by_directory(&self) -> Vec<Bar> {
        let telling = self.levels.iter().find(|sums| sums.largest_share() <= DOMINANT);
        telling.unwrap_or(&self.levels[0]).bars()
    }

    /// The types.
    pub(super) fn by_type(&self) -> Vec<Bar> {
        self.types.bars()
    }
}

impl Sums {
    fn add(&mut self, key: String, share: Sum) {
        if self.by_key.len() >= MOST_KEYS && !self.by_key.contains_key(&key) {
            self.rest.add(share);
            return;
        }
        self.by_key.entry(key).or_default().add(share);
    }

    /// The largest sum in per cent of all.
    fn largest_share(&self) -> u64 {
        let total: u64 = self.by_key.values().map(|sum| sum.bytes).sum::<u64>() + self.rest.bytes;
        let largest = self.by_key.values().map(|sum| sum.bytes).max().unwrap_or_default();
        largest.saturating_mul(100) / total.max(1)
    }

    fn bars(&self) -> Vec<Bar> {
        let mut sums: Vec<(&str, Sum)> = self.by_key.iter().map(|(key, sum)| (key.as_str(), *sum)).collect();
        sums.sort_by(|(a_key, a), (b_key, b)| b.bytes.cmp(&a.bytes).then(a_key.cmp(b_key)));
        sums.retain(|(_, sum)| sum.bytes > 0);
        let mut rest = self.rest;
        if sums.len() > BARS {
            for (_, sum) in sums.drain(BARS - 1..) {
                rest.add(sum);
            }
        }
        if rest.bytes > 0 {
            sums.push(("other", rest));
        }
        let longest = sums.iter().map(|(_, sum)| sum.bytes).max().unwrap_or_default().max(1);
        let bar = |(label, sum): &(&str, Sum)| Bar {
            label: (*label).to_owned(),
            value: bytes(sum.bytes),
            files: plural(sum.files, "file", "files"),
            percent: per_cent(sum.bytes, longest),
        };
        sums.iter().map(bar).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
fn per_cent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The type of a file, by its extension in lower case.
pub(super) fn kind_of(path: &Path) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let plausible =
        |text: &&str| text.len() <= 10 && text.chars().all(|letter| letter.is_ascii_alphanumeric());
    extension.filter(plausible).map_or_else(|| "no extension".to_owned(), str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    #[test]
    fn shares_add_up_and_the_level_that_tells_something_is_shown() {
        let mut charts = Charts::new(vec![PathBuf::from("/d")]);
        let group = Group { size: 1000, digest: Digest([0; 32]), files: 2 };
        for path in ["/d/only/a/x.JPG", "/d/only/b/x.jpg", "/d/only/b/deep/y.txt", "/d/only/c/noext"] {
            charts.add(&group, None, Path::new(path));
        }
        let directories: Vec<String> = charts.by_directory().into_iter().map(|bar| bar.label).collect();
        assert_eq!(directories, ["/d/only/b", "/d/only/a", "/d/only/c"]);
        let types: Vec<(String, String)> =
            charts.by_type().into_iter().map(|bar| (bar.label, bar.files)).collect();
        assert_eq!(types[0], ("jpg".to_owned(), "2 files".to_owned()));
        assert_eq!(types.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_other() {
        let mut charts = Charts::default();
        let group = Group { size: 1000, digest: Digest([0; 32]), files: 2 };
        for index in 0..30 {
            charts.add(&group, None, Path::new(&format!("/{index}/x.t{index}")));
        }
        let bars = charts.by_type();
        assert_eq!(bars.len(), BARS);
        assert_eq!((bars[BARS - 1].label.as_str(), bars[BARS - 1].files.as_str()), ("other", "19 files"));
    }
}
