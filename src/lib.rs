//! dupfind finds duplicate files and keeps what it found in a durable index.
//!
//! A map of the crate; imports run downward only:
//!
//! ```text
//! cli                                 clap, indicatif; the only place that prints
//! sync                                keeping up to date: events, schedule
//! scan  report  config                the main job; the formats; settings
//! discovery  processing  index        three rooms that do not know each other
//! volume  os  bridge  format          one tool each
//! model  cancel  concurrency  progress what everyone may use
//! ```
//!
//! To follow `dupfind scan` from the command line to the last row: [`cli::run`], then
//! [`scan::Scanner::scan`], then [`discovery::walk`] and [`processing::pool`] for the two phases and
//! [`index::Writer`] for what each writes.

pub mod bridge;
pub mod cancel;
pub mod cli;
pub mod concurrency;
pub mod config;
pub mod discovery;
pub mod format;
pub mod index;
pub mod model;
pub mod os;
pub mod processing;
pub mod progress;
pub mod report;
pub mod scan;
pub mod sync;
pub mod volume;
