//! `dupfind watch`

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use sd_notify::NotifyState;

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::WorkOptions;
use crate::config::{Settings, WatchSettings};
use crate::format::{parse_duration, parse_interval, rfc3339};
use crate::index::Index;
use crate::model::scan::RootId;
use crate::model::settings::ScanSettings;
use crate::model::stamp::Nanos;
use crate::progress::Progress;
use crate::scan::{RootRequest, Scanner, check_root};
use crate::sync::{Keeper, KeeperSettings, Opener, SyncError, Teller, Told};

/// Keep the index up to date with what happens on the disk
///
/// Reconciles each root once, and follows what happens in it from then on: a
/// changed file is in the reports within two seconds of becoming quiet. What a
/// watcher may miss, reconciliations find: once a day at first, then as often as
/// they find something. Where no events come (network file systems, too many
/// directories), the root is looked at now and then instead; the log and 'dupfind
/// status' say so.
///
/// Stays in the foreground and logs to standard error; Ctrl-C or SIGTERM ends it.
/// Under systemd it says when it is ready (Type=notify).
///
/// Examples:
///   dupfind watch ~/Photos
///   dupfind roots add --watch ~/Photos /srv/media && dupfind watch
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct WatchArgs {
    /// Directories to watch; one that is no root yet becomes one [default: those marked with 'dupfind roots add --watch']
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// How long a file has to be quiet before it is looked at [default: 500ms]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    debounce: Option<Duration>,
    /// From one reconciliation to the next, for roots that do not say it themselves [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    interval: Option<Duration>,
    /// How often roots are looked at that no events come from [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    poll: Option<Duration>,
    #[command(flatten)]
    work: WorkOptions,
    /// Log as JSON, an object on a line of standard output
    #[arg(long, help_heading = "Options")]
    json: bool,
}

pub(super) async fn run(args: WatchArgs, context: &Context) -> Result<Exit, Failure> {
    let WatchArgs { directories, debounce, interval, poll, work, json } = args;
    let settings = context.settings(&work.into_flags())?;
    let watch = with_flags(settings.watch, debounce, interval, poll);
    let paths = directories.iter().map(|directory| check_root(directory)).collect::<Result<Vec<_>, _>>()?;
    let index = if paths.is_empty() {
        context.open_index(&settings).await?
    } else {
        context.create_index(&settings).await?
    };
    let roots = if paths.is_empty() {
        None
    } else {
        Some(take_on(&paths, &settings, Arc::clone(&index), context).await?)
    };
    let context = context.clone();
    let keeper = KeeperSettings {
        roots,
        watch,
        workers: settings.workers,
        host: settings.host.clone(),
        cancel: context.cancel.clone(),
        teller: teller(&context, json),
        opener: Box::new(IndexOpener { context, settings }),
    };
    let result = Keeper::new(index, keeper).run().await;
    // Nobody has to listen.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    result?;
    Ok(Exit::Done)
}

fn with_flags(
    settings: WatchSettings,
    debounce: Option<Duration>,
    interval: Option<Duration>,
    poll: Option<Duration>,
) -> WatchSettings {
    let interval = interval.unwrap_or(settings.interval);
    WatchSettings {
        debounce: debounce.unwrap_or(settings.debounce),
        interval,
        shortest_interval: settings.shortest_interval.min(interval),
        longest_interval: settings.longest_interval.max(interval),
        poll: poll.unwrap_or(settings.poll),
        ..settings
    }
}

/// The roots that directories are; those that are none become some, with the options that hold around them.
async fn take_on(
    paths: &[PathBuf],
    settings: &Settings,
    index: Arc<dyn Index>,
    context: &Context,
) -> Result<Vec<RootId>, Failure> {
    let progress = Arc::new(Progress::default());
    let (host, cancel) = (settings.host.clone(), context.cancel.clone());
    let scanner = Scanner::new(index, host, settings.workers, cancel, progress)?;
    let requests: Vec<RootRequest> =
        paths.iter().map(|path| RootRequest { path: path.clone(), settings: None::<ScanSettings> }).collect();
    Ok(scanner.take_on(&requests, &settings.scan).await?)
}

/// Logs to where logs go, and tells systemd.
fn teller(context: &Context, json: bool) -> Teller {
    let context = context.clone();
    Arc::new(move |told: &Told| {
        tell_systemd(told);
        if *told == Told::Starting {
            return;
        }
        let now = rfc3339(Nanos(Nanos::now().0 / 1_000_000 * 1_000_000));
        if json {
            let mut value = told.to_json();
            value["at"] = now.into();
            // Whoever read it is gone; the work goes on.
            let _ = writeln!(io::stdout(), "{value}");
        } else if told.is_warning() {
            context.warn(&format!("{now} {told}"));
        } else if context.verbose || !matches!(told, Told::Followed { .. }) {
            context.say(&format!("{now} {told}"));
        }
    })
}

/// How long systemd may wait for a sign while the first walks go on.
const PATIENCE: Duration = Duration::from_mins(2);

/// Nobody has to listen.
fn tell_systemd(told: &Told) {
    let patience = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
    let status = told.to_string();
    let state = match told {
        Told::Starting => NotifyState::ExtendTimeoutUsec(patience),
        Told::Ready => NotifyState::Ready,
        _ => NotifyState::Status(&status),
    };
    let _ = sd_notify::notify(&[state]);
}

/// Opens the index that was away, with the same settings.
struct IndexOpener {
    context: Context,
    settings: Settings,
}

#[async_trait(?Send)]
impl Opener for IndexOpener {
    async fn open(&self) -> Result<Arc<dyn Index>, String> {
        self.context.open_index(&self.settings).await.map_err(Failure::into_message)
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::NothingToWatch | SyncError::Intervals { .. } => Self::Usage(error.to_string()),
            SyncError::NothingLeft => Self::Index(error.to_string()),
            SyncError::Scan(error) => error.into(),
            SyncError::Index(error) => error.into(),
        }
    }
}
