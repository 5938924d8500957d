//! `dupfind status`

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Exit, Failure};
use super::roots::{last_scan_text, root_json};
use crate::config::Flags;
use crate::format::{bytes, plural};
use crate::model::group::{ProblemRow, ReportFilter, Summary};
use crate::model::path::{escape_path, shown_path};
use crate::model::pending::ExtentTotals;
use crate::model::scan::Root;

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
    summary: Summary,
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
    let problems = if args.problems {
        index.problems(&index.places(&settings.host).await?, u64::MAX).await?
    } else {
        Vec::new()
    };
    let status = Status {
        location: index.location(),
        size: index.size().await?,
        roots,
        summary: index.summary(&ReportFilter::default()).await?,
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
    let Status { location, size, roots, summary, problems } = status;
    let bold = |text: &str| context.style.bold(text);
    writeln!(output, "{}  {location} ({})", bold("index"), bytes(*size))?;
    for (root, totals) in roots {
        let files = plural(totals.files, "file", "files");
        let last_scan = last_scan_text(root);
        let path = escape_path(&root.path);
        writeln!(output, "{}   {path}  {last_scan}, {files} with {}", bold("root"), bytes(totals.bytes))?;
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
        let mut value = root_json(root);
        value["files"] = totals.files.into();
        value["bytes"] = totals.bytes.into();
        value["problems"] = totals.problems.into();
        value
    };
    let problem = |row: &ProblemRow| json!({ "host": row.host, "path": row.path.to_string_lossy(), "problem": row.problem });
    let mut value = json!({
        "version": 1,
        "index": { "location": status.location, "bytes": status.size },
        "roots": status.roots.iter().map(root).collect::<Vec<_>>(),
        "summary": summary_json(&status.summary),
    });
    if with_problems {
        value["problems"] = status.problems.iter().map(problem).collect();
    }
    value
}
