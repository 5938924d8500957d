//! The statements that choose what is to be read, and cut it into leases.

use sqlx::postgres::PgConnection;

use super::lookups;
use super::scope::{ScopeArrays, governed, read_files, with_scope};
use crate::index::convert::{NEAR_SHARE, Search};
use crate::index::rows::Columns as _;
use crate::index::{IndexError, Result};
use crate::model::pending::Stage;

/// True of a file `f` unless it is rotten: no scan reads it then. Those that are have a problem.
macro_rules! not_rotten {
    () => {
        "(f.problem is null or (f.directory_id, f.name) not in (table rotten))"
    };
}

/// The rules about hashing, whose five parameters come last.
const RULES: &str = concat!(governed!(10, 11, 12, 13, 14), ",");

/// Whether a scope holds so many files.
const HAS_MORE_THAN: &str = with_scope!(
    " select count(*) = $5::bigint from (
          select 1 from files where directory_id in (select id from scope) limit $5::bigint) counted"
);

const MOST_HAVE_NO_HASH: &str = "
    select count(*) filter (where hash is null and sample is null) * 2 > count(*) from files";

/// The fastest for a scope.
pub(super) async fn search(
    connection: &mut PgConnection,
    stage: Stage,
    scope: &ScopeArrays,
) -> Result<Search> {
    if stage == Stage::Everything {
        return Ok(Search::All); // no file is searched for
    }
    let failed = || IndexError::during("select what is to be read");
    if let Some(files) = lookups::files_by_size(connection).await? {
        let few = (files / NEAR_SHARE).max(1);
        let has_more = scope.query(HAS_MORE_THAN).bind(few).fetch_one(&mut *connection).await;
        if !has_more.map_err(failed())?.value::<bool>(0)? {
            return Ok(Search::Near);
        }
    }
    // Which of the others is taken matters to sizes only.
    let most = stage == Stage::Size
        && sqlx::query_scalar(MOST_HAVE_NO_HASH).fetch_one(connection).await.map_err(failed())?;
    Ok(if most { Search::All } else { Search::Unread })
}

/// The statement of a stage, without its scope's parameters at the beginning and those of rules at the end. It returns
/// the leases that hold what is to be read, new ones and others.
///
/// The one ordered aggregate keeps the server from grouping in a hash table, which would hold all arrays in
/// memory at once; the rows come in order already, so that the others need not sort again.
/// Parameters: $5 stage, $6 files in a lease, $7 bytes that count like a file, $8 size above which files are sampled,
/// $9 what a sample reads, $10 to $14 the rules, if any.
pub(super) fn of_stage(stage: Stage, search: Search, some_are_never_read: bool) -> String {
    let (rules, files) = if some_are_never_read { (RULES, read_files!()) } else { ("", "files") };
    let pending = match stage {
        Stage::Everything => format!("{RULES} {EVERYTHING}"),
        Stage::Size => format!("{rules} {}", by_size(search, files)),
        Stage::Sample => format!("{rules} {}", by_sample(search, files)),
    };
    format!(
        concat!(
            with_scope!(""),
            ", {pending},
            leased (lease, stage, directory_id, name) as materialized (
                select l.id, l.stage, u.directory_id, u.name
                from leases l, unnest(l.directories, l.names) u (directory_id, name)),
            held as materialized (
                select l.lease, p.volume_id, p.directory_id, p.name, p.size
                from leased l join pending p on p.directory_id = l.directory_id and p.name = l.name
                where case l.stage when 'size' then p.is_unknown when 'sample' then not p.is_unknown else true end),
            fresh as (
                select p.* from pending p
                where not exists (select 1 from held h where h.directory_id = p.directory_id and h.name = p.name)),
            costed as (
                select f.*, case when $5 = 'size' and size > $8::bigint then $9::bigint else size end as cost from fresh f),
            cut as (
                select c.*, floor(sum(1 + cost / $7::float8) over (partition by volume_id order by inode) / $6::float8) as part
                from costed c),
            made as (
                insert into leases (stage, volume_id, files, bytes, directories, names, sizes, mtimes, ctimes, inodes)
                select $5, volume_id, count(*), sum(cost)::bigint,
                       array_agg(directory_id order by inode, directory_id, name),
                       array_agg(name), array_agg(size), array_agg(mtime_ns), array_agg(ctime_ns), array_agg(inode)
                from (select * from cut order by volume_id, part, inode, directory_id, name) in_order
                group by volume_id, part order by volume_id, min(inode)
                returning id, volume_id, files, bytes)
            select id, volume_id, files, bytes, true as is_new from made
            union all
            select lease, volume_id, count(*), sum(size)::bigint, false from held group by lease, volume_id
            order by id"
        ),
        pending = pending
    )
}

/// Files whose size is in `null_size`, looked up size by size: the planner, which takes files without hash for more than
/// they are in a small scope, would rather read the table.
fn looked_up(files: &str) -> String {
    format!("null_size n cross join lateral (select * from {files} r where r.size = n.size offset 0) f")
}

/// Sizes that two physical files share, one of them in the scope, and the files of these sizes that nothing is known
/// of; also files that could not be read before.
fn by_size(search: Search, files: &str) -> String {
    let all = format!("{files} f");
    let (condition, compared, chosen) = match search {
        Search::All => ("false", all.clone(), all),
        Search::Unread => ("true", format!("{all} natural join null_size"), all),
        Search::Near => ("directory_id in (select id from scope)", looked_up(files), looked_up(files)),
    };
    format!(
        "null_size (size) as materialized (
            select distinct size from {files} f where {condition} and hash is null and sample is null),
        candidate (size) as materialized (
            select f.size from {compared}
            group by f.size
            having (min(f.inode) <> max(f.inode) or min(f.volume_id) <> max(f.volume_id))
               and bool_or(f.directory_id in (select id from scope))),
        pending as materialized (
            select f.volume_id, f.inode, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, true as is_unknown
            from {chosen}
            where f.hash is null and f.sample is null and {not_rotten}
              and (f.size in (select size from candidate)
                   or (f.problem is not null and f.directory_id in (select id from scope))))",
        not_rotten = not_rotten!()
    )
}

/// Sizes and samples that two physical files share, one of them in the scope, and the files that have them and no hash.
fn by_sample(search: Search, files: &str) -> String {
    let (condition, compared) = match search {
        Search::All | Search::Unread => ("false", format!("{files} f")),
        Search::Near => ("directory_id in (select id from scope)", looked_up(files)),
    };
    format!(
        "null_size (size) as materialized (
            select distinct size from {files} f where {condition} and hash is null and sample is not null),
        candidate (size, sample) as materialized (
            select f.size, f.sample from {compared}
            where f.sample is not null
            group by f.size, f.sample
            having (min(f.inode) <> max(f.inode) or min(f.volume_id) <> max(f.volume_id))
               and bool_or(f.directory_id in (select id from scope))
               and bool_or(f.hash is null)),
        pending as materialized (
            select f.volume_id, f.inode, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, false as is_unknown
            from {compared} join candidate c on c.size = f.size and c.sample = f.sample
            where f.hash is null and {not_rotten})",
        not_rotten = not_rotten!()
    )
}

/// Every file without hash below roots with hash all.
const EVERYTHING: &str = concat!(
    "pending as materialized (
        select volume_id, inode, directory_id, name, size, mtime_ns, ctime_ns, sample is null as is_unknown from files f
        where hash is null and directory_id in (select id from scope) and ",
    not_rotten!(),
    "
          and exists (select 1 from governed g where g.id = f.directory_id and g.policy = 'all'))"
);

/// What is left to be read of a lease. $2 and $3: whether files with a sample, and without, are.
macro_rules! left_of_lease {
    ($rules:expr, $files:expr) => {
        concat!(
            $rules,
            " select volume_id, array_agg(directory_id), array_agg(name), array_agg(size),
                     array_agg(mtime_ns), array_agg(ctime_ns), array_agg(inode)
              from (
                  select f.* from leases l cross join unnest(l.directories, l.names) u (directory_id, name)
                  join ", $files, " f on f.directory_id = u.directory_id and f.name = u.name
                  where l.id = $1 and f.hash is null and ", not_rotten!(), "
                    and case when f.sample is null then $3::bool else $2::bool end
                  order by f.volume_id, f.inode, f.directory_id, f.name) in_order
              group by volume_id"
        )
    };
}

const LEFT_OF_LEASE: &str = left_of_lease!("", "files");

/// $4 to $8: the rules.
const LEFT_TO_READ_OF_LEASE: &str = left_of_lease!(concat!("with ", governed!(4, 5, 6, 7, 8)), read_files!());

/// The statement that says what is left to be read of a lease; with rules their five parameters come last.
pub(super) fn left_of_lease(some_are_never_read: bool) -> &'static str {
    if some_are_never_read { LEFT_TO_READ_OF_LEASE } else { LEFT_OF_LEASE }
}
