//! Writing back what was read.
//!
//! Guarded: a row is only touched if it still has the stamp it was read with. A row that was
//! removed meanwhile is not brought back.

use sqlx::sqlite::SqliteConnection;

use super::bulk::{Binder, Bulk};

use crate::index::Result;
use crate::index::convert::{inode_to_integer, sample_bytes, to_integer};
use crate::model::digest::{Digest, Sample};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Outcome};
use crate::model::stamp::{Nanos, Stamp};

const WRITE_CONTENT: Bulk = Bulk {
    operation: "write hashes",
    head: "update files set
        sample = coalesce(v.column7, files.sample), hash = coalesce(v.column8, files.hash),
        recheck = v.column9, ctime_ns = v.column10, problem = null
        from (values ",
    row: "(?,?,?,?,?,?,?,?,?,?)",
    tail: ") v where files.directory_id = v.column1 and files.name = v.column2
        and files.size = v.column3 and files.mtime_ns = v.column4
        and files.ctime_ns = v.column5 and files.inode = v.column6",
};

/// The hash stays NULL: what could not be read, or is not what it was, matches nothing.
const WRITE_TROUBLE: Bulk = Bulk {
    operation: "write problems",
    head: "update files set
        size = v.column7, mtime_ns = v.column8, ctime_ns = v.column9, inode = v.column10,
        sample = null, hash = null, problem = v.column11
        from (values ",
    row: "(?,?,?,?,?,?,?,?,?,?,?)",
    tail: ") v where files.directory_id = v.column1 and files.name = v.column2
        and files.size = v.column3 and files.mtime_ns = v.column4
        and files.ctime_ns = v.column5 and files.inode = v.column6",
};

/// What one row takes over.
struct Content<'a> {
    outcome: &'a Outcome,
    sample: Option<Sample>,
    digest: Option<Digest>,
    ctime: Nanos,
    racy: bool,
}

type Trouble<'a> = (&'a Outcome, Stamp, String);

pub(super) async fn write_outcomes(connection: &mut SqliteConnection, outcomes: &[Outcome]) -> Result<u64> {
    let mut contents: Vec<Content<'_>> = Vec::with_capacity(outcomes.len());
    let mut troubles: Vec<Trouble<'_>> = Vec::new();
    for outcome in outcomes {
        match &outcome.finding {
            Finding::Hashed { digest, sample, ctime, racy } => {
                let (digest, ctime, racy) = (Some(*digest), *ctime, *racy);
                contents.push(Content { outcome, sample: *sample, digest, ctime, racy });
            }
            Finding::Sampled { sample, ctime, racy } => {
                let (sample, ctime, racy) = (Some(*sample), *ctime, *racy);
                contents.push(Content { outcome, sample, digest: None, ctime, racy });
            }
            Finding::Changed(now) => troubles.push((outcome, *now, Problem::Changed.to_text())),
            Finding::Failed(problem) => troubles.push((outcome, outcome.expected, problem.to_text())),
        }
    }
    // In the order of the rows, so that a page of the table is changed once.
    contents.sort_unstable_by(|a, b| row_order(a.outcome).cmp(&row_order(b.outcome)));

    let mut written = WRITE_CONTENT
        .execute(connection, &contents, |binder, content| {
            push_row(binder, content.outcome);
            binder.push(sample_bytes(content.sample)).push(content.digest.map(|digest| digest.0.to_vec()));
            binder.push(i64::from(content.racy)).push(content.ctime.0);
        })
        .await?;
    written += WRITE_TROUBLE
        .execute(connection, &troubles, |binder, (outcome, now, problem)| {
            push_row(binder, outcome);
            push_stamp(binder, *now);
            binder.push(problem.as_str());
        })
        .await?;
    Ok(written)
}

fn row_order(outcome: &Outcome) -> (i64, &[u8]) {
    (outcome.key.directory.0, &outcome.key.name)
}

fn push_row(binder: &mut Binder, outcome: &Outcome) {
    binder.push(outcome.key.directory.0).push(&*outcome.key.name);
    push_stamp(binder, outcome.expected);
}

fn push_stamp(binder: &mut Binder, stamp: Stamp) {
    binder
        .push(to_integer(stamp.size))
        .push(stamp.mtime.0)
        .push(stamp.ctime.0)
        .push(inode_to_integer(stamp.inode));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan that scans the table instead of looking the rows up is fifty times slower.
    #[tokio::test]
    async fn rows_are_looked_up_by_their_key() {
        let directory = tempfile::tempdir().unwrap();
        let on_busy = crate::index::lock::OnBusy::Fail;
        let index = super::super::SqliteIndex::create(&directory.path().join("i.db"), on_busy).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        for bulk in [WRITE_CONTENT, WRITE_TROUBLE] {
            let text = format!("explain query plan {}", bulk.text(1024));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(&mut connection).await.unwrap();
            let looked_up = "SEARCH files USING PRIMARY KEY (directory_id=? AND name=?)";
            assert!(plan.iter().any(|(.., step)| step == looked_up), "{plan:?}");
        }
    }
}
