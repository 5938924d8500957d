-- The process that writes to the index, and what it last said of itself. Whether it lives, its lock
-- on the index tells.
create table workers (
    id               integer primary key autoincrement,
    host             text    not null,
    process          integer not null,
    task             text    not null,
    started_at       integer not null,
    seen_at          integer not null,
    files            integer not null default 0,
    bytes            integer not null default 0,
    files_per_second real    not null default 0,
    bytes_per_second real    not null default 0
) strict;

alter table scans add column worker_id integer;
