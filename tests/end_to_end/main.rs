//! The program as its users meet it: each test runs the built binary in surroundings of its own.

#![expect(clippy::disallowed_methods, reason = "the tests remove, rename and link files of their own")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod browser;
mod discovery;
mod faults;
mod files;
mod history;
mod hosts;
mod options;
mod oracle;
mod processing;
mod reports;
mod roots;
#[path = "../server/mod.rs"]
mod server;
mod support;
mod survival;
mod tree;
mod verify;
mod watcher;
mod watching;
mod workers;
