//! Reads one file: stat, read, stat.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::cancel::Cancel;
use crate::model::digest::{Digest, Sample};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Job, Outcome, PendingName, SAMPLE_PIECE, SMALL_FILE, Stage};
use crate::model::stamp::{FileStat, Nanos, Stamp};
use crate::os;

/// Bytes asked for at once: a small file has to fit in one request, and cached files read little
/// faster with more (64 KiB 3.1 GB/s, 1 MiB 3.7 GB/s measured).
const BUFFER: usize = 128 * 1024;
const _: () = assert!(BUFFER as u64 >= SMALL_FILE);

/// Reads files; one for each thread, so that the buffer is reused.
#[derive(Debug)]
pub struct FileReader {
    buffer: Vec<u8>,
    cancel: Cancel,
}

/// What was read of a file.
enum Content {
    Whole(Digest, Option<Sample>, Stamp),
    Places(Sample, Stamp),
    /// The file is not what the index knows, or changed under the reader.
    Changed(Stamp),
}

/// A read that ended early.
enum Stop {
    Cancelled,
    Failed(Problem),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(Problem::of(&error))
    }
}

impl FileReader {
    /// A reader that gives up at the next chunk once `cancel` is requested.
    pub fn new(cancel: Cancel) -> Self {
        Self { buffer: vec![0; BUFFER], cancel }
    }

    /// Reads a file once for all its names; `None` if it was cancelled, so that nothing is known.
    ///
    /// A name that cannot be opened does not condemn the others: the next one is tried.
    pub fn process(&mut self, job: &Job) -> Option<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(job.names.len());
        for (index, name) in job.names.iter().enumerate() {
            let from = Nanos::now();
            let finding = match self.read(job, &name.path) {
                Ok(content) => finding(&content, from),
                Err(Stop::Cancelled) => return None,
                Err(Stop::Failed(problem)) => {
                    outcomes.push(outcome(name, job, Finding::Failed(problem)));
                    continue;
                }
            };
            let remaining = &job.names[index..];
            outcomes.extend(remaining.iter().map(|name| outcome(name, job, finding.clone())));
            break;
        }
        Some(outcomes)
    }

    fn read(&mut self, job: &Job, path: &Path) -> Result<Content, Stop> {
        let file = match os::open_to_read(path) {
            Err(error) if os::is_link_refused(&error) => return Err(Stop::Failed(Problem::NotRegular)),
            file => file?,
        };
        let before = FileStat::from(&file.metadata()?);
        if !before.is_file {
            return Err(Stop::Failed(Problem::NotRegular));
        }
        let stamp = stamp_as_listed(&before, path, job.stamp);
        // A change of ctime alone is one of permissions, owner or links, such as makes a file readable.
        if stamp != (Stamp { ctime: stamp.ctime, ..job.stamp }) {
            return Ok(Content::Changed(stamp));
        }
        let is_large = stamp.size > SMALL_FILE;
        let content = if is_large && job.stage == Stage::Size {
            Content::Places(self.sample(&file, stamp.size)?, stamp)
        } else {
            let digest = self.hash(&file, stamp.size)?;
            let sample = if is_large { Some(self.sample(&file, stamp.size)?) } else { None };
            Content::Whole(digest, sample, stamp)
        };
        let after = stamp_as_listed(&FileStat::from(&file.metadata()?), path, job.stamp);
        if after != stamp {
            return Ok(Content::Changed(after));
        }
        Ok(content)
    }

    /// BLAKE3 of the whole content of a file of `size` bytes. Nothing is asked for beyond: if the
    /// file grew, the stat that follows tells.
    fn hash(&mut self, mut file: &File, size: u64) -> Result<Digest, Stop> {
        let mut hasher = blake3::Hasher::new();
        let mut remaining = size;
        while remaining > 0 {
            if self.cancel.is_requested() {
                return Err(Stop::Cancelled);
            }
            match file.read(&mut self.buffer) {
                // Truncated; the stat that follows tells.
                Ok(0) => break,
                Ok(length) => {
                    hasher.update(&self.buffer[..length]);
                    remaining = remaining.saturating_sub(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// A hash of the first, the middle and the last bytes of a file larger than a sample.
    fn sample(&mut self, file: &File, size: u64) -> Result<Sample, Stop> {
        let piece = SAMPLE_PIECE as u64;
        let mut hasher = blake3::Hasher::new();
        for offset in [0, (size - piece) / 2, size - piece] {
            if self.cancel.is_requested() {
                return Err(Stop::Cancelled);
            }
            let buffer = &mut self.buffer[..SAMPLE_PIECE];
            match file.read_exact_at(buffer, offset) {
                Ok(()) => hasher.update(buffer),
                // Truncated meanwhile; the stat that follows tells.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error.into()),
            };
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Ok(Sample(half))
    }
}

/// The stamp of an open file, with its inode expressed as in the listing (see [`Stamp::of`]): only
/// if the plain number differs is the directory's device asked for.
fn stamp_as_listed(stat: &FileStat, path: &Path, listed: Stamp) -> Stamp {
    let plain = Stamp::of(stat, stat.device);
    if plain.inode == listed.inode {
        return plain;
    }
    let directory = path.parent().and_then(|parent| std::fs::metadata(parent).ok());
    directory.map_or(plain, |directory| Stamp::of(stat, directory.dev()))
}

fn finding(content: &Content, from: Nanos) -> Finding {
    let to = Nanos::now();
    match *content {
        Content::Whole(digest, sample, stamp) => {
            Finding::Hashed { digest, sample, ctime: stamp.ctime, racy: stamp.is_racy(from, to) }
        }
        Content::Places(sample, stamp) => {
            Finding::Sampled { sample, ctime: stamp.ctime, racy: stamp.is_racy(from, to) }
        }
        Content::Changed(now) => Finding::Changed(now),
    }
}

fn outcome(name: &PendingName, job: &Job, finding: Finding) -> Outcome {
    Outcome { key: name.key.clone(), expected: job.stamp, finding, lease: job.lease }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::listing::DirectoryId;
    use crate::model::pending::FileKey;

    fn job(path: &Path, stage: Stage) -> Job {
        let stat = FileStat::from(&std::fs::metadata(path).unwrap());
        let stamp = Stamp::of(&stat, stat.device);
        let key = FileKey { directory: DirectoryId(1), name: b"f".as_slice().into() };
        Job { stamp, names: vec![PendingName { key, path: path.to_path_buf() }], stage, lease: None }
    }

    fn read_one(job: &Job) -> Finding {
        let outcomes = FileReader::new(Cancel::default()).process(job).unwrap();
        assert_eq!(outcomes.len(), job.names.len());
        outcomes[0].finding.clone()
    }

    #[test]
    fn a_file_is_hashed_whole_whatever_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for length in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 7] {
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            std::fs::write(&path, &content).unwrap();
            let expected = Digest(*blake3::hash(&content).as_bytes());
            for stage in [Stage::Everything, Stage::Sample] {
                let finding = read_one(&job(&path, stage));
                let Finding::Hashed { digest, sample, racy, .. } = finding else { panic!("{finding:?}") };
                assert_eq!((digest, racy), (expected, true), "just written, so to be read again");
                assert_eq!(sample.is_some(), length > BUFFER);
            }
        }
    }

    #[test]
    fn a_sample_sees_all_three_places_and_equals_that_of_a_whole_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let length = 10 * BUFFER;
        let sample_of = |changed: Option<usize>, stage| {
            let mut content = vec![7; length];
            if let Some(position) = changed {
                content[position] = 8;
            }
            std::fs::write(&path, &content).unwrap();
            match read_one(&job(&path, stage)) {
                Finding::Sampled { sample, .. } | Finding::Hashed { sample: Some(sample), .. } => sample,
                other => panic!("{other:?}"),
            }
        };
        let plain = sample_of(None, Stage::Size);
        assert_eq!(plain, sample_of(None, Stage::Everything));
        for position in [0, length / 2, length - 1] {
            assert_ne!(plain, sample_of(Some(position), Stage::Size), "{position}");
        }
        assert_eq!(plain, sample_of(Some(length / 4), Stage::Size), "only a whole read tells");
    }

    #[test]
    fn what_is_not_the_listed_file_is_never_hashed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let listed = job(&path, Stage::Size);
        std::fs::write(&path, b"longer").unwrap();
        assert!(matches!(read_one(&listed), Finding::Changed(stamp) if stamp.size == 6));

        std::fs::remove_dir_all(directory.path()).unwrap();
        assert!(matches!(read_one(&listed), Finding::Failed(Problem::Vanished)));

        std::fs::create_dir(directory.path()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(read_one(&listed), Finding::Failed(Problem::NotRegular)), "must not block");

        let mut link = listed.clone();
        link.names[0].path = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link.names[0].path).unwrap();
        assert!(matches!(read_one(&link), Finding::Failed(Problem::NotRegular)), "is not followed");
    }

    #[test]
    fn a_name_that_is_gone_does_not_condemn_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let mut job = job(&path, Stage::Size);
        let gone = PendingName { path: directory.path().join("gone"), ..job.names[0].clone() };
        job.names.insert(0, gone);
        let outcomes = FileReader::new(Cancel::default()).process(&job).unwrap();
        assert!(matches!(outcomes[0].finding, Finding::Failed(Problem::Vanished)));
        assert!(matches!(outcomes[1].finding, Finding::Hashed { .. }));
    }

    #[test]
    fn a_cancelled_read_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let cancel = Cancel::default();
        cancel.request();
        assert!(FileReader::new(cancel).process(&job(&path, Stage::Size)).is_none());
    }
}
