//! `dupfind roots add`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{options_text, root_json, root_text};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::scan::{ScanOptions, parse_positive};
use crate::config::{Flags, WatchSettings};
use crate::discovery::filter::Filter;
use crate::format::parse_interval;
use crate::model::path::escape_path;
use crate::model::settings::{HashPolicy, ScanSettings};
use crate::model::upkeep::Upkeep;
use crate::progress::Progress;
use crate::scan::{RootCandidate, ScanError, Scanner, check_root};

/// Remember directories without scanning them, or change their options
///
/// Of a directory that is remembered already, only the options given change, from
/// its next walk on: 'dupfind scan DIR' without options is one. 'dupfind resume'
/// scans what was never scanned.
///
/// Presets set the options that are named here and leave others alone; an option
/// beside one wins:
///   small  checked often, and every file hashed, so that bit rot shows and a
///          later copy is found at once: --interval 1h --shortest-interval 10m
///          --longest-interval 24h --hash all
///   large  an archive that seldom changes and takes long to walk; what changed
///          last comes first: --interval 7d --shortest-interval 24h
///          --longest-interval 30d --batch-size 32768 --recent-first --hash
///          candidates; with --hash none beside it, it is listed and not read
///   busy   where people and programs work all day: often looked at, with so few
///          threads that nobody notices: --interval 6h --shortest-interval 30m
///          --longest-interval 24h --threads 2 --io-threads 2 --recent-first
///          --hash candidates
///
/// Examples:
///   dupfind roots add --watch ~/Photos
///   dupfind roots add --preset large --hash none /mnt/archive
///   dupfind roots add --interval 12h --first 2026 ~/Photos
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AddArgs {
    /// The directories
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// Set several options at once: see above
    #[arg(long, value_enum, value_name = "PRESET")]
    preset: Option<Preset>,
    /// Forget the options that they have, so that what is not given is as for a new directory
    #[arg(long)]
    reset: bool,
    /// Print what is remembered as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    upkeep: UpkeepOptions,
    #[command(flatten)]
    scan: ScanOptions,
}

/// How a root is kept up to date.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is kept up to date (remembered)")]
struct UpkeepOptions {
    /// 'dupfind watch' without directories takes it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    watch: Option<bool>,
    /// From one reconciliation to the next: 90m, 24h, 7d [default: 24h, or as config.json says]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    interval: Option<u64>,
    /// The least that the schedule may make of it, where reconciliations find much [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    shortest_interval: Option<u64>,
    /// The most that the schedule may make of it, where they find nothing [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    longest_interval: Option<u64>,
    /// Ask the system for no events: look through it so often instead
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    poll: Option<u64>,
    /// Rows written to the index at once [default: 8192]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    batch_size: Option<usize>,
    /// Threads that walk [default: processors, more if the disk is slow]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    threads: Option<usize>,
    /// Files read at once [default: processors, more if the disk is slow]
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    io_threads: Option<usize>,
    /// Complete this directory below DIR before the others (repeatable, in this order)
    #[arg(long, value_name = "SUBDIR")]
    first: Vec<PathBuf>,
    /// Walk directories that changed of late before the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    recent_first: Option<bool>,
}

/// Options for a kind of tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    Small,
    Large,
    Busy,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

impl Preset {
    /// Its options; whether to watch, to poll and what comes first are no matter of it.
    fn over(self, others: Upkeep) -> Upkeep {
        let (shortest, interval, longest) = match self {
            Self::Small => (10 * MINUTE, HOUR, DAY),
            // A walk of millions of files keeps a disk busy for minutes.
            Self::Large => (DAY, 7 * DAY, 30 * DAY),
            Self::Busy => (30 * MINUTE, 6 * HOUR, DAY),
        };
        let few_threads = (self == Self::Busy).then_some(2);
        Upkeep {
            interval: Some(interval),
            shortest_interval: Some(shortest),
            longest_interval: Some(longest),
            batch_size: (self == Self::Large).then_some(32 * 1024),
            threads: few_threads,
            io_threads: few_threads,
            recent_first: self != Self::Small,
            ..others
        }
    }

    fn hash(self) -> HashPolicy {
        if self == Self::Small { HashPolicy::All } else { HashPolicy::Candidates }
    }
}

impl UpkeepOptions {
    /// These, but for what was given.
    fn over(&self, others: Upkeep, first: Vec<String>) -> Upkeep {
        Upkeep {
            watch: self.watch.unwrap_or(others.watch),
            interval: self.interval.or(others.interval),
            shortest_interval: self.shortest_interval.or(others.shortest_interval),
            longest_interval: self.longest_interval.or(others.longest_interval),
            poll: self.poll.or(others.poll),
            batch_size: self.batch_size.or(others.batch_size),
            threads: self.threads.or(others.threads),
            io_threads: self.io_threads.or(others.io_threads),
            first: if first.is_empty() { others.first } else { first },
            recent_first: self.recent_first.unwrap_or(others.recent_first),
        }
    }
}

impl AddArgs {
    /// What a directory is to be remembered with. `kept`: what it has, if it is remembered already.
    fn options(
        &self,
        path: &Path,
        kept: Option<(&ScanSettings, &Upkeep)>,
        inherited: &ScanSettings,
        watch: &WatchSettings,
    ) -> Result<(ScanSettings, Upkeep), Failure> {
        let kept = kept.filter(|_| !self.reset);
        let mut settings = kept.map_or(inherited, |(settings, _)| settings).clone();
        let mut upkeep = kept.map(|(_, upkeep)| upkeep.clone()).unwrap_or_default();
        if let Some(preset) = self.preset {
            settings.hash = preset.hash();
            upkeep = preset.over(upkeep);
        }
        let mut first = Vec::new();
        for below in &self.upkeep.first {
            let below = first_below(path, below)?;
            if !first.contains(&below) {
                first.push(below);
            }
        }
        let upkeep = self.upkeep.over(upkeep, first);
        let settings = self.scan.over(&settings);
        Filter::new(&settings).map_err(ScanError::from)?;
        watch.of_root(&upkeep).map_err(|error| Failure::Usage(format!("{}: {error}", escape_path(path))))?;
        Ok((settings, upkeep))
    }
}

pub(super) async fn run(args: AddArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = context.settings(&Flags::default())?;
    let index = match check(&args, &settings.watch) {
        Ok(()) => context.create_index(&settings).await?,
        // Perhaps it is a root that cannot be reached. Without an index it is none.
        Err(Refused::OutOfReach(failure)) => context.open_index(&settings).await.map_err(|_| failure)?,
        Err(Refused::ForGood(failure)) => return Err(failure),
    };
    let scanner = Scanner::new(
        Arc::clone(&index),
        settings.host.clone(),
        settings.workers,
        context.cancel.clone(),
        Arc::new(Progress::default()),
    )?;
    let mut roots = Vec::new();
    for candidate in scanner.find_roots(&args.directories, &settings.scan).await? {
        let RootCandidate { path, known, inherited, .. } = &candidate;
        let kept = known.as_ref().map(|root| (&root.settings, &root.upkeep));
        let (scan, upkeep) = args.options(path, kept, inherited, &settings.watch)?;
        roots.push((candidate, scan, upkeep));
    }
    let ids = scanner.put_roots(&roots).await?;

    let places = index.places(&settings.host.name).await?;
    let known = index.roots().await?;
    let mut remembered = Vec::new();
    for (id, (candidate, ..)) in ids.iter().zip(&roots) {
        let Some(root) = known.iter().find(|root| root.id == *id) else { continue };
        let what = if candidate.known.is_some() { "changed" } else { "remembered" };
        let options = options_text(root).map(|text| format!(": {text}")).unwrap_or_default();
        context.say(&format!("{what} {}{options}", root_text(root, &places)));
        remembered.push(root);
    }
    let wants_more = |(candidate, settings, _): &(RootCandidate, ScanSettings, Upkeep)| {
        let before = candidate.known.as_ref().filter(|root| root.last_scan.is_some());
        before.is_some_and(|root| settings.hash != root.settings.hash && settings.hash != HashPolicy::None)
    };
    if remembered.iter().any(|root| root.last_scan.is_none()) {
        context.say("'dupfind resume' scans what was never scanned");
    } else if roots.iter().any(wants_more) {
        context.say("'dupfind resume' reads what is to be hashed now");
    }
    if args.json {
        let roots: Vec<_> = remembered.iter().map(|root| root_json(root, &places)).collect();
        writeln!(io::stdout(), "{}", json!({ "version": 1, "roots": roots }))?;
    }
    Ok(Exit::Done)
}

/// Why something is refused before the index is opened.
enum Refused {
    /// There is no such directory now.
    OutOfReach(Failure),
    /// Whatever the index holds.
    ForGood(Failure),
}

/// Refuses what makes no sense whatever the index holds, so that none is made for it.
fn check(args: &AddArgs, watch: &WatchSettings) -> Result<(), Refused> {
    let any_size = ScanSettings { min_size: 0, ..ScanSettings::default() };
    let mut out_of_reach = None;
    for directory in &args.directories {
        match check_root(directory) {
            Ok(path) => drop(args.options(&path, None, &any_size, watch).map_err(Refused::ForGood)?),
            Err(error) => out_of_reach = Some(Refused::OutOfReach(error.into())),
        }
    }
    out_of_reach.map_or(Ok(()), Err)
}

/// A directory that is to come first, as its path below the root.
fn first_below(root: &Path, below: &Path) -> Result<String, Failure> {
    let refused = |reason: &str| {
        Failure::Usage(format!("--first {}: {reason} {}", escape_path(below), escape_path(root)))
    };
    let real = check_root(&root.join(below))?;
    let relative = real.strip_prefix(root).map_err(|_| refused("not below"))?;
    if relative.as_os_str().is_empty() {
        return Err(refused("all of"));
    }
    let name = relative.to_str().ok_or_else(|| refused("its name is not UTF-8, below"))?;
    Ok(name.to_owned())
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    Ok(parse_interval(text)?.as_secs())
}
