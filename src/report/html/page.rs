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
