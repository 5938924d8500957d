//! Files of which samples are read while others are still being found: what has the same size and the same sample as
//! another is read whole, without asking the index which those are.

use std::collections::HashMap;

use crate::model::digest::Sample;
use crate::model::pending::{FileKey, Finding, Job, Outcome, Stage};

/// Files are remembered with their names: some 10 MiB of them.
const MOST_SAMPLED: usize = 32 * 1024;

/// Files that are being sampled, or were.
#[derive(Debug)]
pub(super) struct Sampled {
    /// By the first of their names, without a sample until it was read. None if they were too many.
    jobs: Option<HashMap<FileKey, Job>>,
}

impl Sampled {
    pub(super) fn new() -> Self {
        Self { jobs: Some(HashMap::new()) }
    }

    /// Takes down a file that is about to be sampled.
    pub(super) fn expect(&mut self, job: &Job) {
        self.jobs.take_if(|jobs| jobs.len() == MOST_SAMPLED);
        if let Some(jobs) = &mut self.jobs {
            jobs.insert(job.names[0].key.clone(), job.clone());
        }
    }

    /// Takes down what was read, and forgets what could not be.
    pub(super) fn note(&mut self, outcomes: &[Outcome]) {
        let Some(jobs) = &mut self.jobs else { return };
        for outcome in outcomes {
            let Some(job) = jobs.get_mut(&outcome.key) else { continue };
            if let Finding::Sampled { sample, ctime, .. } = outcome.finding {
                job.sample = Some(sample);
                job.stamp.ctime = ctime;
            } else {
                jobs.remove(&outcome.key);
            }
        }
    }

    /// The files that have size and sample in common with another, to be read whole, in physical order. None if it is not
    /// known which these are.
    pub(super) fn into_shared(self) -> Option<Vec<Job>> {
        let alike = |job: &Job| -> (u64, Option<Sample>) { (job.stamp.size, job.sample) };
        let jobs = self.jobs?;
        let mut files: HashMap<_, usize> = HashMap::new();
        for job in jobs.values() {
            *files.entry(alike(job)).or_default() += 1;
        }
        let is_shared = |job: &Job| job.sample.is_some() && files[&alike(job)] > 1;
        let mut shared: Vec<Job> = jobs.into_values().filter(is_shared).collect();
        shared.sort_unstable_by_key(|job| job.stamp.inode);
        for job in &mut shared {
            job.stage = Stage::Sample;
        }
        Some(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::listing::{DirectoryId, Problem};
    use crate::model::pending::{FileId, PendingName, SMALL_FILE};
    use crate::model::stamp::{Nanos, Stamp};

    fn job(id: i64, size: u64, inode: u64) -> Job {
        let key =
            FileKey { id: FileId(id), directory: DirectoryId(1), name: id.to_string().into_bytes().into() };
        let name = PendingName { key, directory: std::path::Path::new("/d").into() };
        let stamp = Stamp { size, mtime: Nanos(1), ctime: Nanos(2), inode };
        Job { stamp, names: vec![name], stage: Stage::Size, lease: None, known: None, sample: None }
    }

    fn found(job: &Job, sample: u8) -> Outcome {
        let sample = Sample([sample; 16]);
        let finding = Finding::Sampled { sample, ctime: Nanos(3), racy: false };
        job.outcome(job.names[0].clone(), finding)
    }

    #[test]
    fn only_what_shares_size_and_sample_is_read_whole() {
        let size = SMALL_FILE + 1;
        let jobs =
            [job(1, size, 30), job(2, size, 10), job(3, size, 20), job(4, size + 1, 40), job(5, size, 50)];
        let mut sampled = Sampled::new();
        for job in &jobs {
            sampled.expect(job);
        }
        sampled.note(&[found(&jobs[0], 7), found(&jobs[1], 7), found(&jobs[2], 8)]);
        let failed = jobs[4].outcome(jobs[4].names[0].clone(), Finding::Failed(Problem::Vanished));
        sampled.note(&[found(&jobs[3], 7), failed]);

        let shared = sampled.into_shared().unwrap();
        let inodes: Vec<u64> = shared.iter().map(|job| job.stamp.inode).collect();
        assert_eq!(inodes, [10, 30], "in physical order");
        for job in shared {
            assert_eq!((job.stage, job.sample), (Stage::Sample, Some(Sample([7; 16]))));
            assert_eq!(job.stamp.ctime, Nanos(3), "as it was when the sample was read");
        }
    }

    #[test]
    fn what_was_not_sampled_is_like_nothing() {
        let jobs = [job(1, SMALL_FILE + 1, 1), job(2, SMALL_FILE + 1, 2)];
        let mut sampled = Sampled::new();
        for job in &jobs {
            sampled.expect(job);
        }
        assert!(sampled.into_shared().unwrap().is_empty());
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut sampled = Sampled::new();
        for id in 0..i64::try_from(MOST_SAMPLED).unwrap() {
            sampled.expect(&job(id, SMALL_FILE + 1, 1));
        }
        assert!(sampled.jobs.is_some());
        sampled.expect(&job(-1, SMALL_FILE + 1, 1));
        sampled.expect(&job(-2, SMALL_FILE + 1, 1));
        assert!(sampled.into_shared().is_none());
    }
}
