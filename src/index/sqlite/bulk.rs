//! Statements over many rows.
//!
//! A statement through sqlx costs about 77 microseconds whatever it does, so rows travel by the
//! thousand. Each length of `values` is a text of its own that has to be prepared, so only powers of
//! two are used, and the statement cache holds them all.

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe};

use crate::index::{IndexError, Result};

/// Rows in the largest statement: eleven columns of 1,024 rows stay below SQLite's 32,766 parameters.
pub(super) const MOST_ROWS: usize = 1024;

/// A statement whose `values` list is as long as there are rows.
#[derive(Debug)]
pub(super) struct Bulk {
    /// What is being done, for errors.
    pub(super) operation: &'static str,
    /// The text up to the list.
    pub(super) head: &'static str,
    /// The placeholders of one row, in parentheses.
    pub(super) row: &'static str,
    /// The text after the list.
    pub(super) tail: &'static str,
}

impl Bulk {
    /// Executes the statement for all rows; returns how many rows of the table it changed.
    ///
    /// While the database works on one chunk, the arguments of the next are made.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Binder, &T),
    ) -> Result<u64> {
        let mut changed = 0;
        let mut statements = chunks(rows).map(|chunk| Ok((self.text(chunk.len()), self.bind(chunk, &bind)?)));
        let mut next = statements.next();
        while let Some(statement) = next {
            let (text, arguments) = statement?;
            let executing = sqlx::query_with(AssertSqlSafe(text), arguments).execute(&mut *connection);
            let (result, following) = tokio::join!(executing, async { statements.next() });
            changed += result.map_err(IndexError::during(self.operation))?.rows_affected();
            next = following;
        }
        Ok(changed)
    }

    /// Executes the statement for all rows and returns what it returns, in no certain order.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Binder, &T),
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>> {
        let mut returned = Vec::with_capacity(rows.len());
        for chunk in chunks(rows) {
            let statement = sqlx::query_with(AssertSqlSafe(self.text(chunk.len())), self.bind(chunk, &bind)?);
            let result = statement.fetch_all(&mut *connection).await;
            returned.extend(result.map_err(IndexError::during(self.operation))?);
        }
        Ok(returned)
    }

    /// The text for a number of rows.
    pub(super) fn text(&self, rows: usize) -> String {
        let list = vec![self.row; rows].join(",");
        format!("{}{list}{}", self.head, self.tail)
    }

    fn bind<T>(&self, rows: &[T], bind: &impl Fn(&mut Binder, &T)) -> Result<SqliteArguments> {
        let columns = self.row.matches('?').count();
        let mut binder = Binder::default();
        binder.arguments.reserve(rows.len() * columns, 0);
        for row in rows {
            bind(&mut binder, row);
        }
        if let Some(error) = binder.error {
            return Err(IndexError::Damaged(error));
        }
        // A missing argument would become NULL without a word.
        assert_eq!(binder.arguments.len(), rows.len() * columns, "{}", self.operation);
        Ok(binder.arguments)
    }
}

/// Collects the arguments of a statement.
#[derive(Debug, Default)]
pub(super) struct Binder {
    arguments: SqliteArguments,
    error: Option<String>,
}

impl Binder {
    /// Adds the next argument.
    pub(super) fn push<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        if let Err(error) = self.arguments.add(value) {
            self.error = Some(error.to_string());
        }
        self
    }
}

/// Cuts rows into pieces whose lengths are powers of two, the largest first.
fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = rows.len().min(MOST_ROWS);
        let power = length.checked_ilog2()?;
        let (chunk, rest) = rows.split_at(1 << power);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_few_different_lengths() {
        let rows: Vec<usize> = (0..2500).collect();
        let lengths: Vec<usize> = chunks(&rows).map(<[usize]>::len).collect();
        assert_eq!(lengths, [1024, 1024, 256, 128, 64, 4]);
        let again: Vec<usize> = chunks(&rows).flatten().copied().collect();
        assert_eq!(again, rows);
    }
}
