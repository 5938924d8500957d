-- What a directory held when it was last listed whole and all its rows were brought up to date: a hash over
-- names and stamps. A listing with the same fingerprint needs no look at the rows. Null: look at them.
alter table directories add column fingerprint blob;

-- What is known of a file's content moves to a table of its own, keyed by the file's row: writing a hash is an
-- insertion at the end instead of a change that no longer fits its page. A file that is listed with another stamp
-- is a new row, and an id is never used again, so what was read of the old one finds no row.

drop view file_hashes;
alter table files rename to files_before;

create table files (
    id           integer primary key autoincrement,
    directory_id integer not null,
    name         blob    not null,
    volume_id    integer not null,
    size         integer not null,
    mtime_ns     integer not null,
    ctime_ns     integer not null,
    inode        integer not null,
    unique (directory_id, name)
) strict;

-- size, inode, volume_id: those of the file, which do not change while it has contents; with them no group
-- needs a look at files. sample: three places of a large file. recheck: 1 if the file was read within a clock
-- tick of its last change, so that the next scan reads it again.
create table contents (
    file_id   integer primary key,
    hash      blob,
    sample    blob,
    recheck   integer not null default 0,
    size      integer not null,
    inode     integer not null,
    volume_id integer not null
) strict;

create table problems (
    file_id integer primary key,
    problem text not null
) strict;

-- One row with the figures of the whole index, as JSON, while nothing is left to be read and nothing failed; it goes
-- in the transaction that changes any of them.
create table figures (
    id      integer primary key autoincrement,
    summary text not null
) strict;

-- With the figures, the groups they were counted from, in the usual order of a report: rank 1 is the one with the most
-- to be gained.
create table groups (
    rank  integer primary key,
    size  integer not null,
    hash  blob    not null,
    files integer not null,
    names integer not null
) strict;

create trigger forget_groups after delete on figures begin
    delete from groups;
end;

create trigger forget_contents after delete on files begin
    delete from contents where file_id = old.id;
    delete from problems where file_id = old.id;
end;

insert into files (directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode)
select directory_id, name, volume_id, size, mtime_ns, ctime_ns, inode from files_before order by directory_id, name;

insert into contents (file_id, hash, sample, recheck, size, inode, volume_id)
select f.id, b.hash, b.sample, b.recheck, f.size, f.inode, f.volume_id
from files f join files_before b on b.directory_id = f.directory_id and b.name = f.name
where b.hash is not null or b.sample is not null;

insert into problems (file_id, problem)
select f.id, b.problem
from files f join files_before b on b.directory_id = f.directory_id and b.name = f.name
where b.problem is not null;

drop table files_before;

create view file_hashes (absolute_path, filename, file_size, modified_time, hash_value, scan_date) as
select
    (
        select cast(m.mount_path || substr(d.path, length(m.root) + 1) || '/' || f.name as text)
        from mounts m
        where m.volume_id = d.volume_id
          and (m.root = x'' or m.root = d.path or substr(d.path, 1, length(m.root) + 1) = cast(m.root || '/' as blob))
        order by length(m.root)
        limit 1
    ),
    cast(f.name as text),
    f.size,
    strftime('%Y-%m-%dT%H:%M:%fZ', f.mtime_ns / 1000000000.0, 'unixepoch'),
    case when c.hash is not null then lower(hex(c.hash)) end,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.started_at / 1000000000.0, 'unixepoch')
from files f
join directories d on d.id = f.directory_id
left join contents c on c.file_id = f.id
left join scans s on s.id = d.generation;
