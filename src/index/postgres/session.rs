//! Connections, and what happens when they are lost.
//!
//! Everything that is said to the server is said in a transaction that can be said again: if the
//! connection is lost, or the server gave way to another transaction, the whole of it is repeated
//! after a pause that grows and is never quite the same on two hosts, until the user's limit.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::Notify;

use super::PostgresOptions;
use crate::index::{IndexError, Result};
use crate::model::path::{escape, escape_path};

/// Shown only if it is another.
const STANDARD_PORT: u16 = 5432;

/// The first pause; each is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Nothing is taken for lost sooner.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_mins(5);

/// Said on every connection. Rows are looked up by their keys, thousands at a time: without statistics, which
/// a table that was just filled has not, the planner would rather read the whole table for each batch.
/// Statements over whole tables ask for [`WHOLE_TABLES`]. Compiling a plan takes longer than running it.
///
/// No transaction of ours is idle for longer than a moment: one that is belongs to a process that was frozen or
/// cut off, and must not keep the others waiting for longer than its patience.
fn each_connection(patience: Duration) -> String {
    format!(
        "set enable_hashjoin = off; set enable_mergejoin = off; set jit = off; set client_min_messages = warning;
         set idle_in_transaction_session_timeout = {}",
        patience.as_millis()
    )
}

/// For one transaction: joins over whole tables, with room to sort and to group. What does not fit goes to
/// the server's temporary files.
const WHOLE_TABLES: &str = "
    set local enable_hashjoin = on; set local enable_mergejoin = on; set local enable_nestloop = off;
    set local work_mem = '64MB'";

/// What is said in a transaction. There are many kinds, and the code around them is compiled once for all.
#[async_trait(?Send)]
trait Work {
    async fn say(&mut self, connection: &mut PgConnection) -> Result<()>;
}

/// Something to say, and what the last attempt gave.
struct Kept<F, T> {
    work: F,
    value: Option<T>,
}

#[async_trait(?Send)]
impl<T, F: AsyncFnMut(&mut PgConnection) -> Result<T>> Work for Kept<F, T> {
    async fn say(&mut self, connection: &mut PgConnection) -> Result<()> {
        self.value = Some((self.work)(connection).await?);
        Ok(())
    }
}

/// The connections of a process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pool: PgPool,
    connect: PgConnectOptions,
    options: Arc<PostgresOptions>,
    location: String,
    /// Wakes whoever waits for an answer when the sign of life got none: they wait in vain.
    silence: Arc<Notify>,
    /// True once the user's patience is over: nothing is tried again.
    has_given_up: Arc<AtomicBool>,
    /// True while the user knows that the server does not answer: several transactions may wait for it.
    has_told: Arc<AtomicBool>,
}

impl Session {
    /// Prepares to connect; nothing is sent yet.
    pub(super) fn new(options: PostgresOptions) -> Result<Self> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|source| IndexError::Unreachable { location: location(&options.url), source })?
            .application_name("dupfind")
            .disable_statement_logging();
        let each_connection: Arc<str> = each_connection(options.patience).into();
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_size)
            .acquire_timeout(options.connect_timeout.min(options.retry_for).max(SHORTEST_WAIT))
            .idle_timeout(IDLE)
            .after_connect(move |connection, _| {
                let text = Arc::clone(&each_connection);
                Box::pin(async move { connection.execute(AssertSqlSafe(&*text)).await.map(drop) })
            })
            .connect_lazy_with(connect.clone());
        Ok(Self {
            pool,
            connect,
            location: location(&options.url),
            options: Arc::new(options),
            silence: Arc::default(),
            has_given_up: Arc::default(),
            has_told: Arc::default(),
        })
    }

    /// Connects once, and says why that fails: a server that is not there when the program starts is
    /// not waited for, unless it says itself that it is about to come.
    pub(super) async fn greet(&self) -> Result<()> {
        let mut trouble: Option<Trouble> = None;
        loop {
            let connecting = tokio::time::timeout(self.options.connect_timeout, self.connect.connect());
            let error = match connecting.await {
                Ok(Ok(connection)) => {
                    // It answered; how it takes its leave does not matter.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Ok(Err(source)) => self.explain("open the index", source),
                Err(_) => self.explain("open the index", sqlx::Error::PoolTimedOut),
            };
            if !error.is_starting() {
                return Err(error);
            }
            trouble.get_or_insert_with(|| Trouble::new(self)).pause(error).await?;
        }
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// A connection, for whoever does not say things twice.
    pub(super) async fn acquire(&self, operation: &'static str) -> Result<PoolConnection<Postgres>> {
        self.pool.acquire().await.map_err(|source| self.explain(operation, source))
    }

    /// Ends every wait for an answer: the line is dead, though nobody said so.
    pub(super) fn give_up_waiting(&self) {
        self.silence.notify_waiters();
    }

    /// Does `work` in a transaction, as often as it takes. Its last attempt is the one that counts, so
    /// it must not change anything but the database.
    pub(super) async fn transaction<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnMut(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let mut work = Kept { work, value: None };
        self.repeat(operation, &mut work).await?;
        Ok(work.value.expect("what succeeded has a value"))
    }

    async fn repeat(&self, operation: &'static str, work: &mut dyn Work) -> Result<()> {
        self.patiently(async || self.attempt(operation, work).await).await
    }

    /// Tries something until it succeeds, fails for good, or the user's patience is over.
    pub(super) async fn patiently<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut trouble: Option<Trouble> = None;
        loop {
            match attempt().await {
                Err(error) if error.is_passing() => {
                    trouble.get_or_insert_with(|| Trouble::new(self)).pause(error).await?;
                }
                result => {
                    if trouble.is_some_and(|trouble| trouble.was_told) {
                        (self.options.tell)("the index answers again");
                    }
                    return result;
                }
            }
        }
    }

    async fn attempt(&self, operation: &'static str, work: &mut dyn Work) -> Result<()> {
        let mut connection = self.acquire(operation).await?;
        let said = async {
            let mut transaction =
                connection.begin().await.map_err(|source| self.explain(operation, source))?;
            work.say(&mut transaction).await?;
            transaction.commit().await.map_err(|source| self.explain(operation, source))
        };
        let result = tokio::select! {
            result = said => result,
            () = self.silence.notified() => Err(IndexError::CutOff),
        };
        if matches!(&result, Err(error) if error.is_passing()) {
            // Nobody knows what state it is in.
            drop(connection.detach());
        }
        result
    }

    fn explain(&self, operation: &'static str, source: sqlx::Error) -> IndexError {
        match IndexError::during(operation)(source) {
            // Before anything was said: the server is not there, or does not want us.
            IndexError::Database { source: sqlx::Error::PoolTimedOut, .. } => IndexError::CutOff,
            IndexError::Database { source, .. } if !is_answer(&source) => {
                IndexError::Unreachable { location: self.location.clone(), source }
            }
            other => other,
        }
    }
}

/// Where a database is, for people: without a password, and with what libpq's environment variables add to the URL.
pub fn location(url: &str) -> String {
    let Ok(connect) = PgConnectOptions::from_str(url) else { return "PostgreSQL".to_owned() };
    let host = match connect.get_socket() {
        Some(directory) => escape_path(directory),
        None => escape(connect.get_host().as_bytes()),
    };
    let port = match connect.get_port() {
        STANDARD_PORT => String::new(),
        port => format!(":{port}"),
    };
    let database = connect.get_database().unwrap_or_else(|| connect.get_username());
    format!("PostgreSQL {host}{port}/{}", escape(database.as_bytes()))
}

/// Lets a transaction join and sort whole tables.
pub(super) async fn expect_whole_tables(
    connection: &mut PgConnection,
    operation: &'static str,
) -> Result<()> {
    connection.execute(WHOLE_TABLES).await.map(drop).map_err(IndexError::during(operation))
}

fn is_answer(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some()
}

/// A time in which the server does not answer as it should.
struct Trouble<'a> {
    session: &'a Session,
    began: Instant,
    pauses: backon::ExponentialBackoff,
    was_told: bool,
}

impl<'a> Trouble<'a> {
    fn new(session: &'a Session) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build();
        Self { session, began: Instant::now(), pauses, was_told: false }
    }

    /// Waits before the next attempt; gives up with the error when the time is over.
    async fn pause(&mut self, error: IndexError) -> Result<()> {
        let options = &self.session.options;
        let left = options.retry_for.saturating_sub(self.began.elapsed());
        if left.is_zero() || self.session.has_given_up.load(Ordering::Relaxed) {
            self.session.has_given_up.store(true, Ordering::Relaxed);
            return Err(IndexError::GaveUp {
                seconds: self.began.elapsed().as_secs(),
                source: Box::new(error),
            });
        }
        // Two transactions that got in each other's way are nothing to tell.
        if !self.was_told && !error.is_conflict() && !self.session.has_told.swap(true, Ordering::Relaxed) {
            let limit = options.retry_for.as_secs();
            (options.tell)(&format!("{error}; trying again for up to {limit} s"));
            self.was_told = true;
        }
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE).min(left);
        if !options.cancel.sleep(pause).await {
            return Err(IndexError::WaitCancelled { holder: "the server to answer".to_owned() });
        }
        Ok(())
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        if self.was_told {
            self.session.has_told.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_what_is_reached_and_no_password() {
        assert_eq!(location("postgres://ann:hunter2@nas:5433/photos"), "PostgreSQL nas:5433/photos");
        assert_eq!(location("postgres://ann:hunter2@nas/dupfind"), "PostgreSQL nas/dupfind");
        assert_eq!(location("postgres://ann@localhost/photos?host=/run/pg"), "PostgreSQL /run/pg/photos");
        assert_eq!(location("no URL with hunter2"), "PostgreSQL");
    }
}
