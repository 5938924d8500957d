//! The vocabulary of dupfind: pure types, no I/O.
//!
//! Owns what a file, a directory, a volume, a scan and a group *are*. Refuses to know how they are
//! walked, read, stored or shown.

pub mod digest;
pub mod file;
pub mod group;
pub mod history;
pub mod listing;
pub mod path;
pub mod pending;
pub mod rot;
pub mod rules;
pub mod scan;
pub mod settings;
pub mod stamp;
pub mod upkeep;
pub mod volume;
pub mod worker;
