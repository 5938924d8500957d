//! What every command needs: settings, the index, and a way to say something.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, OnceLock};

use etcetera::BaseStrategy as _;

use super::exit::Failure;
use super::{Color, Global};
use crate::cancel::Cancel;
use crate::config::{Database, Environment, Flags, PostgresSettings, Settings};
use crate::format::Style;
use crate::index::Index;
use crate::index::lock::OnBusy;
use crate::index::postgres::{self, PostgresIndex, PostgresOptions};
use crate::index::sqlite::SqliteIndex;
use crate::model::path::{escape, escape_path};

/// The surroundings of a command.
#[derive(Debug, Clone)]
pub(super) struct Context {
    flags: Flags,
    no_wait: bool,
    /// Nothing but results and errors.
    pub(super) quiet: bool,
    /// More than usual.
    pub(super) verbose: bool,
    /// For standard output.
    pub(super) style: Style,
    /// For standard error.
    pub(super) message_style: Style,
    /// The user's wish to stop.
    pub(super) cancel: Cancel,
    /// Where the index is, once the settings are known.
    location: OnceLock<String>,
}

impl Context {
    pub(super) fn new(global: &Global) -> Self {
        let allowed = |is_terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let cancel = Cancel::default();
        super::signals::listen(&cancel);
        Self {
            flags: Flags { config: global.config.clone(), db_url: global.db_url.clone(), ..Flags::default() },
            no_wait: global.no_wait,
            quiet: global.quiet,
            verbose: global.verbose,
            style: Style::new(allowed(io::stdout().is_terminal())),
            message_style: Style::new(allowed(io::stderr().is_terminal())),
            cancel,
            location: OnceLock::new(),
        }
    }

    /// Resolves the settings, with what a command has flags of its own for.
    pub(super) fn settings(&self, own: &Flags) -> Result<Settings, Failure> {
        let Flags { threads, io_threads, batch_size, .. } = *own;
        let flags = Flags { threads, io_threads, batch_size, ..self.flags.clone() };
        let settings = Settings::resolve(&flags, &environment()?)?;
        let location = self.location.get_or_init(|| location(&settings.database));
        if self.verbose {
            self.say(&format!("index: {location}"));
        }
        Ok(settings)
    }

    /// Opens the index, or makes it.
    pub(super) async fn create_index(&self, settings: &Settings) -> Result<Arc<dyn Index>, Failure> {
        Ok(match &settings.database {
            Database::Sqlite { path } => Arc::new(SqliteIndex::create(path, self.on_busy()).await?),
            Database::Postgres(server) => Arc::new(PostgresIndex::create(self.postgres(server)).await?),
        })
    }

    /// Opens the index that is there.
    pub(super) async fn open_index(&self, settings: &Settings) -> Result<Arc<dyn Index>, Failure> {
        Ok(match &settings.database {
            Database::Sqlite { path } => Arc::new(SqliteIndex::open(path, self.on_busy()).await?),
            Database::Postgres(server) => Arc::new(PostgresIndex::open(self.postgres(server)).await?),
        })
    }

    fn postgres(&self, server: &PostgresSettings) -> PostgresOptions {
        let (style, quiet) = (self.message_style, self.quiet);
        let tell = move |message: &str| {
            if !quiet {
                print(&style.warning(&escape(message.as_bytes())));
            }
        };
        PostgresOptions {
            url: server.url.reveal().to_owned(),
            pool_size: server.pool_size,
            connect_timeout: server.connect_timeout,
            retry_for: server.retry_for,
            patience: server.patience,
            on_busy: self.on_busy(),
            cancel: self.cancel.clone(),
            tell: Arc::new(tell),
        }
    }

    fn on_busy(&self) -> OnBusy {
        if self.no_wait {
            return OnBusy::Fail;
        }
        let style = self.message_style;
        let tell = move |holder: &str| {
            let message = style
                .warning(&format!("waiting for {holder}, which writes to the index (--no-wait gives up)"));
            let _ = writeln!(io::stderr(), "dupfind: {message}");
        };
        OnBusy::Wait { cancel: self.cancel.clone(), tell: Arc::new(tell) }
    }

    /// Says something that is no result, unless told to be quiet.
    pub(super) fn say(&self, message: &str) {
        if !self.quiet {
            print(&escape(message.as_bytes()));
        }
    }

    /// Says something that the user should look at.
    pub(super) fn warn(&self, message: &str) {
        if !self.quiet {
            print(&self.message_style.warning(&escape(message.as_bytes())));
        }
    }

    /// A message about the index that says which one.
    pub(super) fn about_index(&self, message: String) -> String {
        match self.location.get() {
            Some(location) if !message.contains(location) => format!("index {location}: {message}"),
            _ => message,
        }
    }

    /// Says why the program fails, in one line.
    pub(super) fn error(&self, message: &str) {
        print(&format!("{} {}", self.message_style.error("error:"), escape(message.as_bytes())));
    }
}

/// A line on standard error. Nothing can be done if that is closed.
fn print(message: &str) {
    let _ = writeln!(io::stderr(), "dupfind: {message}");
}

fn environment() -> Result<Environment, Failure> {
    let current_directory =
        std::env::current_dir().map_err(|error| Failure::Usage(format!("current directory: {error}")))?;
    let base = etcetera::choose_base_strategy().ok();
    Ok(Environment {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect(),
        current_directory,
        config_directory: base.as_ref().map(|base| base.config_dir().join("dupfind")),
        data_directory: base.as_ref().map(|base| base.data_dir().join("dupfind")),
        host: crate::os::host_name(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Where an index is, for people.
fn location(database: &Database) -> String {
    match database {
        Database::Sqlite { path } => escape_path(path),
        Database::Postgres(server) => postgres::location(server.url.reveal()),
    }
}
