//! `dupfind worker`

use std::sync::Arc;

use clap::Args;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::{StartedRun, WorkOptions};

/// Read what any host has found, on the disks that this host can reach
///
/// Joins the index and shares the work with every other scan and worker, on this
/// host and on others, until nothing is left. One that is killed loses nothing:
/// the others take over what it held.
///
/// Examples:
///   dupfind worker
///   dupfind worker --watch
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct WorkerArgs {
    /// Stay and wait for more; Ctrl-C or SIGTERM ends it
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    work: WorkOptions,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: WorkerArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&args.work.into_flags())?;
    let index = context.create_index(&settings).await?;
    let run = StartedRun::new(&settings, Arc::clone(&index), context)?;
    let report = run.scanner.work(args.watch).await?;
    run.finish(&report, args.json, context).await
}
