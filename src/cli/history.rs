//! `dupfind history`

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Exit, Failure};
use super::roots::find_root;
use crate::config::Flags;
use crate::format::{Style, base64_if_odd, bytes, count, moment, plural, rfc3339};
use crate::index::Index;
use crate::model::history::{Figures, HistoryFilter, Run};
use crate::model::path::{escape, escape_path};
use crate::model::scan::{RootId, ScanStatus};
use crate::model::stamp::Nanos;
use crate::model::volume::Places;
use crate::report::history;

/// Show the runs there were, the newest first
///
/// Every run of every kind: what it saw and changed, how it ended, and what the
/// index held then. A run whose process died is shown as interrupted. What a
/// watcher did is summed, one row for an interval.
///
/// Examples:
///   dupfind history --root ~/Photos
///   dupfind history --limit 1000 --json | jq '.runs[] | select(.status == "failed")'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct HistoryArgs {
    /// Only runs of this scanned directory, as 'dupfind roots' lists it
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// At most N runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: HistoryArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&Flags::default())?;
    let index = context.open_index(&settings).await?;
    let places = index.places(&settings.host.name).await?;
    let root = match &args.root {
        Some(directory) => Some(root_named(index.as_ref(), &places, directory).await?),
        None => None,
    };
    let runs = index.history(HistoryFilter { root, limit: args.limit }).await?;
    let mut output = io::BufWriter::new(io::stdout().lock());
    if args.json {
        let runs: Vec<Value> = runs.iter().map(|run| run_json(run, &places)).collect();
        writeln!(output, "{}", json!({ "version": 1, "runs": runs }))?;
    } else {
        if runs.is_empty() {
            context.say("no run yet");
        }
        write_table(&runs, &places, context.style, &mut output)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

async fn root_named(index: &dyn Index, places: &Places, directory: &Path) -> Result<RootId, Failure> {
    let resolved = std::fs::canonicalize(directory).or_else(|_| std::path::absolute(directory))?;
    let roots = index.roots().await?;
    let root = find_root(&roots, places, directory, &resolved);
    root.map(|root| root.id).ok_or_else(|| {
        let directory = escape_path(directory);
        Failure::Usage(format!("{directory}: not a scanned directory; 'dupfind roots' lists them"))
    })
}

/// The columns; numbers stand to the right.
const HEADINGS: [(&str, bool); 8] = [
    ("RUN", true),
    ("STARTED (UTC)", false),
    ("KIND", false),
    ("STATUS", false),
    ("TOOK", true),
    ("SEEN", true),
    ("CHANGES", false),
    ("READ", true),
];

const STATUS_COLUMN: usize = 3;

/// Two lines for a run: what can be compared stands in columns, the path and what else there is to say below.
fn write_table(runs: &[Run], places: &Places, style: Style, output: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; HEADINGS.len()]> = runs.iter().map(cells).collect();
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
        longest.max(HEADINGS[column].0.len())
    };
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
    let line = |cells: [&str; HEADINGS.len()], status: Option<ScanStatus>| {
        let mut line = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let width = widths[column];
            let padded =
                if HEADINGS[column].1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            let shown = match status {
                Some(ScanStatus::Failed) if column == STATUS_COLUMN => style.error(&padded),
                Some(ScanStatus::Interrupted) if column == STATUS_COLUMN => style.warning(&padded),
                _ => padded,
            };
            line.push_str(&shown);
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line
    };
    if !rows.is_empty() {
        writeln!(output, "{}", style.dim(&line(HEADINGS.map(|(heading, _)| heading), None)))?;
    }
    let indent = " ".repeat(widths[0] + 2);
    for (run, row) in runs.iter().zip(&rows) {
        writeln!(output, "{}", line(row.each_ref().map(String::as_str), Some(run.status)))?;
        writeln!(output, "{indent}{}", style.bold(&history::place(run, places)))?;
        for note in [deeds(run), run.figures.as_ref().map(figures_text)].into_iter().flatten() {
            writeln!(output, "{indent}{}", style.dim(&note))?;
        }
        if let Some(error) = &run.error {
            writeln!(output, "{indent}{}", style.warning(&escape(error.as_bytes())))?;
        }
    }
    Ok(())
}

fn cells(run: &Run) -> [String; HEADINGS.len()] {
    [
        run.id.0.to_string(),
        moment(run.started_at).trim_end_matches(" UTC").to_owned(),
        run.kind.as_str().to_owned(),
        run.status.as_str().to_owned(),
        history::took(run, Nanos::now()),
        history::seen(run),
        history::changes(run),
        history::read(run),
    ]
}

/// What a run did besides what stands in the columns.
fn deeds(run: &Run) -> Option<String> {
    let counts = &run.counts;
    let deeds = [
        (counts.events, plural(counts.events, "event", "events")),
        (counts.hashed, format!("{} hashed", count(counts.hashed))),
        (counts.problems, plural(counts.problems, "problem", "problems")),
    ];
    let deeds: Vec<String> =
        deeds.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
    (!deeds.is_empty()).then(|| deeds.join(", "))
}

/// What the index held then.
fn figures_text(figures: &Figures) -> String {
    format!(
        "then {}, {}; {} redundant in {}, {}",
        plural(figures.files, "file", "files"),
        bytes(figures.bytes),
        count(figures.redundant_files),
        plural(figures.groups, "group", "groups"),
        bytes(figures.reclaimable_bytes),
    )
}

/// A run for machines.
fn run_json(run: &Run, places: &Places) -> Value {
    let counts = &run.counts;
    let place = run.root.as_ref().map(|root| root.place(places));
    let within = run.root.as_ref().and_then(|root| root.place_within(places));
    let figures = |figures: &Figures| {
        json!({
            "files": figures.files,
            "bytes": figures.bytes,
            "groups": figures.groups,
            "redundant_files": figures.redundant_files,
            "reclaimable_bytes": figures.reclaimable_bytes,
        })
    };
    let mut value = json!({
        "generation": run.id.0,
        "kind": run.kind.as_str(),
        "status": run.status.as_str(),
        "host": place.as_ref().and_then(|(host, _)| host.as_deref()),
        "root": place.as_ref().map(|(_, path)| path.to_string_lossy()),
        "within": within.as_ref().map(|(_, path)| path.to_string_lossy()),
        "started_at": rfc3339(run.started_at),
        "discovered_at": run.discovered_at.map(rfc3339),
        "ended_at": run.ended_at.map(rfc3339),
        "duration_seconds": run.duration().map(|length| length.as_secs_f64()),
        "directories": counts.directories,
        "files_seen": counts.files_seen,
        "bytes_seen": counts.bytes_seen,
        "added": counts.added,
        "updated": counts.updated,
        "removed": counts.removed,
        "hashed": counts.hashed,
        "bytes_read": counts.bytes_read,
        "problems": counts.problems,
        "events": counts.events,
        "error": run.error,
        "figures": run.figures.as_ref().map(figures),
    });
    for (key, place) in [("root_base64", place), ("within_base64", within)] {
        if let Some(encoded) = place.and_then(|(_, path)| base64_if_odd(&path)) {
            value[key] = encoded.into();
        }
    }
    value
}
