//! What the HTML report shows: data already formatted for people, and the template that places it.
//!
//! Nothing is computed here or in the template, so that the page can be judged by looking at it and
//! the figures by testing what fills it. Askama escapes every field for HTML except [`Page::data`].

/// One self-contained report page; `render` gives the whole file.
#[derive(Debug, askama::Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    /// The version of the program that wrote the report.
    pub(super) version: &'static str,
    /// When the report was written, for people: `2026-11-20 20:51 UTC`.
    pub(super) generated_at: String,
    /// The same moment for machines.
    pub(super) generated_at_rfc3339: String,
    /// Whether every known file has been compared; if not, the figures are a lower bound.
    pub(super) complete: bool,
    /// What remains to be done, and how to go on.
    pub(super) pending: Option<String>,
    /// What could not be read, and how to see it.
    pub(super) problems: Option<String>,
    /// The directories the index covers.
    pub(super) roots: Vec<RootLine>,
    /// What the report was restricted to, if it was: `below /data/photos, at least 1 MiB`.
    pub(super) filter: Option<String>,
    /// How many files were compared.
    pub(super) files: String,
    /// How much space they take.
    pub(super) bytes: String,
    /// How many groups of identical files there are.
    pub(super) groups: String,
    /// How many files could go if one of each group stays.
    pub(super) redundant_files: String,
    /// How much space that would free.
    pub(super) reclaimable: String,
    /// How many groups the table lists.
    pub(super) shown_groups: String,
    /// Whether the table lists every group.
    pub(super) shown_is_all: bool,
    /// What the table leaves out, and how to list more.
    pub(super) rest: Option<String>,
    /// Reclaimable space by directory: at most twelve, largest first, perhaps closed by "other".
    pub(super) by_directory: Vec<Bar>,
    /// Reclaimable space by file type, in the same form.
    pub(super) by_type: Vec<Bar>,
    /// The groups as JSON for the table. It goes into a `<script>` as it is: whoever fills it has
    /// written every `<`, `>`, `&`, U+2028 and U+2029 as a `\u` escape.
    pub(super) data: String,
    /// The second part of the page: how the index developed, and the latest runs.
    pub(super) history: HistoryView,
}

/// How the index developed.
#[derive(Debug)]
pub(super) struct HistoryView {
    /// From when to when, of how many counts: `From 2026-10-01 12:00 to 2026-11-21 15:05 UTC: 42 counts`. None if
    /// there are not two of them.
    pub(super) span: Option<String>,
    /// The charts; none without a span.
    pub(super) charts: Vec<Development>,
    /// What the charts show, for who cannot see them.
    pub(super) moments: Vec<MomentLine>,
    /// The latest runs, the newest first.
    pub(super) runs: Vec<RunLine>,
    /// Times and places of the charts' points as JSON, written as [`Page::data`] is.
    pub(super) data: String,
}

/// A chart over time. Places in it are in per cent from the left and from the bottom.
#[derive(Debug)]
pub(super) struct Development {
    /// What it is called in the page: `files`.
    pub(super) id: &'static str,
    /// What it shows.
    pub(super) title: &'static str,
    /// The latest value: `1.2 GiB`.
    pub(super) value: String,
    /// How it differs from the first: `300 MiB more than on 2026-10-01`.
    pub(super) change: String,
    /// All of it in a sentence.
    pub(super) description: String,
    /// The line as an SVG path, in a square of 1000 by 1000.
    pub(super) line: String,
    /// The ground below the line, if the scale begins at zero: else its size would say nothing.
    pub(super) area: Option<String>,
    /// Characters in the longest label at the left.
    pub(super) label_width: usize,
    /// Labels at the left.
    pub(super) levels: Vec<Tick>,
    /// Labels below.
    pub(super) times: Vec<Tick>,
    /// How high the latest value stands.
    pub(super) last: f64,
}

/// A label of an axis.
#[derive(Debug)]
pub(super) struct Tick {
    /// Where it stands.
    pub(super) at: f64,
    /// The text.
    pub(super) label: String,
}

impl Tick {
    /// The same place in an SVG of 1000 by 1000, whose origin is at the top.
    pub(super) fn height_in_svg(&self) -> f64 {
        (100.0 - self.at) * 10.0
    }
}

/// The figures of a moment.
#[derive(Debug)]
pub(super) struct MomentLine {
    /// When: `2026-11-20 20:40`.
    pub(super) at: String,
    /// How many files there were.
    pub(super) files: String,
    /// How much space they took.
    pub(super) bytes: String,
    /// How many groups there were.
    pub(super) groups: String,
    /// How many files could have gone.
    pub(super) redundant_files: String,
    /// How much space that would have freed.
    pub(super) reclaimable: String,
}

/// A run.
#[derive(Debug)]
pub(super) struct RunLine {
    /// When it began: `2026-11-20 20:40`.
    pub(super) started_at: String,
    /// What began it: `scan`.
    pub(super) kind: &'static str,
    /// Where it looked, with control and bidirectional characters made visible.
    pub(super) place: String,
    /// How it ended: `completed`.
    pub(super) status: &'static str,
    /// Why it did not, if that is known.
    pub(super) error: Option<String>,
    /// How long it took.
    pub(super) took: String,
    /// Files it saw.
    pub(super) seen: String,
    /// What it changed: `+12 ~3 -1`.
    pub(super) changes: String,
    /// How much it read.
    pub(super) read: String,
}

/// A scanned directory and how its last scan ended.
#[derive(Debug)]
pub(super) struct RootLine {
    /// Its path, with control and bidirectional characters made visible.
    pub(super) path: String,
    /// When it was last scanned: `2026-11-20 20:40 UTC`, or `never`.
    pub(super) last_scan: String,
    /// How that scan ended: `completed`, `interrupted`...
    pub(super) status: String,
}

/// One bar of a chart.
#[derive(Debug)]
pub(super) struct Bar {
    /// The directory or the type.
    pub(super) label: String,
    /// How much space can be reclaimed: `1.2 GiB`.
    pub(super) value: String,
    /// How many files that is: `1,234 files`.
    pub(super) files: String,
    /// The length of the bar in per cent of the longest, 0 to 100.
    pub(super) percent: f64,
}
