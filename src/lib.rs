//! dupfind: finds duplicate files and keeps what it found in a durable index.

pub mod bridge;
pub mod cancel;
pub mod discovery;
pub mod index;
pub mod model;
pub mod os;
pub mod processing;
pub mod progress;
pub mod scan;
pub mod volume;
