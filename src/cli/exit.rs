//! How the program ends: a documented code for every ending, decided here only.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::index::IndexError;
use crate::report::ReportError;
use crate::scan::ScanError;

/// A run that came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything asked for was done.
    Done,
    /// It was done as far as files could be read, or found some that are not what they were.
    Problems,
    /// The user stopped it.
    Interrupted,
}

/// A run that could not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was asked for makes no sense here.
    Usage(String),
    /// The index, or the machine, does not let us.
    Index(String),
    /// The user stopped it before it began.
    Interrupted(String),
    /// Nobody reads the output any more: that is their right.
    OutputClosed,
}

impl Failure {
    /// What there is to say.
    pub(super) fn into_message(self) -> String {
        match self {
            Self::Usage(message) | Self::Index(message) | Self::Interrupted(message) => message,
            Self::OutputClosed => String::new(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::WaitCancelled { .. } => Self::Interrupted(error.to_string()),
            _ => Self::Index(error.to_string()),
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Root { .. }
            | ScanError::NotADirectory(_)
            | ScanError::Unknown(_)
            | ScanError::PassedOver(_)
            | ScanError::NoSampleOfFiles(_)
            | ScanError::Filter(_)
            | ScanError::Names(_) => Self::Usage(error.to_string()),
            ScanError::Index(error) => error.into(),
            ScanError::Mounts(_) | ScanError::Thread(_) => Self::Index(error.to_string()),
        }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Index(error) => error.into(),
            ReportError::Write(error) => error.into(),
            ReportError::Cancelled => Self::Interrupted(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    /// Only writing results comes here.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Usage(format!("write: {error}")),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Problems => Self::from(1),
            Exit::Interrupted => Self::from(130),
        }
    }
}

/// The code of a run, after telling what went wrong.
pub(super) fn of_result(
    result: Result<Exit, Failure>,
    about_index: impl FnOnce(String) -> String,
    tell: impl FnOnce(&str),
) -> ExitCode {
    let (message, code) = match result {
        Ok(exit) => return exit.into(),
        Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (message, 2),
        Err(Failure::Index(message)) => (about_index(message), 3),
        Err(Failure::Interrupted(message)) => (message, 130),
    };
    tell(&message);
    ExitCode::from(code)
}

/// The code of a command line that clap answered itself: help, the version, or a mistake.
pub(super) fn of_usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to be said if this cannot be written.
    let _ = error.print();
    let _ = io::stdout().flush();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
