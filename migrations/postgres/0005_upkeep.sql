-- How a root is kept up to date: watched or not, how often it is reconciled; JSON, as settings.
alter table roots add column upkeep text not null default '{}';

-- Runs are of more kinds: those that a watcher begins, those of a part of a root, those that only reread.
-- path: the directory of the volume below which it looked, if not the whole root. events: what a watcher was told.
-- The others: what the whole index held when the run ended; null if nobody counted then.
alter table scans
    add column path bytea,
    add column events bigint not null default 0,
    add column index_files bigint,
    add column index_bytes bigint,
    add column groups bigint,
    add column redundant_files bigint,
    add column reclaimable_bytes bigint;

-- Who watches a root on which host. mode: live (events come), polled (it is reconciled instead, for this reason) or
-- offline. seen_at: its last sign of life, by the server's clock.
create table watches (
    root_id     bigint      not null references roots (id) on delete cascade,
    host        text        not null,
    process     bigint      not null,
    mode        text        not null,
    reason      text,
    since       bigint      not null,
    seen_at     timestamptz not null default clock_timestamp(),
    events      bigint      not null default 0,
    next_at     bigint,
    next_reason text,
    primary key (root_id, host)
) with (fillfactor = 50);

-- A watcher's row gets a new id when it goes on: what was listed under the old one was listed by the first run that has
-- a larger id.
create or replace view file_hashes (absolute_path, filename, file_size, modified_time, hash_value, scan_date) as
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
left join scans s on s.id = (select min(id) from scans where id >= d.generation);

-- Bit rot. A file whose content is not what it was, though its stamp is, has no hash any more; what it should be is
-- kept here. It also is for a file that could not be read again. The stamp is the one it had then: if the file has it
-- still, the finding stands; else somebody put another file in its place. found: the hash that was read, null if none
-- was. sample: what was known of it. No scan reads a file that was found rotten, so none takes it for sound.
-- A finding follows its file to another name, and may be without a directory until a run has looked for it.
create table rot (
    directory_id bigint not null,
    name         bytea  not null,
    volume_id    bigint not null,
    size         bigint not null,
    mtime_ns     bigint not null,
    ctime_ns     bigint not null,
    inode        bigint not null,
    expected     bytea  not null,
    sample       bytea,
    found        bytea,
    found_at     bigint not null,
    primary key (directory_id, name)
);

-- The findings that stand.
create view standing as
select r.*
from rot r join files f
    on f.directory_id = r.directory_id and f.name = r.name and f.size = r.size
    and f.mtime_ns = r.mtime_ns and f.ctime_ns = r.ctime_ns and f.inode = r.inode;

-- What no scan reads.
create view rotten as select directory_id, name from standing where found is not null;

-- Up to where the samples of a subtree have come, in millionths of all hashes.
create table sampled (
    volume_id bigint not null references volumes (id),
    path      bytea  not null,
    position  bigint not null,
    primary key (volume_id, path)
);

-- The keys of the files that a run rereads, in physical order and in pieces. Their rows are looked up when it is
-- their turn, which may be hours later.
create table rereading (
    scan_id     bigint   not null references scans (id) on delete cascade,
    number      bigint   not null,
    directories bigint[] not null,
    names       bytea[]  not null,
    primary key (scan_id, number)
);

-- Not compressed: it is read once.
alter table rereading alter directories set storage external, alter names set storage external;
