//! Writing back what was read.
//!
//! Guarded: a row is only touched if it still has the stamp it was read with. A row that was
//! removed meanwhile is not brought back.

use std::collections::BTreeSet;

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;

use super::rot;

use crate::index::convert::{inode_to_integer, sample_bytes, to_integer};
use crate::index::{IndexError, Result};
use crate::model::listing::Problem;
use crate::model::pending::{Finding, Outcome};
use crate::model::stamp::Stamp;

const WRITE_CONTENT: &str = "
    update files set
        sample = coalesce(v.sample, files.sample), hash = coalesce(v.hash, files.hash),
        recheck = v.recheck, ctime_ns = v.now_ctime_ns, problem = null
    from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::bytea[], $8::bytea[], $9::bool[], $10::bigint[])
         v (directory_id, name, size, mtime_ns, ctime_ns, inode, sample, hash, recheck, now_ctime_ns)
    where files.directory_id = v.directory_id and files.name = v.name
      and files.size = v.size and files.mtime_ns = v.mtime_ns
      and files.ctime_ns = v.ctime_ns and files.inode = v.inode";

/// The hash stays NULL: what could not be read, or is not what it was, matches nothing.
const WRITE_TROUBLE: &str = "
    update files set
        size = v.now_size, mtime_ns = v.now_mtime_ns, ctime_ns = v.now_ctime_ns, inode = v.now_inode,
        sample = null, hash = null, problem = v.problem
    from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[])
         v (directory_id, name, size, mtime_ns, ctime_ns, inode, now_size, now_mtime_ns, now_ctime_ns, now_inode, problem)
    where files.directory_id = v.directory_id and files.name = v.name
      and files.size = v.size and files.mtime_ns = v.mtime_ns
      and files.ctime_ns = v.ctime_ns and files.inode = v.inode";

/// What has to be read again must be looked at again, whatever its directory's listing says. The row is written even
/// if it has none: another process may be about to give it one, and is waited for.
const FORGET_FINGERPRINTS: &str = "update directories set fingerprint = null where id = any($1)";

/// The rows that are meant, and the stamps they must have: columns of equal length.
#[derive(Default)]
pub(super) struct Rows<'a> {
    directories: Vec<i64>,
    names: Vec<&'a [u8]>,
    expected: Stamps,
}

#[derive(Default)]
struct Stamps {
    sizes: Vec<i64>,
    mtimes: Vec<i64>,
    ctimes: Vec<i64>,
    inodes: Vec<i64>,
}

impl<'a> Rows<'a> {
    /// The rows that these outcomes are about.
    pub(super) fn of(outcomes: &[&'a Outcome]) -> Self {
        let mut rows = Self::default();
        for outcome in outcomes {
            rows.push(outcome);
        }
        rows
    }

    /// Binds the six columns as the next parameters: directories, names, sizes, mtimes, ctimes, inodes.
    pub(super) fn bind_to(
        self,
        statement: Query<'a, Postgres, PgArguments>,
    ) -> Query<'a, Postgres, PgArguments> {
        let Stamps { sizes, mtimes, ctimes, inodes } = self.expected;
        statement.bind(self.directories).bind(self.names).bind(sizes).bind(mtimes).bind(ctimes).bind(inodes)
    }

    fn push(&mut self, outcome: &'a Outcome) {
        self.directories.push(outcome.key.directory.0);
        self.names.push(&outcome.key.name);
        self.expected.push(outcome.expected);
    }
}

impl Stamps {
    fn push(&mut self, stamp: Stamp) {
        self.sizes.push(to_integer(stamp.size));
        self.mtimes.push(stamp.mtime.0);
        self.ctimes.push(stamp.ctime.0);
        self.inodes.push(inode_to_integer(stamp.inode));
    }
}

/// Writes outcomes, `most` rows to a statement. In the order of the rows, so that two workers that
/// write the same rows wait for each other and do not lock each other out.
pub(super) async fn write_outcomes(
    connection: &mut PgConnection,
    outcomes: &[&Outcome],
    most: usize,
) -> Result<()> {
    for chunk in outcomes.chunks(most) {
        let is_content =
            |outcome: &&Outcome| matches!(outcome.finding, Finding::Hashed { .. } | Finding::Sampled { .. });
        let (contents, troubles): (Vec<&Outcome>, Vec<&Outcome>) =
            chunk.iter().partition(|outcome| is_content(outcome));
        let racy: BTreeSet<i64> =
            contents.iter().filter(|it| it.is_racy()).map(|it| it.key.directory.0).collect();
        if !racy.is_empty() {
            let racy: Vec<i64> = racy.into_iter().collect();
            let forgotten = sqlx::query(FORGET_FINGERPRINTS).bind(racy).execute(&mut *connection).await;
            forgotten.map_err(IndexError::during("write hashes"))?;
        }
        if !contents.is_empty() {
            write_contents(connection, &contents).await?;
        }
        if !troubles.is_empty() {
            write_troubles(connection, &troubles).await?;
        }
    }
    rot::judge(connection).await
}

async fn write_contents(connection: &mut PgConnection, outcomes: &[&Outcome]) -> Result<()> {
    let mut rows = Rows::default();
    let (mut samples, mut hashes) = (Vec::new(), Vec::new());
    let (mut rechecks, mut ctimes) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let (digest, sample, ctime, racy) = match &outcome.finding {
            Finding::Hashed { digest, sample, ctime, racy } => (Some(*digest), *sample, *ctime, *racy),
            Finding::Sampled { sample, ctime, racy } => (None, Some(*sample), *ctime, *racy),
            Finding::Changed(_) | Finding::Failed(_) => continue,
        };
        rows.push(outcome);
        samples.push(sample_bytes(sample));
        hashes.push(digest.map(|digest| digest.0.to_vec()));
        rechecks.push(racy);
        ctimes.push(ctime.0);
    }
    let Rows { directories, names, expected } = rows;
    // A shorter array would be filled up with NULL without a word.
    assert!(
        [names.len(), samples.len(), hashes.len(), ctimes.len()]
            .iter()
            .all(|length| *length == directories.len())
    );
    let written = sqlx::query(WRITE_CONTENT)
        .bind(directories)
        .bind(names)
        .bind(expected.sizes)
        .bind(expected.mtimes)
        .bind(expected.ctimes)
        .bind(expected.inodes)
        .bind(samples)
        .bind(hashes)
        .bind(rechecks)
        .bind(ctimes)
        .execute(connection)
        .await;
    written.map(drop).map_err(IndexError::during("write hashes"))
}

async fn write_troubles(connection: &mut PgConnection, outcomes: &[&Outcome]) -> Result<()> {
    let mut rows = Rows::default();
    let (mut now, mut problems) = (Stamps::default(), Vec::new());
    for outcome in outcomes {
        let (stamp, problem) = match &outcome.finding {
            Finding::Changed(stamp) => (*stamp, Problem::Changed.to_text()),
            Finding::Failed(problem) => (outcome.expected, problem.to_text()),
            Finding::Hashed { .. } | Finding::Sampled { .. } => continue,
        };
        rows.push(outcome);
        now.push(stamp);
        problems.push(problem);
    }
    let Rows { directories, names, expected } = rows;
    assert!([names.len(), problems.len(), now.sizes.len()].iter().all(|length| *length == directories.len()));
    let written = sqlx::query(WRITE_TROUBLE)
        .bind(directories)
        .bind(names)
        .bind(expected.sizes)
        .bind(expected.mtimes)
        .bind(expected.ctimes)
        .bind(expected.inodes)
        .bind(now.sizes)
        .bind(now.mtimes)
        .bind(now.ctimes)
        .bind(now.inodes)
        .bind(problems)
        .execute(connection)
        .await;
    written.map(drop).map_err(IndexError::during("write problems"))
}
