-- The index. Paths and names are raw bytes, times are nanoseconds since the Unix epoch, a hash is
-- the 32 bytes of BLAKE3. A file without a hash matches nothing: it is work still to be done.

-- A filesystem, by an identity that holds wherever and whenever it is mounted.
create table volumes (
    id       bigint generated always as identity primary key,
    identity text not null unique
);

-- How each host reaches a volume. root: the part of the filesystem that is mounted ('' is all of it).
create table mounts (
    volume_id  bigint not null references volumes (id),
    host       text   not null,
    root       bytea  not null,
    mount_path bytea  not null,
    primary key (volume_id, host, root)
);

-- What the user asked to keep scanned. shown_path: its absolute path when last scanned; settings: the
-- remembered options, JSON.
create table roots (
    id           bigint generated always as identity primary key,
    volume_id    bigint not null references volumes (id),
    path         bytea  not null,
    shown_path   bytea  not null,
    settings     text   not null,
    added_at     bigint not null,
    last_scan_at bigint,
    generation   bigint not null default 0,
    unique (volume_id, path)
);

-- The places a root's walks entered: itself, filesystems mounted below it, and (linked) directories
-- reached through links, or that hold files reached through links.
create table extents (
    root_id   bigint  not null references roots (id) on delete cascade,
    volume_id bigint  not null references volumes (id),
    path      bytea   not null,
    linked    boolean not null default false,
    primary key (root_id, volume_id, path)
);

-- The history of every run; the id is the generation that directories are stamped with.
create table scans (
    id            bigint generated always as identity primary key,
    root_id       bigint references roots (id) on delete cascade,
    kind          text   not null,
    status        text   not null,
    started_at    bigint not null,
    discovered_at bigint,
    ended_at      bigint,
    directories   bigint not null default 0,
    files_seen    bigint not null default 0,
    bytes_seen    bigint not null default 0,
    added         bigint not null default 0,
    updated       bigint not null default 0,
    removed       bigint not null default 0,
    hashed        bigint not null default 0,
    bytes_read    bigint not null default 0,
    problems      bigint not null default 0,
    error         text
);

create index scans_by_root on scans (root_id, id);

-- Each directory once, whichever roots cover it. generation: the last scan that listed it; it changes
-- with every scan and is in no index, so room on the page keeps the row where it is.
create table directories (
    id         bigint generated always as identity primary key,
    volume_id  bigint not null references volumes (id),
    path       bytea  not null,
    generation bigint not null,
    problem    text,
    unique (volume_id, path)
) with (fillfactor = 80);

-- No foreign key to directories: it would be looked up for each of millions of rows, and both are
-- written in one transaction. volume_id: that of the directory, repeated so that (volume_id, inode),
-- the physical file, needs no join. sample: three places of a large file. recheck: true if the file was
-- read within a clock tick of its last change, so that the next scan reads it again.
--
-- The one index is the key. None on size, sample or hash: what is to be read and what is duplicate is
-- found by reading the table once, and an index would make every write-back a write to the index too.
create table files (
    directory_id bigint  not null,
    volume_id    bigint  not null,
    size         bigint  not null,
    mtime_ns     bigint  not null,
    ctime_ns     bigint  not null,
    inode        bigint  not null,
    recheck      boolean not null default false,
    name         bytea   not null,
    sample       bytea,
    hash         bytea,
    problem      text,
    primary key (directory_id, name)
);

-- Bytes as text where they are UTF-8; else with every odd byte as \nnn.
create function dupfind_text(bytes bytea) returns text language plpgsql immutable strict parallel safe as $$
begin
    return convert_from(bytes, 'UTF8');
exception when others then
    return encode(bytes, 'escape');
end $$;

-- The stable face for people who query with SQL: tables may change, this may not.
create view file_hashes (absolute_path, filename, file_size, modified_time, hash_value, scan_date) as
select
    (
        select dupfind_text(m.mount_path || substring(d.path from length(m.root) + 1) || '/'::bytea || f.name)
        from mounts m
        where m.volume_id = d.volume_id
          and (m.root = ''::bytea or m.root = d.path
               or (d.path >= m.root || '/'::bytea and d.path < m.root || '0'::bytea))
        order by length(m.root), m.host
        limit 1
    ),
    dupfind_text(f.name),
    f.size,
    to_timestamp(f.mtime_ns / 1000000000.0),
    encode(f.hash, 'hex'),
    to_timestamp(s.started_at / 1000000000.0)
from files f
join directories d on d.id = f.directory_id
left join scans s on s.id = d.generation;
