//! The statements that choose what is to be read, and cut it into leases.

use super::scope::{governed, read_files, with_scope};
use crate::model::pending::Stage;

/// True of a file `f` unless it is rotten: no scan reads it then. Those that are have a problem.
macro_rules! not_rotten {
    () => {
        "(f.problem is null or (f.directory_id, f.name) not in (table rotten))"
    };
}

/// The one ordered aggregate keeps the server from grouping in a hash table, which would hold all arrays in
/// memory at once; the rows come in order already, so that the others need not sort again.
/// Parameters: $5 stage, $6 files in a lease, $7 bytes that count like a file, $8 size above which files are sampled,
/// $9 what a sample reads.
macro_rules! select_leases {
    ($pending:expr) => {
        with_scope!($pending, ",
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
            order by id")
    };
}

/// Sizes that two physical files share, one of them in the scope, and the files of these sizes that
/// nothing is known of; also files that could not be read before. $10: true to compare all sizes, false to
/// compare only those of files without hash, which is faster if these are few. `$rules`: tables to begin with;
/// `$files`: where the files are.
macro_rules! select_by_size {
    ($rules:expr, $files:expr) => {
        select_leases!(concat!(
            $rules,
            ", null_size (size) as materialized (
                select distinct size from ",
            $files,
            " f
                where not $10::bool and hash is null and sample is null),
            candidate (size) as materialized (
                select size from ",
            $files,
            " f
                where $10::bool or size in (select size from null_size)
                group by size
                having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
                   and bool_or(directory_id in (select id from scope))),
            pending as materialized (
                select volume_id, inode, directory_id, name, size, mtime_ns, ctime_ns, true as is_unknown
                from ",
            $files,
            " f
                where hash is null and sample is null and ",
            not_rotten!(),
            "
                  and (size in (select size from candidate)
                       or (problem is not null and directory_id in (select id from scope))))"
        ))
    };
}

macro_rules! select_by_sample {
    ($rules:expr, $files:expr) => {
        select_leases!(concat!(
            $rules,
            ", candidate (size, sample) as materialized (
                select size, sample from ", $files, " f
                where sample is not null
                group by size, sample
                having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id))
                   and bool_or(directory_id in (select id from scope))
                   and bool_or(hash is null)),
            pending as materialized (
                select f.volume_id, f.inode, f.directory_id, f.name, f.size, f.mtime_ns, f.ctime_ns, false as is_unknown
                from ", $files, " f join candidate c on c.size = f.size and c.sample = f.sample
                where f.hash is null and ", not_rotten!(), ")"
        ))
    };
}

const SELECT_BY_SIZE: &str = select_by_size!("", "files");

const SELECT_BY_SAMPLE: &str = select_by_sample!("", "files");

/// $11 to $15: the rules.
const SELECT_READ_BY_SIZE: &str =
    select_by_size!(concat!(", ", governed!(11, 12, 13, 14, 15)), read_files!());

/// $10 to $14: the rules.
const SELECT_READ_BY_SAMPLE: &str =
    select_by_sample!(concat!(", ", governed!(10, 11, 12, 13, 14)), read_files!());

/// $10 to $14: the rules.
const SELECT_EVERYTHING: &str = select_leases!(concat!(
    ", ",
    governed!(10, 11, 12, 13, 14),
    ", pending as materialized (
        select volume_id, inode, directory_id, name, size, mtime_ns, ctime_ns, sample is null as is_unknown from files f
        where hash is null and directory_id in (select id from scope) and ",
    not_rotten!(),
    "
          and exists (select 1 from governed g where g.id = f.directory_id and g.policy = 'all'))"
));

/// The statement of a stage. By size it takes one parameter more ($10 above); with rules their five come last.
pub(super) fn of_stage(stage: Stage, some_are_never_read: bool) -> &'static str {
    match (stage, some_are_never_read) {
        (Stage::Everything, _) => SELECT_EVERYTHING,
        (Stage::Size, false) => SELECT_BY_SIZE,
        (Stage::Size, true) => SELECT_READ_BY_SIZE,
        (Stage::Sample, false) => SELECT_BY_SAMPLE,
        (Stage::Sample, true) => SELECT_READ_BY_SAMPLE,
    }
}

/// Whether all sizes are compared.
pub(super) const MOST_HAVE_NO_HASH: &str = "
    select count(*) filter (where hash is null and sample is null) * 2 > count(*) from files";

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
