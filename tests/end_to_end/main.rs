//! The program as its users meet it: each test runs the built binary in surroundings of its own.

mod browser;
mod discovery;
mod options;
mod oracle;
mod processing;
mod reports;
mod support;
mod survival;
