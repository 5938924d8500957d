//! `dupfind reconcile`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::{StartedRun, WorkOptions};

/// Bring the index up to date with the disk, now
///
/// Walks the roots again, or only what lies below DIR, and reads what changed
/// there. Only there rows are removed. With no DIR, all roots. A root that cannot
/// be read is left as it is, and its run is marked failed.
///
/// Examples:
///   dupfind reconcile
///   dupfind reconcile ~/Photos/2026
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ReconcileArgs {
    /// Roots, or directories below or around roots
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    work: WorkOptions,
    /// Print the outcome as JSON
    #[arg(long, help_heading = "Options")]
    json: bool,
}

pub(super) async fn run(args: ReconcileArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&args.work.into_flags())?;
    let index = context.open_index(&settings).await?;
    let run = StartedRun::new(&settings, Arc::clone(&index), context)?;
    let report = run.scanner.reconcile(&args.directories).await?;
    run.finish(&report, args.json, context).await
}
