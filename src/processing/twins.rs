//! Twins: files of one size and one sample, which are probably equal.
//!
//! From memory they are read side by side and compared, and what is the same in all of them so far is hashed once:
//! comparing costs a fraction of hashing (a third off the time of 6 GB of media files, and a fifth off that of files of
//! 1 GiB). A file that differs goes on by itself from there, with the state of the hash of
//! what it has in common with the others. So each gets BLAKE3 of its own content, whatever the others hold.

use std::collections::HashMap;

use super::opened::{Opened, Stop};
use super::pool::Task;
use super::read::{BUFFER, FileReader};
use crate::concurrency::{Concurrency, Meter};
use crate::model::digest::Digest;
use crate::model::pending::{Job, Outcome};

/// Files that are read side by side: more of them save little, and keep other threads from sharing the work.
const MOST_TWINS: usize = 8;

/// Bytes compared at once: two such pieces stay in the cache of a processor.
const PIECE: usize = 128 * 1024;
const _: () = assert!(2 * PIECE <= BUFFER);

/// Makes tasks of jobs in physical order, with twins in one task while they come from memory.
///
/// A disk is asked for one file after the other, in order. As many tasks are left single as would leave one of the
/// processors without work at the end.
pub fn tasks(jobs: Vec<Job>, concurrency: &Concurrency) -> Vec<Task> {
    if concurrency.adaptation().waits || jobs.iter().all(|job| job.sample.is_none()) {
        return jobs.into_iter().map(Task::One).collect();
    }
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<Job>> = Vec::new();
    for job in jobs {
        let Some(sample) = job.sample else {
            groups.push(vec![job]);
            continue;
        };
        let place = places.entry((job.stamp.size, sample)).or_insert(groups.len());
        if *place == groups.len() || groups[*place].len() == MOST_TWINS {
            *place = groups.len();
            groups.push(Vec::new());
        }
        groups[*place].push(job);
    }
    let mut left = groups.iter().filter(|group| group.len() > 1).count();
    left -= left % concurrency.threads().least.max(1);
    let mut tasks = Vec::with_capacity(groups.len());
    for group in groups {
        if group.len() > 1 && left > 0 {
            left -= 1;
            tasks.push(Task::Twins(group));
        } else {
            tasks.extend(group.into_iter().map(Task::One));
        }
    }
    tasks
}

/// Files whose first bytes are the same.
struct Alike {
    /// Their places among the twins.
    files: Vec<usize>,
    /// How many bytes.
    read: u64,
    /// The hash of these bytes.
    hasher: blake3::Hasher,
}

impl FileReader {
    /// Reads files of one size side by side, and adds an outcome for each of their names; `None` if it was cancelled:
    /// of files without an outcome nothing is known, then.
    pub fn process_twins(
        &mut self,
        jobs: Vec<Job>,
        meter: &mut Meter<'_>,
        outcomes: &mut Vec<Outcome>,
    ) -> Option<()> {
        // They take all of the buffer.
        self.hash_gathered(outcomes);
        let (mut twins, mut alone) = (Vec::new(), Vec::new());
        for job in jobs {
            match self.open(&job, &job.names[0]) {
                Ok(opened) => twins.push((job, opened)),
                Err(_) => alone.push(job),
            }
        }
        let (jobs, opened): (Vec<Job>, Vec<Opened>) = twins.into_iter().unzip();
        let hashed = self.hash_twins(&opened, meter);
        for ((job, opened), digest) in jobs.into_iter().zip(&opened).zip(hashed) {
            match digest.and_then(|digest| self.hashed(opened, digest, meter)) {
                Ok(finding) => {
                    self.read_bytes += job.bytes_to_read();
                    outcomes.extend(job.outcomes(&finding));
                }
                Err(Stop::Cancelled) => return None,
                Err(_) => alone.push(job),
            }
        }
        // What is wrong with them, and whether another name helps, shows when they are read by themselves.
        alone.into_iter().try_for_each(|job| self.process(job, meter, outcomes))
    }

    fn hash_twins(&mut self, twins: &[Opened], meter: &mut Meter<'_>) -> Vec<Result<Digest, Stop>> {
        let mut hashed: Vec<_> = twins.iter().map(|_| Err(Stop::Cancelled)).collect();
        let all = (0..twins.len()).collect();
        let mut waiting = vec![Alike { files: all, read: 0, hasher: blake3::Hasher::new() }];
        while let Some(mut alike) = waiting.pop() {
            while self.goes_on(&alike, twins, meter) {
                waiting.extend(self.hash_piece(&mut alike, twins, meter));
            }
            let Alike { files, read, hasher } = alike;
            for file in files {
                hashed[file] = self.hash_rest(&twins[file], hasher.clone(), read, meter);
            }
        }
        hashed
    }

    /// True if it is worth it to go on side by side: two files that have to be waited for are read faster one after
    /// the other.
    fn goes_on(&self, alike: &Alike, twins: &[Opened], meter: &Meter<'_>) -> bool {
        let is_at_end = alike.files.iter().any(|&file| alike.read >= twins[file].size());
        alike.files.len() > 1 && !is_at_end && !meter.waits() && !self.cancel.is_requested()
    }

    /// Compares and hashes the next piece, and takes out the files in which it is another one, or cannot be read.
    fn hash_piece(&mut self, alike: &mut Alike, twins: &[Opened], meter: &mut Meter<'_>) -> Option<Alike> {
        let first = alike.files[0];
        let length = usize::try_from(twins[first].size() - alike.read).map_or(PIECE, |left| left.min(PIECE));
        let (piece, other) = self.free().split_at_mut(PIECE);
        let (piece, other) = (&mut piece[..length], &mut other[..length]);
        if twins[first].read_exactly(piece, alike.read, meter).is_err() {
            alike.files.remove(0);
            return Some(alike.apart(vec![first]));
        }
        let (same, differing) = alike.files.iter().partition(|&&file| {
            file == first || (twins[file].read_exactly(other, alike.read, meter).is_ok() && piece == other)
        });
        let apart = alike.apart(differing);
        alike.files = same;
        alike.hasher.update(piece);
        alike.read += length as u64;
        (!apart.files.is_empty()).then_some(apart)
    }
}

impl Alike {
    /// The same beginning of other files.
    fn apart(&self, files: Vec<usize>) -> Self {
        Self { files, read: self.read, hasher: self.hasher.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cancel::Cancel;
    use crate::concurrency::{Adaptation, Threads};
    use crate::model::digest::Sample;
    use crate::model::listing::Problem;
    use crate::model::pending::{Finding, Stage};
    use crate::processing::testing::job;

    const LENGTH: usize = 3 * PIECE + 7;

    fn twin(path: &Path) -> Job {
        Job { sample: Some(Sample([0; 16])), ..job(path, Stage::Sample) }
    }

    /// Files of one length, each with other bytes at these positions, as jobs; and what they hold.
    fn twins(directory: &Path, differences: &[&[usize]]) -> Vec<(Job, Vec<u8>)> {
        let make = |(number, positions): (usize, &&[usize])| {
            let mut content: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
            for &position in *positions {
                content[position] ^= 0xff;
            }
            let path = directory.join(number.to_string());
            std::fs::write(&path, &content).unwrap();
            (twin(&path), content)
        };
        differences.iter().enumerate().map(make).collect()
    }

    /// What reading them side by side finds, in the order of their names.
    fn process(jobs: Vec<Job>, adaptation: Option<Adaptation>, cancel: Cancel) -> (Vec<Outcome>, Option<()>) {
        let concurrency = Concurrency::after(Threads::exactly(1), adaptation);
        let mut outcomes = Vec::new();
        let done = FileReader::new(cancel).process_twins(jobs, &mut concurrency.meter(), &mut outcomes);
        outcomes.sort_by(|a, b| a.key.name.cmp(&b.key.name));
        (outcomes, done)
    }

    fn assert_hashed(outcome: &Outcome, content: &[u8]) {
        let Finding::Hashed { digest, sample, .. } = outcome.finding else { panic!("{outcome:?}") };
        assert_eq!(digest.0, *blake3::hash(content).as_bytes(), "{outcome:?}");
        assert!(sample.is_some());
    }

    #[test]
    fn each_gets_the_hash_of_its_own_content_wherever_it_parts_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let middle = &[PIECE + 1][..];
        let differences =
            [&[][..], middle, &[], &[0], &[LENGTH - 1], &[PIECE + 1, LENGTH - 1], middle, &[2 * PIECE]];
        // Also when there is a disk to wait for.
        for adaptation in [None, Some(Adaptation { allowed: 1, waits: true })] {
            let (jobs, contents): (Vec<Job>, Vec<_>) =
                twins(directory.path(), &differences).into_iter().unzip();
            let (outcomes, done) = process(jobs, adaptation, Cancel::default());
            assert!(done.is_some());
            assert_eq!(outcomes.len(), differences.len());
            for (outcome, content) in outcomes.iter().zip(&contents) {
                assert_hashed(outcome, content);
            }
        }
    }

    #[test]
    fn one_that_is_gone_shorter_or_another_file_does_not_concern_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (mut jobs, contents): (Vec<Job>, Vec<_>) =
            twins(directory.path(), &[&[], &[], &[], &[]]).into_iter().unzip();
        jobs[0].names[0].key.name = b"0 is gone".as_slice().into();
        std::fs::write(path("1"), &contents[1][..PIECE]).unwrap();
        let mut other_name = jobs[0].names[0].clone();
        other_name.key.name = b"also".as_slice().into();
        std::fs::write(path("also"), b"another").unwrap();
        jobs[0].names.push(other_name);
        let (outcomes, _) = process(jobs, None, Cancel::default());
        assert_eq!(outcomes.len(), 5);
        assert!(matches!(outcomes[0].finding, Finding::Failed(Problem::Vanished)));
        assert!(matches!(outcomes[1].finding, Finding::Changed(now) if now.size == PIECE as u64));
        assert_hashed(&outcomes[2], &contents[2]);
        assert_hashed(&outcomes[3], &contents[3]);
        assert!(matches!(outcomes[4].finding, Finding::Changed(now) if now.size == 7));
    }

    #[test]
    fn what_was_cancelled_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = twins(directory.path(), &[&[], &[]]).into_iter().map(|(job, _)| job).collect();
        let cancel = Cancel::default();
        cancel.request();
        let (outcomes, done) = process(jobs, None, cancel);
        assert!(outcomes.is_empty() && done.is_none());
    }

    /// The tasks made of jobs with these samples: how many files each has.
    fn sizes_of_tasks(samples: &[Option<u8>], processors: usize, waits: bool) -> Vec<usize> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let jobs = samples
            .iter()
            .map(|sample| Job { sample: sample.map(|byte| Sample([byte; 16])), ..twin(&path) })
            .collect();
        let threads = Threads { least: processors, most: 8 };
        let adaptation = Adaptation { allowed: processors, waits };
        let files = |task: &Task| match task {
            Task::One(_) => 1,
            Task::Twins(jobs) => jobs.len(),
        };
        tasks(jobs, &Concurrency::after(threads, Some(adaptation))).iter().map(files).collect()
    }

    #[test]
    fn twins_become_one_task_unless_a_processor_would_have_nothing_to_do() {
        let [a, b, c, none] = [Some(1), Some(2), Some(3), None];
        assert_eq!(sizes_of_tasks(&[a, b, a, none, b], 2, false), [2, 2, 1]);
        assert_eq!(sizes_of_tasks(&[a, b, a, none, b], 2, true), [1, 1, 1, 1, 1], "a disk is asked in order");
        assert_eq!(sizes_of_tasks(&[a, b, c, a, b, c], 2, false), [2, 2, 1, 1]);
        assert_eq!(sizes_of_tasks(&[a, a], 2, false), [1, 1]);
        assert_eq!(sizes_of_tasks(&[none, none], 1, false), [1, 1], "nothing is known of them");
        assert_eq!(sizes_of_tasks(&[a; 2 * MOST_TWINS + 1], 1, false), [MOST_TWINS, MOST_TWINS, 1]);
    }
}
