//! Which files are to be read: statements that fill `temp.pending`.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::lookups::{LookUp, SIZES};
use super::{catalog, scope};
use crate::index::convert::{NEAR_SHARE, Search};
use crate::index::{IndexError, Result};
use crate::model::pending::{Scope, Stage};
use crate::model::rot::Rereading;
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;

/// What is being done, for errors.
const OPERATION: &str = "select what is to be read";

/// known: the hash that a file should have, if it is read again, or the sample that it shares.
const TEMPORARY_TABLES: &str = "
    create temp table reachable (volume_id integer primary key);
    create temp table pending (
        id integer primary key, file_id integer, volume_id integer, directory_id integer, name blob,
        size integer, mtime_ns integer, ctime_ns integer, inode integer, known blob)";

/// A condition on each `directory_id`, where some directories are never read: what lies in them is no partner, either.
const BUT_NEVER_READ: &str = "and f.directory_id not in (select directory_id from temp.never_read)";

/// Sizes that two physical files share, one of them in the scope, and the files of these sizes that nothing is known
/// of; also files that could not be read before.
fn select_by_size(search: Search, but: &str) -> String {
    let (near, from, compared) = match search {
        Search::All => ("", "files f", "true"),
        Search::Unread => ("", "files f", "f.size in (select size from unread)"),
        Search::Near => (
            "near (size) as materialized (
                select distinct f.size from files f
                where f.directory_id in (select directory_id from temp.scope)
                  and not exists (select 1 from contents c where c.file_id = f.id)),",
            "near n cross join files f on f.size = n.size",
            "true",
        ),
    };
    format!(
        "with {near}
        unread (id, size) as materialized (
            select f.id, f.size from {from} left join contents c on c.file_id = f.id
            where c.file_id is null {but}),
        candidate (size) as materialized (
            select f.size from {from}
            where {compared} {but}
            group by f.size
            having (min(f.inode) <> max(f.inode) or min(f.volume_id) <> max(f.volume_id))
               and max(f.directory_id in (select directory_id from temp.scope)))
        insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
        select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode
        from unread u cross join files f on f.id = u.id
        where (f.size in (select size from candidate)
               or (f.directory_id in (select directory_id from temp.scope)
                   and exists (select 1 from problems p where p.file_id = f.id)))
          and f.volume_id in (select volume_id from temp.reachable)
        order by f.volume_id, f.inode, f.directory_id, f.name"
    )
}

/// Sizes and samples that two physical files share, one of them in the scope, and the files that have them and no hash.
fn select_by_sample(search: Search, but: &str) -> String {
    let (near, from) = match search {
        Search::All | Search::Unread => ("", "contents c cross join files f on f.id = c.file_id"),
        Search::Near => (
            "near (size) as materialized (
                select distinct f.size from files f cross join contents c on c.file_id = f.id
                where f.directory_id in (select directory_id from temp.scope)
                  and c.hash is null and c.sample is not null),",
            "near n cross join files f on f.size = n.size cross join contents c on c.file_id = f.id",
        ),
    };
    format!(
        "with {near}
        candidate (size, sample) as materialized (
            select c.size, c.sample from {from}
            where c.sample is not null {but}
            group by c.size, c.sample
            having (min(c.inode) <> max(c.inode) or min(c.volume_id) <> max(c.volume_id))
               and max(f.directory_id in (select directory_id from temp.scope)))
        insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode, known)
        select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, c.sample
        from {from}
        where c.hash is null and c.sample is not null
          and c.file_id not in (select file_id from rotten) {but}
          and (c.size, c.sample) in (select size, sample from candidate)
          and c.volume_id in (select volume_id from temp.reachable)
        order by f.volume_id, f.inode, f.directory_id, f.name"
    )
}

const SELECT_EVERYTHING: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode)
    select id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode from files f
    where directory_id in (select directory_id from temp.scope)
      and directory_id in (select directory_id from temp.hashed_wholly)
      and not exists (select 1 from contents c where c.file_id = f.id and c.hash is not null)
      and id not in (select file_id from rotten)
      and volume_id in (select volume_id from temp.reachable)
    order by volume_id, inode, directory_id, name";

/// Files of which something is on record: those that should have another hash than they have (also if another file is
/// in their place now), and those that could not be read again, but have their hash.
const REREAD_ON_RECORD: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode, known)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, o.known
    from (
        select f.id, r.expected as known
        from rot r cross join files f on f.directory_id = r.directory_id and f.name = r.name
        left join contents c on c.file_id = f.id
        where c.hash is null
        union all
        select p.file_id, c.hash from problems p cross join contents c on c.file_id = p.file_id
        where c.hash is not null) o
    cross join files f on f.id = o.id
    where f.directory_id in (select directory_id from temp.scope)
      and f.volume_id in (select volume_id from temp.reachable)
    order by f.volume_id, f.inode, o.known, f.directory_id, f.name";

/// What is wanted of those that have a hash, but for those above. One that is to be read again by the next scan may
/// have changed unseen.
const REREAD_HASHED: &str = "
    insert into temp.pending (file_id, volume_id, directory_id, name, size, mtime_ns, ctime_ns, inode, known)
    select f.id, f.volume_id, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, c.hash
    from contents c cross join files f on f.id = c.file_id
    where c.hash is not null and not c.recheck
      and c.file_id not in (select file_id from problems)
      and f.directory_id in (select directory_id from temp.scope)
      and f.volume_id in (select volume_id from temp.reachable)";

/// The hashes from ?1 on, below ?2.
const IN_RANGE: &str = " and c.hash >= ?1 and c.hash < ?2";

const IN_PHYSICAL_ORDER: &str = " order by f.volume_id, f.inode, c.hash, f.directory_id, f.name";

const MOST_HAVE_NO_HASH: &str = "
    select (select count(*) from contents) * 2 < (select count(*) from files)";

const HAS_MORE_THAN: &str = "
    select count(*) = ?1 from (
        select 1 from files where directory_id in (select directory_id from temp.scope) limit ?1)";

/// The fastest for what `temp.scope` holds.
async fn search(connection: &mut SqliteConnection, stage: Stage) -> Result<Search> {
    let failed = || IndexError::during(OPERATION);
    let sizes = LookUp::look(&SIZES, connection).await?;
    if sizes.is_there() {
        let few = (sizes.files() / NEAR_SHARE).max(1);
        let has_more = sqlx::query_scalar(HAS_MORE_THAN).bind(few).fetch_one(&mut *connection).await;
        if !has_more.map_err(failed())? {
            return Ok(Search::Near);
        }
    }
    // Which of the others is taken matters to sizes only.
    let most = stage == Stage::Size
        && sqlx::query_scalar(MOST_HAVE_NO_HASH).fetch_one(connection).await.map_err(failed())?;
    Ok(if most { Search::All } else { Search::Unread })
}

/// Makes `temp.pending`, empty, and what a selection looks at.
async fn prepare(connection: &mut SqliteConnection, scope: &Scope) -> Result<()> {
    let failed = || IndexError::during(OPERATION);
    sqlx::raw_sql(TEMPORARY_TABLES).execute(&mut *connection).await.map_err(failed())?;
    for volume in &scope.reachable {
        let insert = sqlx::query("insert or ignore into temp.reachable values (?)").bind(volume.0);
        insert.execute(&mut *connection).await.map_err(failed())?;
    }
    scope::fill(connection, &scope.extents).await?;
    scope::add(connection, &scope.directories).await
}

/// Fills `temp.pending`; returns how many files there are.
pub(super) async fn fill(connection: &mut SqliteConnection, stage: Stage, scope: &Scope) -> Result<u64> {
    prepare(connection, scope).await?;
    let rules = HashRules::of(&catalog::roots(connection).await?);
    let mut but = "";
    if stage == Stage::Everything {
        scope::HASHED_WHOLLY.fill(connection, &rules).await?;
    } else if rules.have(HashPolicy::None) {
        scope::NEVER_READ.fill(connection, &rules).await?;
        but = BUT_NEVER_READ;
    }
    let select = match stage {
        Stage::Everything => SELECT_EVERYTHING.to_owned(),
        Stage::Size => select_by_size(search(connection, stage).await?, but),
        Stage::Sample => select_by_sample(search(connection, stage).await?, but),
    };
    let selected = sqlx::query(AssertSqlSafe(select)).execute(connection).await;
    Ok(selected.map_err(IndexError::during(OPERATION))?.rows_affected())
}

/// The same of files to be read again.
pub(super) async fn fill_again(
    connection: &mut SqliteConnection,
    what: Rereading,
    scope: &Scope,
) -> Result<u64> {
    prepare(connection, scope).await?;
    let selected = match what {
        Rereading::OnRecord => sqlx::query(REREAD_ON_RECORD).execute(connection).await,
        Rereading::Hashed(None) => {
            let text = format!("{REREAD_HASHED}{IN_PHYSICAL_ORDER}");
            sqlx::query(AssertSqlSafe(text)).execute(connection).await
        }
        Rereading::Hashed(Some(range)) => {
            let (from, to) = range.bounds();
            let text = format!("{REREAD_HASHED}{IN_RANGE}{IN_PHYSICAL_ORDER}");
            sqlx::query(AssertSqlSafe(text)).bind(from).bind(to).execute(connection).await
        }
    };
    Ok(selected.map_err(IndexError::during("select what is to be read again"))?.rows_affected())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::SqliteIndex;
    use super::*;
    use crate::index::lock::OnBusy;
    use crate::index::sqlite::lookups::{HASHES, Key};
    use crate::model::rot::{RingPosition, Share};

    /// An index with one of its indexes, and what a selection looks at.
    async fn prepared(key: &'static Key) -> (TempDir, SqliteConnection) {
        let directory = tempfile::tempdir().unwrap();
        let index = SqliteIndex::create(&directory.path().join("index.db"), OnBusy::Fail).await.unwrap();
        let mut connection = index.connect().await.unwrap();
        LookUp::look(key, &mut connection).await.unwrap().make(&mut connection).await.unwrap();
        let nothing =
            Scope { extents: Vec::new(), directories: Vec::new(), reachable: Vec::new(), helps: false };
        prepare(&mut connection, &nothing).await.unwrap();
        (directory, connection)
    }

    /// A small sample of a large index must not look at every file; all of it is better read as it lies.
    #[tokio::test]
    async fn a_sample_is_found_by_its_hashes() {
        let (_directory, mut connection) = prepared(&HASHES).await;
        let share: Share = "5%".parse().unwrap();
        let (from, to) = share.slices_from(RingPosition::default())[0].bounds();
        for (range, by_index) in [(IN_RANGE, true), ("", false)] {
            let text = format!("explain query plan {REREAD_HASHED}{range}{IN_PHYSICAL_ORDER}");
            let mut explain = sqlx::query_as(AssertSqlSafe(text));
            if by_index {
                explain = explain.bind(from.clone()).bind(to.clone());
            }
            let plan: Vec<(i64, i64, i64, String)> = explain.fetch_all(&mut connection).await.unwrap();
            let is_searched = plan.iter().any(|(.., step)| {
                step.starts_with("SEARCH c USING INDEX contents_by_hash (hash>? AND hash<?)")
            });
            assert_eq!(is_searched, by_index, "{plan:?}");
            assert!(
                plan.iter().any(|(.., step)| step.starts_with("SEARCH f USING INTEGER PRIMARY KEY")),
                "{plan:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_small_scope_looks_at_nothing_but_its_sizes() {
        let (_directory, mut connection) = prepared(&SIZES).await;
        scope::NEVER_READ.fill(&mut connection, &HashRules::default()).await.unwrap();
        for but in ["", BUT_NEVER_READ] {
            for text in [select_by_size(Search::Near, but), select_by_sample(Search::Near, but)] {
                let explain = format!("explain query plan {text}");
                let plan: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
                let scans_table = |step: &str| {
                    let mut words = step.split(' ');
                    words.next() == Some("SCAN") && ["f", "c", "p"].map(Some).contains(&words.next())
                };
                assert!(!plan.iter().any(|(.., step)| scans_table(step)), "{plan:#?}");
            }
        }
    }
}
