//! Reads one file: stat, read, stat. Of a small file the first of these is the one by which it was listed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::many;
use super::opened::{Opened, Stop, places_of_sample};
use crate::cancel::Cancel;
use crate::concurrency::Meter;
use crate::model::digest::{Digest, Sample, first_half};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Job, Outcome, PendingName, SAMPLE_PIECE, SMALL_FILE};
use crate::model::stamp::{Clock, FileStat, Nanos, Stamp};
use crate::os::{self, Directory};

/// Bytes asked for at once: a small file has to fit in one request. Of cold media files, 128 KiB cost twice the processor's
/// time of 1 MiB and a fifth more in all; 256 KiB are as fast as 1 MiB, whether the system reads 128 KiB ahead or 8 MiB,
/// and take 24 MiB less memory with 32 threads. From memory there is no difference.
pub(super) const BUFFER: usize = 256 * 1024;
const _: () = assert!(BUFFER as u64 >= SMALL_FILE);

/// Reads files; one for each thread, so that the buffer is reused.
#[derive(Debug)]
pub struct FileReader {
    /// It begins with what small files hold that are to be hashed together; the rest is free.
    buffer: Vec<u8>,
    gathered_bytes: usize,
    gathered: Vec<(Job, Content)>,
    /// The directory of the last file: the next one is mostly in it, too.
    directory: Option<(Arc<Path>, Directory)>,
    /// Of that directory.
    clock: Clock,
    /// Whether files of that directory have been what they were listed as, so far.
    takes_as_listed: bool,
    /// Bytes of files that were read, until somebody takes the number.
    pub(super) read_bytes: u64,
    pub(super) cancel: Cancel,
}

/// A file that is about to be read.
#[derive(Debug)]
pub struct Begun {
    job: Job,
    /// By its first name.
    opened: Result<Opened, Stop>,
}

/// What a file was found to hold.
enum Found {
    Known(Finding),
    /// Content that is to be hashed with that of others.
    Gathered(Content),
}

/// The content of a small file that was the same before and after it was read.
#[derive(Debug)]
struct Content {
    /// Where it is among the contents.
    bytes: Range<usize>,
    ctime: Nanos,
    racy: bool,
}

impl FileReader {
    /// A reader that gives up at the next chunk once `cancel` is requested.
    pub fn new(cancel: Cancel) -> Self {
        Self {
            buffer: vec![0; BUFFER],
            gathered: Vec::new(),
            gathered_bytes: 0,
            directory: None,
            clock: Clock::Unknown,
            takes_as_listed: true,
            read_bytes: 0,
            cancel,
        }
    }

    /// Reads a file once for all its names, and adds an outcome for each; `None` if it was cancelled, so that
    /// nothing is known.
    ///
    /// A name that cannot be opened does not condemn the others: the next one is tried. Nor does one that is another
    /// file by now: only what was read holds for all names.
    pub fn process(&mut self, job: Job, meter: &mut Meter<'_>, outcomes: &mut Vec<Outcome>) -> Option<()> {
        let begun = self.begin(job);
        self.finish(begun, meter, outcomes)?;
        self.hash_gathered(outcomes);
        Some(())
    }

    /// Opens a file to be read soon, and asks for its content.
    pub fn expect(&mut self, job: Job) -> Begun {
        let mut begun = self.begin(job);
        if let Ok(opened) = &mut begun.opened {
            opened.expect(begun.job.is_sampled(), self.free());
        }
        begun
    }

    /// Opens a file to be read at once.
    pub fn begin(&mut self, job: Job) -> Begun {
        let opened = self.open_as_listed(&job, &job.names[0]);
        Begun { job, opened }
    }

    /// Goes on with a file that is open: see [`process`](Self::process). What became of a small one is added by
    /// [`hash_gathered`](Self::hash_gathered).
    pub fn finish(&mut self, begun: Begun, meter: &mut Meter<'_>, outcomes: &mut Vec<Outcome>) -> Option<()> {
        let Begun { mut job, opened } = begun;
        let mut opened = Some(opened);
        let before = outcomes.len();
        let needed = usize::try_from(job.bytes_to_read()).unwrap_or(usize::MAX).min(BUFFER);
        if self.gathered_bytes + needed > BUFFER - SAMPLE_PIECE {
            self.hash_gathered(outcomes);
        }
        let mut names = std::mem::take(&mut job.names).into_iter();
        while let Some(name) = names.next() {
            let problem = match self.find(&job, &name, opened.take(), meter) {
                Ok(found) => {
                    self.read_bytes += job.bytes_to_read();
                    // It holds for the names that are left, too.
                    job.names = std::iter::once(name).chain(names).collect();
                    match found {
                        Found::Known(finding) => outcomes.extend(job.outcomes(&finding)),
                        Found::Gathered(content) => self.gathered.push((job, content)),
                    }
                    break;
                }
                Err(Stop::Changed(now)) => Finding::Changed(now),
                Err(Stop::Failed(problem)) => Finding::Failed(problem),
                Err(Stop::Cancelled) => {
                    outcomes.truncate(before);
                    return None;
                }
            };
            outcomes.push(job.outcome(name, problem));
        }
        Some(())
    }

    /// Bytes that were read since this was asked last, each once whatever the names; without files of which nothing was
    /// found out.
    pub fn take_read_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    /// Hashes the small files that were read, and adds what became of them.
    pub fn hash_gathered(&mut self, outcomes: &mut Vec<Outcome>) {
        let files: Vec<Range<usize>> =
            self.gathered.iter().map(|(_, content)| content.bytes.clone()).collect();
        let digests = many::hash_many(&self.buffer, &files);
        for ((job, Content { ctime, racy, .. }), digest) in self.gathered.drain(..).zip(digests) {
            outcomes.extend(job.outcomes(&Finding::Hashed { digest, sample: None, ctime, racy }));
        }
        self.gathered_bytes = 0;
    }

    /// What of the buffer holds nothing that is still needed: room for a piece of a sample at least.
    pub(super) fn free(&mut self) -> &mut [u8] {
        &mut self.buffer[self.gathered_bytes..]
    }

    fn find(
        &mut self,
        job: &Job,
        name: &PendingName,
        opened: Option<Result<Opened, Stop>>,
        meter: &mut Meter<'_>,
    ) -> Result<Found, Stop> {
        let opened = opened.unwrap_or_else(|| self.open_as_listed(job, name))?;
        match self.read(job, &opened, meter) {
            Err(stop @ (Stop::Changed(_) | Stop::Failed(_))) if opened.device.is_none() => {
                // It may be no file any more, or have changed before it was opened and not since. Opened anew, because
                // other directories may have been opened meanwhile.
                let opened = self.open(job, name)?;
                self.takes_as_listed = false;
                if matches!(stop, Stop::Failed(_)) { Err(stop) } else { self.read(job, &opened, meter) }
            }
            found => found,
        }
    }

    fn read(&mut self, job: &Job, opened: &Opened, meter: &mut Meter<'_>) -> Result<Found, Stop> {
        if job.is_sampled() {
            let sample = self.sample(opened, meter)?;
            let (ctime, racy) = opened.is_still_the_same()?;
            return Ok(Found::Known(Finding::Sampled { sample, ctime, racy }));
        }
        if opened.size() <= many::SMALL as u64 {
            return self.gather(opened, meter).map(Found::Gathered);
        }
        if meter.waits() {
            opened.forget_sample();
        }
        let digest = self.hash_rest(opened, blake3::Hasher::new(), 0, meter)?;
        self.hashed(opened, digest, meter).map(Found::Known)
    }

    /// Reads a small file, to be hashed with others.
    fn gather(&mut self, opened: &Opened, meter: &mut Meter<'_>) -> Result<Content, Stop> {
        if self.cancel.is_requested() {
            return Err(Stop::Cancelled);
        }
        let from = self.gathered_bytes;
        let bytes = from..from + usize::try_from(opened.size()).unwrap_or_default();
        opened.read_exactly(&mut self.buffer[bytes.clone()], 0, meter)?;
        let (ctime, racy) = opened.is_still_the_same()?;
        self.gathered_bytes = bytes.end;
        Ok(Content { bytes, ctime, racy })
    }

    /// What is found if the whole of a file has this hash.
    pub(super) fn hashed(
        &mut self,
        opened: &Opened,
        digest: Digest,
        meter: &mut Meter<'_>,
    ) -> Result<Finding, Stop> {
        let sample = if opened.is_large() { Some(self.sample(opened, meter)?) } else { None };
        let (ctime, racy) = opened.is_still_the_same()?;
        Ok(Finding::Hashed { digest, sample, ctime, racy })
    }

    /// Opens a file by one of its names, if it is what the job says.
    pub(super) fn open(&mut self, job: &Job, name: &PendingName) -> Result<Opened, Stop> {
        let opened = self.open_unseen(job, name)?;
        self.look(job, opened)
    }

    /// The same, but a small file of a scan is looked at only after it was read: if it still is what it was listed as, it
    /// was that all the time.
    fn open_as_listed(&mut self, job: &Job, name: &PendingName) -> Result<Opened, Stop> {
        let opened = self.open_unseen(job, name)?;
        let is_taken_as_listed = self.takes_as_listed && job.known.is_none() && !opened.is_large();
        if is_taken_as_listed { Ok(opened) } else { self.look(job, opened) }
    }

    fn open_unseen(&mut self, job: &Job, name: &PendingName) -> Result<Opened, Stop> {
        let from = Nanos::now();
        let file = self.open_name(name)?;
        Ok(Opened { file, stamp: job.stamp, device: None, clock: self.clock, from, is_expected: false })
    }

    /// Looks at a file that was just opened.
    fn look(&self, job: &Job, opened: Opened) -> Result<Opened, Stop> {
        let stat = os::stat_open(&opened.file)?;
        if !stat.is_file {
            return Err(Stop::Failed(Problem::NotRegular));
        }
        let device = self.device_as_listed(&stat, job.stamp);
        let stamp = Stamp::of(&stat, device);
        let is_exact = job.known.is_some();
        // A change of ctime alone is one of permissions, owner or links, such as makes a file readable; or of content,
        // and somebody set mtime back.
        let expected = if is_exact { job.stamp } else { Stamp { ctime: stamp.ctime, ..job.stamp } };
        if stamp != expected {
            return Err(Stop::Changed(stamp));
        }
        if is_exact {
            // Whether the disk still has it is the question, not whether memory does.
            os::forget_cached(&opened.file, 0..u64::MAX);
        }
        Ok(Opened { stamp, device: Some(device), ..opened })
    }

    fn open_name(&mut self, name: &PendingName) -> Result<File, Stop> {
        let opened = match self.directory.take() {
            Some((path, directory)) if path == name.directory => (path, directory),
            _ => {
                let directory = Directory::open(&name.directory)?;
                self.takes_as_listed = true;
                self.clock = if directory.keeps_own_times() { Clock::Own } else { Clock::Unknown };
                (Arc::clone(&name.directory), directory)
            }
        };
        let (_, directory) = self.directory.insert(opened);
        match directory.open_to_read(OsStr::from_bytes(&name.key.name)) {
            Err(error) if os::is_link_refused(&error) => Err(Stop::Failed(Problem::NotRegular)),
            file => Ok(file?),
        }
    }

    /// The device with which a file's stamp has its inode expressed as in the listing (see [`Stamp::of`]): only if
    /// the plain number differs is the directory's asked for.
    fn device_as_listed(&self, stat: &FileStat, listed: Stamp) -> u64 {
        if Stamp::of(stat, stat.device).inode == listed.inode {
            return stat.device;
        }
        let device = self.directory.as_ref().and_then(|(_, directory)| directory.device().ok());
        device.unwrap_or(stat.device)
    }

    /// BLAKE3 of the whole content of a file whose first `read` bytes were hashed already. Nothing is asked for beyond
    /// its size: if the file grew, the stat that follows tells.
    pub(super) fn hash_rest(
        &mut self,
        opened: &Opened,
        mut hasher: blake3::Hasher,
        mut read: u64,
        meter: &mut Meter<'_>,
    ) -> Result<Digest, Stop> {
        while read < opened.size() {
            if self.cancel.is_requested() {
                return Err(Stop::Cancelled);
            }
            let buffer = self.free();
            match opened.read_some(buffer, read, meter) {
                Ok(0) => return Err(opened.why_it_ended()),
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                    read += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// A hash of the first, the middle and the last bytes of a file larger than a sample.
    fn sample(&mut self, opened: &Opened, meter: &mut Meter<'_>) -> Result<Sample, Stop> {
        let mut hasher = blake3::Hasher::new();
        for offset in places_of_sample(opened.size()) {
            if self.cancel.is_requested() {
                return Err(Stop::Cancelled);
            }
            let buffer = &mut self.free()[..SAMPLE_PIECE];
            opened.read_exactly(buffer, offset, meter)?;
            hasher.update(buffer);
        }
        Ok(Sample(first_half(&hasher.finalize())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::{Concurrency, Threads};
    use crate::model::pending::Stage;
    use crate::processing::testing::job;

    fn process(job: &Job, cancel: Cancel) -> Option<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        let concurrency = Concurrency::new(Threads::exactly(1));
        FileReader::new(cancel)
            .process(job.clone(), &mut concurrency.meter(), &mut outcomes)
            .map(|()| outcomes)
    }

    fn read_one(job: &Job) -> Finding {
        let outcomes = process(job, Cancel::default()).unwrap();
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
                assert_eq!(sample.is_some(), length as u64 > SMALL_FILE);
            }
        }
    }

    #[test]
    fn what_is_gathered_stays_what_it_is_while_larger_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let lengths = [many::SMALL, 1, 100_000, many::SMALL + 1, BUFFER + 1, 5000];
        let contents: Vec<Vec<u8>> = (0..200)
            .map(|number| (0..=250).cycle().skip(number).take(lengths[number % lengths.len()]).collect())
            .collect();
        let concurrency = Concurrency::new(Threads::exactly(1));
        let (mut reader, mut outcomes) = (FileReader::new(Cancel::default()), Vec::new());
        for (number, content) in contents.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, content).unwrap();
            let stage = if number % 4 == 0 { Stage::Size } else { Stage::Everything };
            let begun = reader.expect(job(&path, stage));
            reader.finish(begun, &mut concurrency.meter(), &mut outcomes).unwrap();
        }
        reader.hash_gathered(&mut outcomes);
        assert_eq!(outcomes.len(), contents.len());
        for Outcome { key, finding, .. } in outcomes {
            let number: usize = std::str::from_utf8(&key.name).unwrap().parse().unwrap();
            match finding {
                Finding::Hashed { digest, .. } => {
                    assert_eq!(digest.0, *blake3::hash(&contents[number]).as_bytes(), "{number}");
                }
                Finding::Sampled { .. } => assert!(contents[number].len() as u64 > SMALL_FILE),
                other => panic!("{other:?}"),
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

        std::fs::create_dir_all(&path).unwrap();
        assert!(matches!(read_one(&listed), Finding::Failed(Problem::NotRegular)), "a directory");
        std::fs::remove_dir(&path).unwrap();

        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(read_one(&listed), Finding::Failed(Problem::NotRegular)), "must not block");

        let mut link = listed.clone();
        link.names[0].key.name = b"link".as_slice().into();
        std::os::unix::fs::symlink(&path, link.names[0].path()).unwrap();
        assert!(matches!(read_one(&link), Finding::Failed(Problem::NotRegular)), "is not followed");
    }

    /// Files of sysfs say that they hold a page, and hold a line.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_ends_before_its_size_is_not_taken_for_what_was_read_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![7; 4096]).unwrap();
        let short = Path::new("/sys/devices/system/cpu/online");
        let concurrency = Concurrency::new(Threads::exactly(1));
        let (mut reader, mut outcomes) = (FileReader::new(Cancel::default()), Vec::new());
        for path in [&path, short, &path] {
            let begun = reader.begin(job(path, Stage::Everything));
            reader.finish(begun, &mut concurrency.meter(), &mut outcomes).unwrap();
        }
        reader.hash_gathered(&mut outcomes);
        let of_sevens = Digest(*blake3::hash(&[7; 4096]).as_bytes());
        let is_whole = |outcome: &Outcome| matches!(outcome.finding, Finding::Hashed { digest, .. } if digest == of_sevens);
        let ends_early = |outcome: &Outcome| matches!(outcome.finding, Finding::Failed(Problem::EndsEarly));
        assert_eq!(outcomes.len(), 3);
        assert_eq!(outcomes.iter().filter(|outcome| is_whole(outcome)).count(), 2, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| ends_early(outcome)).count(), 1, "{outcomes:?}");

        let job = job(short, Stage::Everything);
        let opened = reader.open(&job, &job.names[0]).unwrap();
        let hashed = reader.hash_rest(&opened, blake3::Hasher::new(), 0, &mut concurrency.meter());
        assert!(matches!(hashed, Err(Stop::Failed(Problem::EndsEarly))), "whatever its size");
    }

    #[test]
    fn what_was_touched_since_it_was_listed_is_read_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for length in [0, 3, BUFFER + 1] {
            std::fs::write(&path, vec![7; length]).unwrap();
            let mut listed = job(&path, Stage::Everything);
            listed.stamp.ctime = Nanos(listed.stamp.ctime.0 - 1);
            let finding = read_one(&listed);
            let Finding::Hashed { digest, ctime, .. } = finding else { panic!("{finding:?}") };
            assert_eq!(digest.0, *blake3::hash(&vec![7; length]).as_bytes());
            assert_eq!(ctime.0, listed.stamp.ctime.0 + 1);
        }
    }

    #[test]
    fn a_file_that_is_verified_is_read_only_with_its_very_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let mut verified = Job { known: Some(Digest([0; 32])), ..job(&path, Stage::Everything) };
        let outcome = process(&verified, Cancel::default()).unwrap().remove(0);
        assert!(matches!(outcome.finding, Finding::Hashed { .. }), "{outcome:?}");
        assert_eq!(outcome.known, verified.known);
        verified.stamp.ctime = Nanos(verified.stamp.ctime.0 - 1);
        assert!(
            matches!(read_one(&verified), Finding::Changed(_)),
            "somebody touched it, and may have set mtime back"
        );
        let scanned = Job { known: None, ..verified };
        assert!(matches!(read_one(&scanned), Finding::Hashed { .. }), "a scan reads what became readable");
    }

    #[test]
    fn a_name_that_is_gone_does_not_condemn_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let mut job = job(&path, Stage::Size);
        let mut gone = job.names[0].clone();
        gone.key.name = b"gone".as_slice().into();
        job.names.insert(0, gone);
        let outcomes = process(&job, Cancel::default()).unwrap();
        assert!(matches!(outcomes[0].finding, Finding::Failed(Problem::Vanished)));
        assert!(matches!(outcomes[1].finding, Finding::Hashed { .. }));
    }

    #[test]
    fn a_name_that_is_another_file_by_now_says_nothing_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        std::fs::write(directory.path().join("replaced"), b"another").unwrap();
        let mut job = job(&path, Stage::Size);
        let mut replaced = job.names[0].clone();
        replaced.key.name = b"replaced".as_slice().into();
        job.names.insert(0, replaced);
        let outcomes = process(&job, Cancel::default()).unwrap();
        assert!(matches!(outcomes[0].finding, Finding::Changed(stamp) if stamp.size == 7));
        assert!(matches!(outcomes[1].finding, Finding::Hashed { .. }), "{outcomes:?}");
    }

    #[test]
    fn a_cancelled_read_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let cancel = Cancel::default();
        cancel.request();
        assert!(process(&job(&path, Stage::Size), cancel).is_none());
    }
}
