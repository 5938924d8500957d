//! `dupfind roots`

mod add;

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;

use self::add::AddArgs;
use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::Flags;
use crate::format::{duration, moment, plural, rfc3339};
use crate::index::Index;
use crate::model::path::{escape, escape_path, shown_path};
use crate::model::scan::{Root, RootId};
use crate::model::settings::HashPolicy;
use crate::model::upkeep::Upkeep;
use crate::model::volume::{Extent, MountMap, Places};
use crate::model::worker::Participant;
use crate::progress::Progress;

/// List the remembered directories, add or change some, or forget one
#[derive(Debug, Args)]
pub(super) struct RootsArgs {
    #[command(subcommand)]
    command: Option<RootsCommand>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RootsCommand {
    Add(Box<AddArgs>),
    /// Forget a directory and what only it covered; no file is touched
    Remove {
        /// The directory; it need not exist any more
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

pub(super) async fn run(args: RootsArgs, context: &Context) -> Result<Exit, Failure> {
    let command = match args.command {
        Some(RootsCommand::Add(args)) => return add::run(*args, context).await,
        command => command,
    };
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    if let Some(RootsCommand::Remove { directory }) = command {
        return remove(index.as_ref(), &settings.host.name, &directory, context).await;
    }
    let roots = index.roots().await?;
    let places = index.places(&settings.host.name).await?;
    let mut output = io::stdout().lock();
    if args.json {
        writeln!(
            output,
            "{}",
            json!({ "version": 1, "roots": roots.iter().map(|root| root_json(root, &places)).collect::<Vec<_>>() })
        )?;
        return Ok(Exit::Done);
    }
    if roots.is_empty() {
        context.say("no directory is remembered yet");
    }
    for root in &roots {
        let path = context.style.bold(&root_text(root, &places));
        writeln!(output, "{path}  {}", last_scan_text(root))?;
        if let Some(options) = options_text(root) {
            writeln!(output, "  {}", context.style.dim(&options))?;
        }
    }
    Ok(Exit::Done)
}

async fn remove(
    index: &dyn Index,
    host: &Arc<str>,
    directory: &Path,
    context: &Context,
) -> Result<Exit, Failure> {
    let resolved = std::fs::canonicalize(directory).or_else(|_| std::path::absolute(directory))?;
    let participant =
        Participant { host: Arc::clone(host), task: "roots", progress: Arc::new(Progress::default()) };
    let mut writer = index.writer(&participant).await?;
    let meant = what_is_meant(index, host, directory, &resolved).await;
    let files = match &meant {
        Ok(Meant { root, extents, .. }) => writer.remove_root(*root, extents).await?,
        Err(_) => 0,
    };
    writer.close().await?;
    let Meant { root, shown, .. } = meant?;
    if root.is_none() && files == 0 {
        let message =
            format!("{}: nothing to forget; 'dupfind roots' lists what can be", escape_path(directory));
        return Err(Failure::Usage(message));
    }
    let message = format!("forgot {shown} and {}", plural(files, "file", "files"));
    context.say(&message);
    Ok(Exit::Done)
}

/// What a user named.
struct Meant {
    /// None for a directory that only links lead to.
    root: Option<RootId>,
    /// What it covers.
    extents: Vec<Extent>,
    /// It, for people.
    shown: String,
}

async fn what_is_meant(
    index: &dyn Index,
    host: &str,
    directory: &Path,
    resolved: &Path,
) -> Result<Meant, Failure> {
    let roots = index.roots().await?;
    let places = index.places(host).await?;
    if let Some(root) = find_root(&roots, &places, directory, resolved) {
        let shown = root_text(root, &places);
        return Ok(Meant { root: Some(root.id), extents: root.extents.clone(), shown });
    }
    let mounts = index.mounts(host).await?;
    if let Some(around) = covering(&roots, &mounts, resolved) {
        return Err(Failure::Usage(format!(
            "{}: part of the scanned directory {}; remove that, or scan it again with --exclude",
            escape_path(directory),
            escape_path(&around.path)
        )));
    }
    let extents = mounts.extents_below(resolved);
    if !index.knows(&extents).await? {
        return Err(Failure::Usage(format!(
            "{}: not a scanned directory; 'dupfind roots' lists them",
            escape_path(directory)
        )));
    }
    Ok(Meant { root: None, extents, shown: escape_path(resolved) })
}

/// The root that a user named. On another host the same path is another directory; that is named as it is listed, with
/// its host.
pub(super) fn find_root<'a>(
    roots: &'a [Root],
    places: &Places,
    directory: &Path,
    resolved: &Path,
) -> Option<&'a Root> {
    let is_elsewhere = |root: &&Root| places.elsewhere(root.extent.volume, &root.extent.path).is_some();
    let is_meant = |root: &&Root| {
        (!is_elsewhere(root) && (root.path == resolved || root.path == directory))
            || (is_elsewhere(root) && root_text(root, places) == escape_path(directory))
    };
    roots.iter().find(is_meant)
}

/// The root that a directory is part of.
fn covering<'a>(roots: &'a [Root], mounts: &MountMap, directory: &Path) -> Option<&'a Root> {
    let place = mounts.extents_below(directory).into_iter().next()?;
    roots.iter().find(|root| root.extents.iter().any(|extent| extent.covers(&place)))
}

/// A root's path, with its host in front if that is another one.
pub(super) fn root_text(root: &Root, places: &Places) -> String {
    match places.elsewhere(root.extent.volume, &root.extent.path) {
        Some((host, path)) => shown_path(Some(&host), &path),
        None => escape_path(&root.path),
    }
}

/// When a root was last scanned and how that ended, for people.
pub(super) fn last_scan_text(root: &Root) -> String {
    match &root.last_scan {
        None => "never scanned".to_owned(),
        Some(scan) => {
            let at = moment(scan.ended_at.unwrap_or(scan.started_at));
            format!("{} {at}", scan.status.as_str())
        }
    }
}

/// Those options of a root that are not as usual, for people.
fn options_text(root: &Root) -> Option<String> {
    let Upkeep { watch, interval, shortest_interval, longest_interval, poll, .. } = root.upkeep;
    let Upkeep { batch_size, threads, io_threads, ref first, recent_first, .. } = root.upkeep;
    let seconds = |seconds: u64| duration(Duration::from_secs(seconds));
    let threads_text = |number: usize| plural(number as u64, "thread", "threads");
    let mut options = Vec::new();
    if watch {
        options.push("watched".to_owned());
    }
    options.extend(interval.map(|time| format!("every {}", seconds(time))));
    options.extend(shortest_interval.map(|time| format!("at the shortest {}", seconds(time))));
    options.extend(longest_interval.map(|time| format!("at the longest {}", seconds(time))));
    options.extend(poll.map(|time| format!("polled every {}", seconds(time))));
    if root.settings.hash != HashPolicy::default() {
        options.push(format!("hash {}", root.settings.hash.as_str()));
    }
    options.extend(batch_size.map(|rows| format!("batches of {}", plural(rows as u64, "row", "rows"))));
    options.extend(threads.map(|number| format!("{} to walk", threads_text(number))));
    options.extend(io_threads.map(|number| format!("{} to read", threads_text(number))));
    if !first.is_empty() {
        let names: Vec<String> = first.iter().map(|name| escape(name.as_bytes())).collect();
        options.push(format!("first: {}", names.join(", ")));
    }
    if recent_first {
        options.push("recent changes first".to_owned());
    }
    (!options.is_empty()).then(|| options.join("; "))
}

/// How a root is kept up to date, for machines; what is null is as for any root.
fn upkeep_json(upkeep: &Upkeep) -> serde_json::Value {
    let Upkeep { watch, interval, shortest_interval, longest_interval, poll, .. } = upkeep;
    let Upkeep { batch_size, threads, io_threads, first, recent_first, .. } = upkeep;
    json!({
        "watch": watch,
        "interval_seconds": interval,
        "shortest_interval_seconds": shortest_interval,
        "longest_interval_seconds": longest_interval,
        "poll_seconds": poll,
        "batch_size": batch_size,
        "threads": threads,
        "io_threads": io_threads,
        "first": first,
        "recent_first": recent_first,
    })
}

/// A root for machines.
pub(super) fn root_json(root: &Root, places: &Places) -> serde_json::Value {
    let scan = root.last_scan.as_ref();
    let mut value = json!({
        "path": root.path.to_string_lossy(),
        "host": places.elsewhere(root.extent.volume, &root.extent.path).map(|(host, _)| host),
        "volume": &*root.identity.0,
        "last_scan": scan.map(|scan| json!({
            "status": scan.status.as_str(),
            "started_at": rfc3339(scan.started_at),
            "ended_at": scan.ended_at.map(rfc3339),
            "discovered": scan.discovered,
        })),
        "settings": root.settings,
        "upkeep": upkeep_json(&root.upkeep),
    });
    if root.path.to_str().is_none() {
        value["path_base64"] = STANDARD.encode(root.path.as_os_str().as_bytes()).into();
    }
    value
}
