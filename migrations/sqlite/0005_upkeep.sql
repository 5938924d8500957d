-- How a root is kept up to date: watched or not, how often it is reconciled; JSON, as settings.
alter table roots add column upkeep text not null default '{}';

-- Runs are of more kinds: those that a watcher begins, those of a part of a root, those that only reread.
-- path: the directory of the volume below which it looked, if not the whole root. events: what a watcher was told.
-- The others: what the whole index held when the run ended; null if nobody counted then.
alter table scans add column path blob;
alter table scans add column events integer not null default 0;
alter table scans add column index_files integer;
alter table scans add column index_bytes integer;
alter table scans add column groups integer;
alter table scans add column redundant_files integer;
alter table scans add column reclaimable_bytes integer;

-- Who watches a root on which host. mode: live (events come), polled (it is reconciled instead, for this reason) or
-- offline. seen_at: its last sign of life.
create table watches (
    root_id     integer not null references roots (id) on delete cascade,
    host        text    not null,
    process     integer not null,
    mode        text    not null,
    reason      text,
    since       integer not null,
    seen_at     integer not null,
    events      integer not null default 0,
    next_at     integer,
    next_reason text,
    primary key (root_id, host)
) strict, without rowid;

-- A watcher's row gets a new id when it goes on: what was listed under the old one was listed by the first run that has
-- a larger id.
drop view file_hashes;
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
left join scans s on s.id = (select min(id) from scans where id >= d.generation);

-- Bit rot. A file whose content is not what it was, though its stamp is, has no hash any more; what it should be is
-- kept here. It also is for a file that could not be read again. The stamp is the one it had then: if the file has it
-- still, the finding stands; else somebody put another file in its place. found: the hash that was read, null if none
-- was. sample: what was known of it. No scan reads a file that was found rotten, so none takes it for sound.
-- A finding follows its file to another name; until a run has looked for it, a negative directory is one that is gone.
create table rot (
    directory_id integer not null,
    name         blob    not null,
    volume_id    integer not null,
    size         integer not null,
    mtime_ns     integer not null,
    ctime_ns     integer not null,
    inode        integer not null,
    expected     blob    not null,
    sample       blob,
    found        blob,
    found_at     integer not null,
    primary key (directory_id, name)
) strict, without rowid;

-- Ids of directories may be used again.
create trigger forget_directory_of_rot after delete on directories begin
    update or replace rot set directory_id = -old.id where directory_id = old.id;
end;

-- The findings that stand.
create view standing as
select f.id as file_id, r.*
from rot r cross join files f
    on f.directory_id = r.directory_id and f.name = r.name and f.size = r.size
    and f.mtime_ns = r.mtime_ns and f.ctime_ns = r.ctime_ns and f.inode = r.inode;

-- What no scan reads.
create view rotten as select file_id from standing where found is not null;

-- Up to where the samples of a subtree have come, in millionths of all hashes.
create table sampled (
    volume_id integer not null references volumes (id),
    path      blob    not null,
    position  integer not null,
    primary key (volume_id, path)
) strict, without rowid;

-- The process that runs it. Only a run that reads and does not hold the right to write needs it: others died if
-- somebody else got that right.
alter table scans add column process integer;
