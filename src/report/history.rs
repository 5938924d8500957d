//! Runs in words, the same for the terminal and the page.

use crate::format::{bytes, count, elapsed};
use crate::model::history::Run;
use crate::model::path::shown_path;
use crate::model::scan::ScanStatus;
use crate::model::stamp::Nanos;
use crate::model::volume::Places;

/// What stands where nothing is known, or nothing was done.
const NOTHING: &str = "-";

/// Where a run looked: `/srv/photos/2019 (of /srv/photos)`.
pub fn place(run: &Run, places: &Places) -> String {
    let Some(root) = &run.root else { return "files named one by one".to_owned() };
    let (host, path) = root.place(places);
    let whole = shown_path(host.as_deref(), &path);
    match root.place_within(places) {
        Some((host, path)) => format!("{} (of {whole})", shown_path(host.as_deref(), &path)),
        None => whole,
    }
}

/// How long a run took, or has taken until `now`.
pub fn took(run: &Run, now: Nanos) -> String {
    let length = match run.status {
        ScanStatus::Running => Some(run.started_at.until(now)),
        _ => run.duration(),
    };
    length.map_or_else(|| NOTHING.to_owned(), elapsed)
}

/// The files a run saw. What it did is written when it ends.
pub fn seen(run: &Run) -> String {
    if run.ended_at.is_some() { count(run.counts.files_seen) } else { NOTHING.to_owned() }
}

/// Files added, updated and removed: `+12 ~3 -1`.
pub fn changes(run: &Run) -> String {
    let counts = &run.counts;
    let parts = [('+', counts.added), ('~', counts.updated), ('-', counts.removed)];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(sign, number)| format!("{sign}{}", count(number)))
        .collect();
    match parts.is_empty() {
        false => parts.join(" "),
        true if run.ended_at.is_some() => "none".to_owned(),
        true => NOTHING.to_owned(),
    }
}

/// What a run read.
pub fn read(run: &Run) -> String {
    if run.counts.bytes_read == 0 { NOTHING.to_owned() } else { bytes(run.counts.bytes_read) }
}
