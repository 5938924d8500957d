//! `dupfind resume`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::{StartedRun, WorkOptions};
use crate::format::plural;
use crate::model::group::Summary;

/// Finish what was interrupted or put off
///
/// Walks again what was not walked to its end, then reads what is still to be read: everything, or
/// only what is needed below the directories named, so that these are complete first.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Directories to complete [default: everything]
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    work: WorkOptions,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ResumeArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&args.work.into_flags())?;
    let index = context.open_index(&settings).await?;
    let run = StartedRun::new(&settings, Arc::clone(&index), context)?;
    let report = run.scanner.resume(&args.directories).await?;
    if report.idle
        && let Some(Summary { files, pending_files: pending, .. }) = report.summary
    {
        if files == 0 && index.roots().await?.is_empty() {
            context.warn("nothing was scanned yet; run 'dupfind scan DIR'");
        } else if pending == 0 {
            context.say("nothing to resume: everything is complete");
        } else {
            let files = plural(pending, "pending file is", "pending files are");
            context.warn(&format!(
                "nothing to resume here: {files} elsewhere, or on volumes that are not mounted"
            ));
        }
    }
    run.finish(&report, args.json, context).await
}
