//! What the run is at, on standard error: bars on a terminal, else a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::context::Context;
use crate::format::{bytes, count, plural};
use crate::progress::{Phase, Progress};

/// How often a bar moves.
const REFRESH: Duration = Duration::from_millis(100);

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Shows progress until it is dropped.
#[derive(Debug)]
pub(super) struct ProgressDisplay {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressDisplay {
    /// Begins to show; nothing if told to be quiet.
    pub(super) fn start(progress: &Arc<Progress>, context: &Context) -> Self {
        if context.quiet {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let progress = Arc::clone(progress);
        let is_terminal = std::io::stderr().is_terminal();
        let show = move || {
            let mut view: Box<dyn View> =
                if is_terminal { Box::new(Bars::new()) } else { Box::new(Lines { written: Instant::now() }) };
            while stopped.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                view.update(&progress);
            }
            view.clear();
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A display that died is no reason to fail.
            let _ = thread.join();
        }
    }
}

trait View {
    fn update(&mut self, progress: &Progress);
    fn clear(&mut self);
}

/// For a terminal.
struct Bars {
    bar: ProgressBar,
    phase: Phase,
    began: Instant,
}

impl Bars {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, phase: Phase::Starting, began: Instant::now() }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.began = Instant::now();
        let template = match phase {
            Phase::Starting => "",
            Phase::Discovery => "{spinner} finding files  {msg}",
            Phase::Selecting => "{spinner} choosing what to read",
            Phase::Processing => "{spinner} reading  {bar:24}  {msg}  {binary_bytes_per_sec}  {eta} left",
            Phase::Finishing => "{spinner} writing the last results",
            Phase::Waiting => "{spinner} waiting for work",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.reset_elapsed();
            self.bar.reset_eta();
            self.bar.set_style(style);
        }
    }
}

impl View for Bars {
    fn update(&mut self, progress: &Progress) {
        if progress.phase() != self.phase {
            self.enter(progress.phase());
        }
        match self.phase {
            Phase::Discovery => {
                let rate = count(per_second(progress.files.get(), self.began.elapsed()));
                self.bar.set_message(format!("{}  {rate} files/s", found(progress)));
                self.bar.tick();
            }
            Phase::Processing => {
                self.bar.set_length(progress.total_bytes.get());
                self.bar.set_message(read(progress));
                self.bar.set_position(progress.done_bytes.get());
            }
            Phase::Starting => {}
            Phase::Selecting | Phase::Finishing | Phase::Waiting => self.bar.tick(),
        }
    }

    fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// For a log.
struct Lines {
    written: Instant,
}

impl View for Lines {
    fn update(&mut self, progress: &Progress) {
        if self.written.elapsed() < LINE_INTERVAL {
            return;
        }
        self.written = Instant::now();
        let line = match progress.phase() {
            Phase::Discovery => format!("finding files: {}", found(progress)),
            Phase::Processing => format!("reading: {}", read(progress)),
            Phase::Starting | Phase::Selecting | Phase::Finishing | Phase::Waiting => return,
        };
        let _ = writeln!(std::io::stderr(), "dupfind: {line}");
    }

    fn clear(&mut self) {}
}

fn found(progress: &Progress) -> String {
    let directories = plural(progress.directories.get(), "directory", "directories");
    let files = plural(progress.files.get(), "file", "files");
    format!("{directories}  {files}  {}", bytes(progress.bytes.get()))
}

fn read(progress: &Progress) -> String {
    format!(
        "{}/{} files  {}/{}",
        count(progress.done_files.get()),
        count(progress.total_files.get()),
        bytes(progress.done_bytes.get()),
        bytes(progress.total_bytes.get()),
    )
}

fn per_second(amount: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    amount.saturating_mul(1000) / millis
}
