-- The index. Paths and names are raw bytes, times are nanoseconds since the Unix epoch, a hash is
-- the 32 bytes of BLAKE3. A file without a hash matches nothing: it is work still to be done.

-- A filesystem, by an identity that holds wherever and whenever it is mounted.
create table volumes (
    id       integer primary key,
    identity text not null unique
) strict;

-- How each host reaches a volume. root: the part of the filesystem that is mounted ('' is all of it).
create table mounts (
    volume_id  integer not null references volumes (id),
    host       text    not null,
    root       blob    not null,
    mount_path blob    not null,
    primary key (volume_id, host, root)
) strict, without rowid;

-- What the user asked to keep scanned. shown_path: its absolute path when last scanned; settings: the
-- remembered options, JSON.
create table roots (
    id           integer primary key,
    volume_id    integer not null references volumes (id),
    path         blob    not null,
    shown_path   blob    not null,
    settings     text    not null,
    added_at     integer not null,
    last_scan_at integer,
    generation   integer not null default 0,
    unique (volume_id, path)
) strict;

-- The places a root's walks entered: itself, filesystems mounted below it, and (linked) directories
-- reached through links, or that hold files reached through links.
create table extents (
    root_id   integer not null references roots (id) on delete cascade,
    volume_id integer not null references volumes (id),
    path      blob    not null,
    linked    integer not null default 0,
    primary key (root_id, volume_id, path)
) strict, without rowid;

-- The history of every run; the id is the generation that directories are stamped with.
create table scans (
    id            integer primary key autoincrement,
    root_id       integer references roots (id) on delete cascade,
    kind          text    not null,
    status        text    not null,
    started_at    integer not null,
    discovered_at integer,
    ended_at      integer,
    directories   integer not null default 0,
    files_seen    integer not null default 0,
    bytes_seen    integer not null default 0,
    added         integer not null default 0,
    updated       integer not null default 0,
    removed       integer not null default 0,
    hashed        integer not null default 0,
    bytes_read    integer not null default 0,
    problems      integer not null default 0,
    error         text
) strict;

create index scans_by_root on scans (root_id, id);

-- Each directory once, whichever roots cover it. generation: the last scan that listed it.
create table directories (
    id         integer primary key,
    volume_id  integer not null references volumes (id),
    path       blob    not null,
    generation integer not null,
    problem    text,
    unique (volume_id, path)
) strict;

-- Clustered by directory, because that is how they are listed. No foreign key to directories: it
-- would be looked up for each of millions of rows, and both are written in one transaction.
-- volume_id: that of the directory, repeated so that (volume_id, inode), the physical file, needs no
-- join: finding candidates takes half the time, and a small number takes no room.
-- sample: three places of a large file. recheck: 1 if the file was read within a clock tick of its
-- last change, so that the next scan reads it again.
create table files (
    directory_id integer not null,
    name         blob    not null,
    volume_id    integer not null,
    size         integer not null,
    mtime_ns     integer not null,
    ctime_ns     integer not null,
    inode        integer not null,
    sample       blob,
    hash         blob,
    recheck      integer not null default 0,
    problem      text,
    primary key (directory_id, name)
) strict, without rowid;

-- The stable face for people who query with SQL: tables may change, this may not.
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
    case when f.hash is not null then lower(hex(f.hash)) end,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.started_at / 1000000000.0, 'unixepoch')
from files f
join directories d on d.id = f.directory_id
left join scans s on s.id = d.generation;
