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
