//! `dupfind verify`

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Exit, Failure};
use super::scan::{StartedRun, WorkOptions};
use crate::format::{base64_if_odd, bytes, count, moment, plural, rfc3339};
use crate::model::path::{escape, shown_path};
use crate::model::rot::{Ending, Rot, Share, ShownPath};
use crate::scan::{VerifyMode, VerifyReport, VerifyRequest};

/// Read files again that nobody changed, and say which are not what they were
///
/// A disk, a cable or memory may change what a file holds without anybody's doing
/// (bit rot). All files that have a hash and whose size, times and inode are the
/// same are read again. One whose content is another is rotten: it counts as
/// nobody's duplicate any more, and is reported by each run until another file is
/// in its place, or until --accept; if it reads as it should later, the finding
/// is withdrawn. Copies that are as it should be are named. Files that somebody
/// changed are left to the next scan. Scans go on meanwhile.
///
/// Only possible duplicates have a hash, unless they were scanned with
/// --hash-all.
///
/// Examples:
///   dupfind verify
///   dupfind verify --sample 5% /srv     # 20 such runs reach every file
///   dupfind verify --known              # only what was found before
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct VerifyArgs {
    /// Directories [default: all that the index holds and this host can reach]
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Read a part of the files, the next part each time: 5%, 0.5%
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["known", "accept"])]
    sample: Option<Share>,
    /// Read only what was found rotten or unreadable before
    #[arg(long, conflicts_with = "accept")]
    known: bool,
    /// Take rotten files as they are: what they hold is right from now on. DIR may be a file
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    work: WorkOptions,
    /// Print the outcome as JSON
    #[arg(long, help_heading = "Options")]
    json: bool,
}

impl VerifyArgs {
    fn mode(&self) -> VerifyMode {
        match self.sample {
            Some(share) => VerifyMode::Sample(share),
            None if self.accept => VerifyMode::Accept,
            None if self.known => VerifyMode::OnRecord,
            None => VerifyMode::All,
        }
    }
}

pub(super) async fn run(args: VerifyArgs, context: &Context) -> Result<Exit, Failure> {
    let (mode, is_json) = (args.mode(), args.json);
    let settings = context.settings(&args.work.into_flags())?;
    let index = context.open_index(&settings).await?;
    let run = StartedRun::new(&settings, index, context)?;
    let request = VerifyRequest { directories: args.directories, mode };
    let report = run.scanner.verify(&request).await;
    let elapsed = run.stop();
    let report = report?;
    for row in &report.left_out {
        context.warn(&format!("{}: {}", shown_path(row.host.as_deref(), &row.path), row.problem));
    }
    let mut output = io::BufWriter::new(io::stdout().lock());
    if is_json {
        writeln!(output, "{}", outcome_json(&report, mode, elapsed))?;
    } else {
        write_text(&report, mode, elapsed, &mut output, context)?;
    }
    output.flush()?;
    if report.is_interrupted() {
        let how = match mode {
            VerifyMode::Sample(_) => "what was finished of the sample is not read again",
            _ => "what was found is kept, the next run begins anew",
        };
        context.say(&format!("interrupted: {how}"));
        return Ok(Exit::Interrupted);
    }
    Ok(if report.has_problems() { Exit::Problems } else { Exit::Done })
}

fn write_text(
    report: &VerifyReport,
    mode: VerifyMode,
    elapsed: Duration,
    output: &mut impl Write,
    context: &Context,
) -> io::Result<()> {
    for rot in &report.rot {
        write_rot(rot, output, context)?;
    }
    for ended in &report.ended {
        let how = match ended.ending {
            Ending::Withdrawn => "reads as it should again: the finding is withdrawn",
            Ending::Restored => "was restored: it has the content that it should have",
            Ending::Replaced => "was replaced by a file with other content",
            Ending::Gone => "is gone",
        };
        writeln!(output, "{} {how}", shown(&ended.place))?;
    }
    if mode == VerifyMode::Accept {
        let files = plural(report.accepted, "rotten file", "rotten files");
        let are = if report.accepted == 1 { "it is" } else { "they are" };
        writeln!(output, "accepted {files} as {are}")?;
    }
    if context.quiet {
        return Ok(());
    }
    let verified = plural(report.counts.hashed, "file", "files");
    let read = bytes(report.counts.bytes_read);
    let intact = count(report.intact);
    let changed = match report.changed {
        0 => String::new(),
        changed => format!(", {} changed or gone (left to the next scan)", count(changed)),
    };
    let seconds = elapsed.as_secs_f64();
    writeln!(output, "read {read} of {verified} in {seconds:.1} s: {intact} as they were{changed}")?;
    if let VerifyMode::Sample(share) = mode {
        let samples = share.samples_in_a_round();
        if samples > 1 {
            let samples = count(samples.into());
            writeln!(output, "{samples} samples of this size in a row reach every file that has a hash")?;
        }
    }
    let warn = |text: String| context.style.warning(&text);
    if report.not_read > 0 {
        let files = plural(report.not_read, "file was", "files were");
        writeln!(output, "{}", warn(format!("{files} not read: gone meanwhile, or not mounted")))?;
    }
    if report.denied > 0 {
        let files = plural(report.denied, "file", "files");
        let text = format!("{files} that you may not read: 'dupfind status --problems' lists them");
        writeln!(output, "{}", warn(text))?;
    }
    let rotten = report.rot.iter().filter(|rot| rot.found.is_some()).count() as u64;
    if rotten > 0 {
        let text = format!(
            "{}: restore them from a copy, or run 'dupfind verify --accept FILE'",
            plural(rotten, "rotten file", "rotten files")
        );
        writeln!(output, "{}", context.style.error(&text))?;
    }
    let unread = report.rot.len() as u64 - rotten;
    if unread > 0 {
        let text = plural(unread, "file could not be read", "files could not be read");
        writeln!(output, "{}", context.style.error(&text))?;
    }
    if report.unhashed > 0 {
        let files = plural(report.unhashed, "file has", "files have");
        let text =
            format!("{files} no hash to compare with; 'dupfind scan --hash-all DIR' gives all of them one");
        writeln!(output, "{}", context.style.dim(&text))?;
    }
    Ok(())
}

fn write_rot(rot: &Rot, output: &mut impl Write, context: &Context) -> io::Result<()> {
    let path = shown(&rot.place);
    let (size, since) = (bytes(rot.size), moment(rot.since));
    let (word, problem) = match rot.found {
        Some(_) => ("rotten", String::new()),
        None => ("unreadable", format!(": {}", escape(rot.problem.as_bytes()))),
    };
    writeln!(output, "{} {path} ({size}, found {since}){problem}", context.style.error(word))?;
    writeln!(output, "  hash was {}", rot.expected)?;
    if let Some(found) = rot.found {
        writeln!(output, "  and is   {found}")?;
    }
    if rot.copies.is_empty() {
        writeln!(output, "  no copy of it is known")?;
    }
    for copy in &rot.copies {
        writeln!(output, "  copy     {}", shown(&copy.place))?;
    }
    Ok(())
}

fn shown(place: &ShownPath) -> String {
    shown_path(place.host.as_deref(), &place.path)
}

fn outcome_json(report: &VerifyReport, mode: VerifyMode, elapsed: Duration) -> Value {
    let rot = |rot: &Rot| {
        let mut value = place_json(&rot.place);
        value["size"] = rot.size.into();
        value["expected"] = rot.expected.to_string().into();
        value["found"] = rot.found.map(|found| found.to_string()).into();
        value["problem"] = rot.problem.as_str().into();
        value["since"] = rfc3339(rot.since).into();
        value["copies"] = rot.copies.iter().map(|copy| place_json(&copy.place)).collect();
        value
    };
    let (rotten, unreadable): (Vec<&Rot>, Vec<&Rot>) = report.rot.iter().partition(|rot| rot.found.is_some());
    let ended = |wanted: Ending| -> Vec<Value> {
        let ended = report.ended.iter().filter(|ended| ended.ending == wanted);
        ended.map(|ended| place_json(&ended.place)).collect()
    };
    let left_out = |row: &crate::model::group::ProblemRow| {
        let mut value = path_json(row.host.as_deref(), &row.path);
        value["problem"] = row.problem.as_str().into();
        value
    };
    let counts = &report.counts;
    let mut value = json!({
        "version": 1,
        "status": report.status.as_str(),
        "seconds": elapsed.as_secs_f64(),
        "files_seen": counts.files_seen,
        "bytes_seen": counts.bytes_seen,
        "hashed": counts.hashed,
        "bytes_read": counts.bytes_read,
        "intact": report.intact,
        "changed": report.changed,
        "problems": counts.problems,
        "denied": report.denied,
        "not_read": report.not_read,
        "without_hash": report.unhashed,
        "accepted": report.accepted,
        "rotten": rotten.into_iter().map(rot).collect::<Vec<_>>(),
        "unreadable": unreadable.into_iter().map(rot).collect::<Vec<_>>(),
        "left_out": report.left_out.iter().map(left_out).collect::<Vec<_>>(),
    });
    for ending in [Ending::Withdrawn, Ending::Restored, Ending::Replaced, Ending::Gone] {
        value[ending.as_str()] = ended(ending).into();
    }
    if let Some(summary) = &report.summary {
        value["summary"] = super::status::summary_json(summary);
    }
    if let VerifyMode::Sample(share) = mode {
        value["sample"] =
            json!({ "share": share.fraction(), "samples_in_a_round": share.samples_in_a_round() });
    }
    value
}

fn place_json(place: &ShownPath) -> Value {
    path_json(place.host.as_deref(), &place.path)
}

/// A path for machines, as in the JSON report.
fn path_json(host: Option<&str>, path: &Path) -> Value {
    let mut value = json!({ "path": path.to_string_lossy() });
    if let Some(encoded) = base64_if_odd(path) {
        value["path_base64"] = encoded.into();
    }
    if let Some(host) = host {
        value["host"] = host.into();
    }
    value
}
