//! `dupfind roots`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::Flags;
use crate::format::{moment, plural, rfc3339};
use crate::index::Index;
use crate::model::path::{escape_path, shown_path};
use crate::model::scan::{Root, RootId};
use crate::model::volume::{Extent, MountMap, Places};
use crate::model::worker::Participant;
use crate::progress::Progress;

/// List the scanned directories, or forget one
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
    /// Forget a directory and what only it covered; no file is touched
    Remove {
        /// The directory; it need not exist any more
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

pub(super) async fn run(args: RootsArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    if let Some(RootsCommand::Remove { directory }) = args.command {
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
        context.say("no directory was scanned yet");
    }
    for root in &roots {
        let path = context.style.bold(&root_text(root, &places));
        writeln!(output, "{path}  {}", last_scan_text(root))?;
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

/// A root for machines.
pub(super) fn root_json(root: &Root, places: &Places) -> serde_json::Value {
    let scan = root.last_scan.as_ref();
    json!({
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
    })
}
