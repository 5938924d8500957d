//! Which names, paths and sizes are of interest.
//!
//! Patterns are globs on the path below the root. One without a slash matches a name at any depth
//! (`*.jpg`, `node_modules`), one with a slash the whole path (`photos/2019/**`), as in git.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::model::settings::ScanSettings;

/// Names passed over by default, besides those that begin with a dot.
pub const DEFAULT_IGNORES: [&str; 5] = ["*~", "*.tmp", "*.temp", ".DS_Store", "Thumbs.db"];

/// A filter that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A pattern is no glob.
    #[error("glob {pattern:?}: {}", source.kind())]
    Glob {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A pattern would match every file or none.
    #[error("glob {0:?}: it names nothing")]
    EmptyGlob(String),
    /// No size is both large and small enough.
    #[error("the smallest size, {min} bytes, is more than the largest, {max} bytes")]
    Sizes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
}

/// The filter of one root.
#[derive(Debug)]
pub struct Filter {
    ignored_names: Option<GlobSet>,
    hidden: bool,
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
    min_size: u64,
    max_size: u64,
}

impl Filter {
    /// Compiles the patterns of a root's settings.
    pub fn new(settings: &ScanSettings) -> Result<Self, FilterError> {
        let max_size = settings.max_size.unwrap_or(u64::MAX);
        if settings.min_size > max_size {
            return Err(FilterError::Sizes { min: settings.min_size, max: max_size });
        }
        let default_ignores = DEFAULT_IGNORES.map(str::to_owned);
        let ignored: &[String] = if settings.default_ignores { &default_ignores } else { &[] };
        Ok(Self {
            ignored_names: compile(ignored, name_glob)?,
            hidden: settings.hidden || !settings.default_ignores,
            include: compile(&settings.include, path_glob)?,
            exclude: compile(&settings.exclude, path_glob)?,
            min_size: settings.min_size,
            max_size,
        })
    }

    /// The filter for files that were named one by one: the default ignores do not apply to them.
    pub fn for_named_files(settings: &ScanSettings) -> Result<Self, FilterError> {
        Self::new(&ScanSettings { default_ignores: false, ..settings.clone() })
    }

    /// True if a file or directory is passed over because of its name or path.
    pub fn passes_over(&self, name: &[u8], relative: &[u8]) -> bool {
        let hidden = !self.hidden && name.first() == Some(&b'.');
        hidden || matches(self.ignored_names.as_ref(), name) || matches(self.exclude.as_ref(), relative)
    }

    /// True if a path below the root is passed over, or lies in a directory that is.
    pub fn passes_over_path(&self, relative: &[u8]) -> bool {
        let ends = (0..=relative.len()).filter(|end| relative.get(*end).is_none_or(|byte| *byte == b'/'));
        ends.map(|end| &relative[..end]).any(|path| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            !name.is_empty() && self.passes_over(name, path)
        })
    }

    /// True if a file at this path is asked for.
    pub fn includes(&self, relative: &[u8]) -> bool {
        self.include.is_none() || matches(self.include.as_ref(), relative)
    }

    /// True if a file of this size in bytes is asked for.
    pub fn takes_size(&self, size: u64) -> bool {
        (self.min_size..=self.max_size).contains(&size)
    }
}

fn matches(set: Option<&GlobSet>, path: &[u8]) -> bool {
    set.is_some_and(|set| set.is_match(Path::new(OsStr::from_bytes(path))))
}

fn compile(
    patterns: &[String],
    glob: fn(&str) -> Result<Glob, globset::Error>,
) -> Result<Option<GlobSet>, FilterError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anchored = pattern.trim_end_matches('/');
        if anchored.is_empty() {
            return Err(FilterError::EmptyGlob(pattern.clone()));
        }
        set.add(glob(anchored).map_err(|source| FilterError::Glob { pattern: pattern.clone(), source })?);
    }
    let set = set.build().map_err(|source| FilterError::Glob { pattern: patterns.join(" "), source })?;
    Ok(Some(set))
}

/// A pattern for names alone, which hold no slash: without one to heed, no regular expression is needed.
fn name_glob(pattern: &str) -> Result<Glob, globset::Error> {
    Glob::new(pattern)
}

fn path_glob(pattern: &str) -> Result<Glob, globset::Error> {
    let whole = match pattern.strip_prefix('/') {
        Some(below_root) => below_root.to_owned(),
        None if pattern.contains('/') => pattern.to_owned(),
        None => format!("**/{pattern}"),
    };
    GlobBuilder::new(&whole).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(settings: &ScanSettings) -> Filter {
        Filter::new(settings).unwrap()
    }

    #[test]
    fn names_that_are_hardly_of_interest_are_passed_over_by_default() {
        let default = filter(&ScanSettings::default());
        for name in [".git", "a~", "b.tmp", "c.temp", "Thumbs.db", ".DS_Store"] {
            assert!(default.passes_over(name.as_bytes(), name.as_bytes()), "{name}");
        }
        assert!(!default.passes_over(b"\xff.jpg", b"d/\xff.jpg"));
        let hidden = filter(&ScanSettings { hidden: true, ..ScanSettings::default() });
        assert!(!hidden.passes_over(b".git", b".git"));
        assert!(hidden.passes_over(b".DS_Store", b".DS_Store"));
        let all = filter(&ScanSettings { default_ignores: false, ..ScanSettings::default() });
        assert!(!all.passes_over(b".DS_Store", b".DS_Store"));
    }

    #[test]
    fn a_path_is_passed_over_with_any_directory_on_it() {
        let exclude = vec!["cache/".to_owned(), "a/b".to_owned()];
        let filter = filter(&ScanSettings { exclude, ..ScanSettings::default() });
        for path in [".git", "x/.git/y", "cache/x", "x/cache", "a/b/c"] {
            assert!(filter.passes_over_path(path.as_bytes()), "{path}");
        }
        for path in ["", "x", "x/a/b", "a/c"] {
            assert!(!filter.passes_over_path(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_pattern_without_slash_matches_at_any_depth_and_one_with_slash_from_the_root() {
        let exclude = vec!["*.jpg".to_owned(), "a/b".to_owned(), "/top".to_owned(), "x/**/y".to_owned()];
        let filter = filter(&ScanSettings { exclude, ..ScanSettings::default() });
        for path in ["p.jpg", "d/e/p.jpg", "a/b", "top", "x/1/2/y"] {
            let name = path.rsplit('/').next().unwrap();
            assert!(filter.passes_over(name.as_bytes(), path.as_bytes()), "{path}");
        }
        for path in ["d/a/b", "d/top", "p.jpeg"] {
            let name = path.rsplit('/').next().unwrap();
            assert!(!filter.passes_over(name.as_bytes(), path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_broken_glob_is_named() {
        let settings = ScanSettings { include: vec!["a[".to_owned()], ..ScanSettings::default() };
        assert!(Filter::new(&settings).unwrap_err().to_string().contains("a["));
    }
}
