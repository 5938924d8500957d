//! Writing back what was read.
//!
//! A file that changed meanwhile, or was removed, has another row or none: what was read of the one
//! before finds no row, and is dropped.

use sqlx::sqlite::SqliteConnection;

use super::bulk::Bulk;
use super::rot;
use crate::index::convert::{inode_to_integer, sample_bytes, to_integer, to_json};
use crate::index::{IndexError, Result};
use crate::model::digest::{Digest, Sample};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Outcome};
use crate::model::stamp::{Nanos, Stamp};

/// Rows in a statement that takes them as one argument.
const HASHES_AT_ONCE: usize = 8192;

/// What most files get, a hash and nothing else: the rows as a JSON array (?1), the hashes as one blob (?2). Two
/// arguments for thousands of rows: an argument of its own for each value takes longer than the insertion.
const WRITE_HASHES: &str = "
    insert into contents (file_id, hash, size, inode, volume_id)
    select f.id, substr(?2, j.key * 32 + 1, 32), f.size, f.inode, f.volume_id
    from json_each(?1) j cross join files f on f.id = j.value
    where true
    on conflict (file_id) do update set hash = excluded.hash, recheck = 0";

/// What has a sample, or has to be read again.
const WRITE_CONTENTS: Bulk = Bulk {
    operation: "write hashes",
    head: "insert into contents (file_id, hash, sample, recheck, size, inode, volume_id)
        select f.id, v.column2, v.column3, v.column4, f.size, f.inode, f.volume_id from (values ",
    row: "(?,?,?,?)",
    tail: ") v cross join files f on f.id = v.column1 where true
        on conflict (file_id) do update set
        hash = coalesce(excluded.hash, hash), sample = coalesce(excluded.sample, sample), recheck = excluded.recheck",
};

/// Of files whose permissions, owner or links changed since they were listed.
const WRITE_CTIMES: Bulk = Bulk {
    operation: "write hashes",
    head: "update files set ctime_ns = v.column2 from (values ",
    row: "(?,?)",
    tail: ") v where files.id = v.column1",
};

const HAS_PROBLEMS: &str = "select exists (select 1 from problems)";

const FORGET_PROBLEMS: &str = "delete from problems where file_id in (select value from json_each(?))";

/// What has to be read again must be looked at again, whatever its directory's listing says.
const FORGET_FINGERPRINTS: &str = "
    update directories set fingerprint = null
    where id in (select f.directory_id from json_each(?) j cross join files f on f.id = j.value)";

/// There is no hash any more: what could not be read, or is not what it was, matches nothing.
const FORGET_CONTENTS: &str = "delete from contents where file_id in (select value from json_each(?))";

const WRITE_STAMPS: Bulk = Bulk {
    operation: "write problems",
    head: "update files set size = v.column2, mtime_ns = v.column3, ctime_ns = v.column4, inode = v.column5
        from (values ",
    row: "(?,?,?,?,?)",
    tail: ") v where files.id = v.column1",
};

const WRITE_PROBLEMS: Bulk = Bulk {
    operation: "write problems",
    head: "insert into problems (file_id, problem) select f.id, v.column2 from (values ",
    row: "(?,?)",
    tail: ") v cross join files f on f.id = v.column1 where true
        on conflict (file_id) do update set problem = excluded.problem",
};

/// What a file is known to hold.
struct Content {
    id: i64,
    digest: Option<Digest>,
    sample: Option<Sample>,
    racy: bool,
}

/// Outcomes by the statements that write them.
#[derive(Default)]
struct Sorted {
    plain: Vec<(i64, Digest)>,
    contents: Vec<Content>,
    ctimes: Vec<(i64, Nanos)>,
    stamps: Vec<(i64, Stamp)>,
    problems: Vec<(i64, String)>,
}

impl Sorted {
    fn add(&mut self, outcome: &Outcome) {
        let id = outcome.key.id.0;
        let (digest, sample, ctime, racy) = match &outcome.finding {
            Finding::Hashed { digest, sample, ctime, racy } => (Some(*digest), *sample, *ctime, *racy),
            Finding::Sampled { sample, ctime, racy } => (None, Some(*sample), *ctime, *racy),
            Finding::Changed(now) => {
                self.stamps.push((id, *now));
                self.problems.push((id, Problem::Changed.to_text()));
                return;
            }
            Finding::Failed(problem) => {
                self.problems.push((id, problem.to_text()));
                return;
            }
        };
        if ctime != outcome.expected.ctime {
            self.ctimes.push((id, ctime));
        }
        match digest {
            Some(digest) if sample.is_none() && !racy => self.plain.push((id, digest)),
            _ => self.contents.push(Content { id, digest, sample, racy }),
        }
    }
}

pub(super) async fn write_outcomes(connection: &mut SqliteConnection, outcomes: &[Outcome]) -> Result<()> {
    let failed = || IndexError::during("write hashes");
    let mut sorted = Sorted::default();
    for outcome in outcomes {
        sorted.add(outcome);
    }
    let Sorted { mut plain, mut contents, ctimes, stamps, problems } = sorted;
    // In the order of the rows, so that a page of the table is changed once.
    plain.sort_unstable_by_key(|(id, _)| *id);
    contents.sort_unstable_by_key(|content| content.id);

    let has_problems: bool =
        sqlx::query_scalar(HAS_PROBLEMS).fetch_one(&mut *connection).await.map_err(failed())?;
    if has_problems {
        let known: Vec<i64> =
            plain.iter().map(|(id, _)| *id).chain(contents.iter().map(|content| content.id)).collect();
        say(connection, FORGET_PROBLEMS, &known).await?;
    }
    let racy: Vec<i64> = contents.iter().filter(|content| content.racy).map(|content| content.id).collect();
    say(connection, FORGET_FINGERPRINTS, &racy).await?;

    for chunk in plain.chunks(HASHES_AT_ONCE) {
        let ids: Vec<i64> = chunk.iter().map(|(id, _)| *id).collect();
        let hashes: Vec<u8> = chunk.iter().flat_map(|(_, digest)| digest.0).collect();
        let inserted =
            sqlx::query(WRITE_HASHES).bind(to_json(&ids)?).bind(hashes).execute(&mut *connection).await;
        inserted.map_err(failed())?;
    }
    WRITE_CONTENTS
        .execute(connection, &contents, |binder, content| {
            binder.push(content.id).push(content.digest.map(|digest| digest.0.to_vec()));
            binder.push(sample_bytes(content.sample)).push(i64::from(content.racy));
        })
        .await?;
    WRITE_CTIMES
        .execute(connection, &ctimes, |binder, (id, ctime)| {
            binder.push(*id).push(ctime.0);
        })
        .await?;
    write_troubles(connection, &stamps, &problems).await?;
    rot::judge(connection).await
}

async fn write_troubles(
    connection: &mut SqliteConnection,
    stamps: &[(i64, Stamp)],
    problems: &[(i64, String)],
) -> Result<()> {
    let ids: Vec<i64> = problems.iter().map(|(id, _)| *id).collect();
    say(connection, FORGET_CONTENTS, &ids).await?;
    WRITE_STAMPS
        .execute(connection, stamps, |binder, (id, stamp)| {
            binder.push(*id).push(to_integer(stamp.size)).push(stamp.mtime.0).push(stamp.ctime.0);
            binder.push(inode_to_integer(stamp.inode));
        })
        .await?;
    WRITE_PROBLEMS
        .execute(connection, problems, |binder, (id, problem)| {
            binder.push(*id).push(problem.as_str());
        })
        .await?;
    Ok(())
}

/// Says something of rows, if there are any.
async fn say(connection: &mut SqliteConnection, statement: &'static str, ids: &[i64]) -> Result<()> {
    if !ids.is_empty() {
        let said = sqlx::query(statement).bind(to_json(&ids)?).execute(connection).await;
        said.map_err(IndexError::during("write hashes"))?;
    }
    Ok(())
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
        let bulk = [WRITE_CONTENTS, WRITE_CTIMES, WRITE_STAMPS, WRITE_PROBLEMS].map(|bulk| bulk.text(1024));
        for text in bulk.into_iter().chain([WRITE_HASHES, FORGET_FINGERPRINTS].map(str::to_owned)) {
            let text = format!("explain query plan {text}");
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(&mut connection).await.unwrap();
            let looked_up = plan.iter().any(|(.., step)| {
                step.starts_with("SEARCH f") && step.ends_with("USING INTEGER PRIMARY KEY (rowid=?)")
            });
            assert!(
                looked_up && plan.iter().all(|(.., step)| step != "SCAN f" && step != "SCAN files"),
                "{plan:?}"
            );
        }
    }
}
