//! The command line: the only place that prints, reads the environment or knows clap.

mod context;
mod db;
mod exit;
mod files;
mod history;
mod progress;
mod reconcile;
mod report;
mod resume;
mod roots;
mod scan;
mod signals;
mod status;
mod verify;
mod watch;
mod worker;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tokio::runtime::{Builder, LocalOptions};

use self::context::Context;
use self::exit::{Exit, Failure};

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  done, but some files or directories could not be read, or are not what they were (verify)
    2  usage or configuration, or the output could not be written
    3  the index cannot be used
  130  interrupted; 'dupfind resume' goes on

Environment:
  DUPFIND_CONFIG, DUPFIND_DB_URL, DUPFIND_HOST, DUPFIND_THREADS, DUPFIND_IO_THREADS,
  DUPFIND_BATCH_SIZE, DUPFIND_RETRY_SECONDS, DUPFIND_LEASE_SECONDS; PGPASSWORD and libpq's others;
  NO_COLOR, XDG_CONFIG_HOME, XDG_DATA_HOME

Files are only ever read. What was found is kept in an index: by default
~/.local/share/dupfind/index.db";

/// Finds duplicate files and remembers what it found.
///
/// First scan a directory; then ask for a report as often as you like, without reading the files
/// again. A later scan reads only what changed. A scan can be stopped at any moment and resumed.
#[derive(Debug, Parser)]
#[command(name = "dupfind", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Read settings from this file [default: ./config.json, then ~/.config/dupfind/config.json]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Use this index: `sqlite://PATH` or `postgres://USER@HOST/DATABASE`
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    db_url: Option<String>,
    /// If another dupfind writes to the index, give up instead of waiting for it
    #[arg(long, global = true, help_heading = "Global options")]
    no_wait: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// Say more about what is done
    #[arg(short, long, global = true, help_heading = "Global options")]
    verbose: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", help_heading = "Global options")]
    color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::ScanArgs),
    Resume(resume::ResumeArgs),
    Report(report::ReportArgs),
    Files(files::FilesArgs),
    History(history::HistoryArgs),
    Status(status::StatusArgs),
    Verify(verify::VerifyArgs),
    Roots(roots::RootsArgs),
    Watch(watch::WatchArgs),
    Reconcile(reconcile::ReconcileArgs),
    Worker(worker::WorkerArgs),
    Db(db::DbArgs),
}

/// Runs the program with the process's arguments and environment.
pub fn run() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return exit::of_usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error),
    };
    let context = Context::new(&cli.global);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli.command, &context)),
        Err(error) => Err(Failure::Usage(format!("start: {error}"))),
    };
    exit::of_result(result, |message| context.about_index(message), |message| context.error(message))
}

/// Each command is a future of its own, behind a pointer: as one, they take minutes to compile.
async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    let running: Pin<Box<dyn Future<Output = Result<Exit, Failure>> + '_>> = match command {
        Command::Scan(args) => Box::pin(scan::run(args, context)),
        Command::Resume(args) => Box::pin(resume::run(args, context)),
        Command::Report(args) => Box::pin(report::run(args, context)),
        Command::Files(args) => Box::pin(files::run(args, context)),
        Command::History(args) => Box::pin(history::run(args, context)),
        Command::Status(args) => Box::pin(status::run(args, context)),
        Command::Verify(args) => Box::pin(verify::run(args, context)),
        Command::Roots(args) => Box::pin(roots::run(args, context)),
        Command::Watch(args) => Box::pin(watch::run(args, context)),
        Command::Reconcile(args) => Box::pin(reconcile::run(args, context)),
        Command::Worker(args) => Box::pin(worker::run(args, context)),
        Command::Db(args) => Box::pin(db::run(args, context)),
    };
    running.await
}
