//! PostgreSQL for tests: the server that `tests/run` starts, or one of a test's own.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, ValueRef as _};

/// Names the databases of one test process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The URL of the server for all tests.
fn shared_server() -> String {
    std::env::var("DUPFIND_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!("this test needs PostgreSQL: run it through tests/run, or set DUPFIND_TEST_POSTGRES to the URL of a server for tests (tests/postgres start DIR prints one)")
    })
}

/// A database that is removed with everything in it.
pub(crate) struct TestDatabase {
    server: String,
    url: String,
    name: String,
}

impl TestDatabase {
    /// An empty database on the shared server.
    pub(crate) async fn create() -> Self {
        Self::create_on(&shared_server()).await
    }

    /// An empty database on this server.
    pub(crate) async fn create_on(server: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dupfind_test_{}_{number}", std::process::id());
        say(server, &format!("create database {name}")).await;
        let mut url: url::Url = server.parse().unwrap();
        url.set_path(&name);
        Self { server: server.to_owned(), url: url.into(), name }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What SQL says: a line for each row, columns with bars between them.
    pub(crate) async fn say(&self, query: &str) -> String {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let query = AssertSqlSafe(query.to_owned());
        // The simple protocol answers in text, whatever the type.
        let rows = sqlx::raw_sql(query).fetch_all(&mut connection).await.unwrap();
        let value = |row: &PgRow, index: usize| {
            let value = row.try_get_raw(index).unwrap();
            if value.is_null() { "NULL".to_owned() } else { value.as_str().unwrap().to_owned() }
        };
        let line = |row: &PgRow| (0..row.len()).map(|index| value(row, index)).collect::<Vec<_>>().join("|");
        let text = rows.iter().map(line).collect::<Vec<_>>().join("\n");
        connection.close().await.unwrap();
        text
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime cannot be entered twice on one thread. A server that is gone takes it along.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(mut connection) = PgConnection::connect(&server).await {
                    let drop = format!("drop database if exists {name} with (force)");
                    let _ = sqlx::query(AssertSqlSafe(drop)).execute(&mut connection).await;
                }
            });
        });
        let _ = removed.join();
    }
}

async fn say(server: &str, statement: &str) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
