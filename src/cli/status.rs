//! `dupfind status`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Exit, Failure};
use super::roots::{last_scan_text, root_json, root_text};
use crate::config::Flags;
use crate::format::{bytes, count, elapsed, moment, plural, rfc3339};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::path::{escape, escape_path, shown_path, to_path};
use crate::model::pending::ExtentTotals;
use crate::model::scan::{Root, RootId};
use crate::model::upkeep::{Watch, WatchMode};
use crate::model::volume::{Places, VolumeId, VolumeIdentity};
use crate::model::worker::Worker;

/// Show what the index holds and what is still to be done
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// List the files and directories that could not be read
    #[arg(long)]
    problems: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

struct Status {
    location: String,
    size: u64,
    roots: Vec<(Root, ExtentTotals)>,
    watches: Vec<Watch>,
    summary: Summary,
    workers: Vec<Worker>,
    places: Places,
    volumes: Vec<(VolumeId, VolumeIdentity)>,
    problems: Vec<ProblemRow>,
}

pub(super) async fn run(args: StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    let mut roots = Vec::new();
    for root in index.roots().await? {
        let totals = index.extent_totals(&root.extents).await?;
        roots.push((root, totals));
    }
    let places = index.places(&settings.host.name).await?;
    let problems = if args.problems { index.problems(&places, u64::MAX).await? } else { Vec::new() };
    let status = Status {
        location: index.location(),
        size: index.size().await?,
        roots,
        watches: index.watches().await?,
        summary: index.summary(&ReportFilter::default()).await?,
        workers: index.workers().await?,
        volumes: index.volumes().await?,
        places,
        problems,
    };
    let mut output = io::BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(output, "{}", status_json(&status, args.problems))?;
    } else {
        write_text(&status, &mut output, context)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

fn write_text(status: &Status, output: &mut impl Write, context: &Context) -> io::Result<()> {
    let Status { location, size, roots, watches, summary, workers, places, problems, .. } = status;
    let bold = |text: &str| context.style.bold(text);
    writeln!(output, "{}  {location} ({})", bold("index"), bytes(*size))?;
    for (root, totals) in roots {
        let files = plural(totals.files, "file", "files");
        let last_scan = last_scan_text(root);
        let path = root_text(root, places);
        writeln!(output, "{}   {path}  {last_scan}, {files} with {}", bold("root"), bytes(totals.bytes))?;
        for watch in watches_of(watches, root.id) {
            writeln!(output, "         {}", watch_text(watch, context))?;
        }
        if watches_of(watches, root.id).all(|watch| !watch.is_alive) && root.upkeep.watch {
            let text = "marked to be watched, but nobody does: run 'dupfind watch'";
            writeln!(output, "         {}", context.style.warning(text))?;
        }
    }
    if places.hosts().count() > 1 {
        for (host, volume, mount) in mounted(status) {
            let (host, volume) = (escape(host.as_bytes()), escape(volume.as_bytes()));
            writeln!(output, "{}   {host}  {}  {volume}", bold("host"), escape_path(&mount))?;
        }
    }
    for worker in workers {
        writeln!(output, "{} {}", bold("worker"), worker_text(worker, context))?;
    }
    let files = plural(summary.files, "file", "files");
    writeln!(output, "{files} with {}", bytes(summary.bytes))?;
    let groups = plural(summary.groups, "group", "groups");
    let redundant = plural(summary.redundant_files, "redundant file", "redundant files");
    let reclaimable = bold(&format!("{} reclaimable", bytes(summary.reclaimable_bytes)));
    writeln!(output, "{reclaimable}: {redundant} in {groups}")?;
    if summary.pending_files == 0 {
        writeln!(output, "nothing pending")?;
    } else {
        let pending = plural(summary.pending_files, "file", "files");
        let text = format!("pending: {pending} with {}; run 'dupfind resume'", bytes(summary.pending_bytes));
        writeln!(output, "{}", context.style.warning(&text))?;
    }
    if summary.problems > 0 {
        let text = plural(summary.problems, "problem", "problems");
        let hint = if problems.is_empty() { "; --problems lists them" } else { ":" };
        writeln!(output, "{}", context.style.warning(&format!("{text}{hint}")))?;
    }
    for row in problems {
        writeln!(output, "  {}: {}", shown_path(row.host.as_deref(), &row.path), row.problem)?;
    }
    Ok(())
}

fn watches_of(watches: &[Watch], root: RootId) -> impl Iterator<Item = &Watch> {
    watches.iter().filter(move |watch| watch.root == root)
}

/// Who watches a root, how, and when it is reconciled next, for people.
fn watch_text(watch: &Watch, context: &Context) -> String {
    let who = format!("{} process {}", escape(watch.host.as_bytes()), watch.process);
    if !watch.is_alive {
        let silence = elapsed(watch.silence);
        return context.style.warning(&format!("not watched any more: {who} died, last seen {silence} ago"));
    }
    let events = plural(watch.events, "event", "events");
    let how = match &watch.mode {
        WatchMode::Live => context.style.bold("live"),
        WatchMode::Polled(reason) => context.style.warning(&format!("not live: {reason}")),
        WatchMode::Offline(reason) => context.style.warning(&format!("offline: {reason}")),
    };
    let next = watch.next.as_ref().map_or_else(String::new, |next| {
        format!("; next reconciliation {} ({})", moment(next.at), next.reason)
    });
    format!("watched by {who} since {}, {how}, {events}{next}", moment(watch.since))
}

fn watch_json(watch: &Watch) -> Value {
    json!({
        "host": watch.host,
        "process": watch.process,
        "alive": watch.is_alive,
        "mode": if watch.is_alive { watch.mode.as_str() } else { "dead" },
        "reason": watch.mode.reason(),
        "since": rfc3339(watch.since),
        "silent_seconds": watch.silence.as_secs_f64(),
        "events": watch.events,
        "next_reconciliation": watch.next.as_ref().map(|next| json!({
            "at": rfc3339(next.at),
            "reason": next.reason,
        })),
    })
}

/// What each host mounts: host, volume and where.
fn mounted(status: &Status) -> impl Iterator<Item = (&str, &str, PathBuf)> {
    let identity =
        |id| status.volumes.iter().find(|(volume, _)| *volume == id).map(|(_, identity)| &*identity.0);
    status.places.hosts().flat_map(move |(host, mounts)| {
        mounts
            .iter()
            .filter_map(move |(volume, mount)| Some((&**host, identity(volume)?, to_path(&mount.at))))
    })
}

/// A worker for people: who, what it holds, how fast, when it was last heard of.
fn worker_text(worker: &Worker, context: &Context) -> String {
    let who = format!("{} process {} ({})", escape(worker.host.as_bytes()), worker.process, worker.task);
    let silence = worker.silence.as_secs();
    if !worker.is_alive {
        let free = if worker.leases > 0 { ", its work is free" } else { "" };
        return context.style.warning(&format!("{who}  dead, last seen {silence} s ago{free}"));
    }
    let holds = match worker.leases {
        0 => String::new(),
        leases => {
            let files = plural(worker.leased_files, "file", "files");
            format!("  holds {} with {files},", plural(leases, "lease", "leases"))
        }
    };
    let read = plural(worker.files, "file", "files");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is never negative")]
    let rate = (worker.files_per_second as u64, worker.bytes_per_second as u64);
    format!(
        "{who} {holds} read {read} with {}, {} files/s and {}/s, seen {silence} s ago",
        bytes(worker.bytes),
        count(rate.0),
        bytes(rate.1)
    )
}

fn worker_json(worker: &Worker) -> Value {
    json!({
        "id": worker.id.0,
        "host": worker.host,
        "process": worker.process,
        "task": worker.task,
        "alive": worker.is_alive,
        "age_seconds": worker.age.as_secs_f64(),
        "silent_seconds": worker.silence.as_secs_f64(),
        "leases": worker.leases,
        "leased_files": worker.leased_files,
        "files_read": worker.files,
        "bytes_read": worker.bytes,
        "files_per_second": worker.files_per_second,
        "bytes_per_second": worker.bytes_per_second,
    })
}

/// The figures for machines; the same names as in the JSON report.
pub(super) fn summary_json(summary: &Summary) -> Value {
    json!({
        "files": summary.files,
        "bytes": summary.bytes,
        "groups": summary.groups,
        "redundant_files": summary.redundant_files,
        "reclaimable_bytes": summary.reclaimable_bytes,
        "pending_files": summary.pending_files,
        "pending_bytes": summary.pending_bytes,
        "problems": summary.problems,
    })
}

fn status_json(status: &Status, with_problems: bool) -> Value {
    let root = |(root, totals): &(Root, ExtentTotals)| {
        let mut value = root_json(root, &status.places);
        value["files"] = totals.files.into();
        value["bytes"] = totals.bytes.into();
        value["problems"] = totals.problems.into();
        value["watches"] = watches_of(&status.watches, root.id).map(watch_json).collect();
        value
    };
    let problem = |row: &ProblemRow| json!({ "host": row.host, "path": row.path.to_string_lossy(), "problem": row.problem });
    let mount = |(host, volume, at): (&str, &str, PathBuf)| json!({ "host": host, "volume": volume, "path": at.to_string_lossy() });
    let mut value = json!({
        "version": 1,
        "index": { "location": status.location, "bytes": status.size },
        "roots": status.roots.iter().map(root).collect::<Vec<_>>(),
        "mounts": mounted(status).map(mount).collect::<Vec<_>>(),
        "workers": status.workers.iter().map(worker_json).collect::<Vec<_>>(),
        "summary": summary_json(&status.summary),
    });
    if with_problems {
        value["problems"] = status.problems.iter().map(problem).collect();
    }
    value
}
