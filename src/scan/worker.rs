//! A run without discovery: what any host has found is read by all that can reach it.

use std::time::Duration;

use super::{Processing, Run, ScanError, ScanReport, Scanner, Walked};
use crate::index::WorkMark;
use crate::model::path::VolumePath;
use crate::model::pending::Unread;
use crate::model::scan::ScanStatus;
use crate::model::volume::Extent;
use crate::progress::Phase;
use crate::volume::Volumes;

/// How often one that waits for work looks for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Scanner {
    /// Reads what is pending on the volumes that this host can reach, whoever found it, until nothing
    /// is left; with `watch`, stays and waits for more until it is stopped.
    pub async fn work(&self, watch: bool) -> Result<ScanReport, ScanError> {
        let mut run = self.begin("worker").await?;
        loop {
            let before = match run.work_until_done().await {
                Ok(before) => before,
                Err(error) => {
                    run.writer.roll_back().await;
                    // What it holds is free at once, if the index can still be told.
                    let _ = run.writer.close().await;
                    return Err(error);
                }
            };
            if !watch || self.cancel.is_requested() {
                break;
            }
            self.progress.enter(Phase::Waiting);
            run = self.wait_for_work(run, before).await?;
        }
        run.report.status = if self.cancel.is_requested() && !watch {
            ScanStatus::Interrupted
        } else {
            ScanStatus::Completed
        };
        run.writer.close().await?;
        Ok(run.report)
    }

    /// Waits until something was found, or a piece of work became free, since the mark was taken. Where only one process
    /// may write, the others are let in meanwhile.
    async fn wait_for_work<'a>(&'a self, run: Run<'a>, before: WorkMark) -> Result<Run<'a>, ScanError> {
        if self.index.is_shared() {
            self.wait_for_change(before).await?;
            return Ok(run);
        }
        run.writer.close().await?;
        self.wait_for_change(before).await?;
        Ok(Run { report: run.report, ..self.begin("worker").await? })
    }

    async fn wait_for_change(&self, before: WorkMark) -> Result<(), ScanError> {
        loop {
            if !self.cancel.sleep(LOOK_AGAIN).await {
                return Ok(());
            }
            if self.work_mark().await? != before {
                return Ok(());
            }
        }
    }

    async fn work_mark(&self) -> Result<WorkMark, ScanError> {
        // A disk may have been plugged in meanwhile.
        let reachable = self.reachable_mounts().await?.volumes();
        Ok(self.index.work_mark(&reachable).await?)
    }
}

impl Run<'_> {
    /// All stages over the whole index, again until one pass reads nothing: what others finish
    /// meanwhile may be the partner of something here. Then the index is settled. Returns the mark from before the last
    /// pass: what was found after that is still to be looked for.
    async fn work_until_done(&mut self) -> Result<WorkMark, ScanError> {
        loop {
            let mark = self.scanner.work_mark().await?;
            self.register_mounted().await?;
            let volumes = self.scanner.index.volumes().await?;
            let everything =
                volumes.iter().map(|(volume, _)| Extent { volume: *volume, path: VolumePath::new(b"") });
            let before = self.report.counts.hashed;
            // What cannot be read is tried in each pass, and counts once.
            self.report.counts.problems = 0;
            let everything = Walked { extents: everything.collect(), directories: Vec::new() };
            self.process(Processing::HelpWith(everything)).await?;
            self.writer.commit().await?;
            if self.scanner.cancel.is_requested() {
                return Ok(mark);
            }
            if self.report.counts.hashed == before {
                self.report.summary = Some(self.writer.settle(Unread::Perhaps).await?);
                return Ok(mark);
            }
        }
    }

    /// Tells the index where this host mounts volumes that others have found.
    pub(super) async fn register_mounted(&mut self) -> Result<(), ScanError> {
        let scanner = self.scanner;
        let known = scanner.index.volumes().await?;
        let mounted = Volumes::read(&scanner.host).map_err(ScanError::Mounts)?.mounted();
        for volume in mounted.iter().filter(|volume| known.iter().any(|(_, known)| *known == volume.identity))
        {
            self.writer.register_volume(&scanner.host.name, volume).await?;
        }
        Ok(self.writer.commit().await?)
    }
}
