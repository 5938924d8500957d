-- Processes that write to the index, and the work they share.

-- A process that joined. It keeps saying that it lives; once it has been silent for its patience, it is
-- taken for dead, and what it held is free. All clocks are the server's.
create table workers (
    id               bigint generated always as identity primary key,
    host             text             not null,
    process          bigint           not null,
    task             text             not null,
    patience         interval         not null,
    started_at       timestamptz      not null default clock_timestamp(),
    seen_at          timestamptz      not null default clock_timestamp(),
    files            bigint           not null default 0,
    bytes            bigint           not null default 0,
    files_per_second double precision not null default 0,
    bytes_per_second double precision not null default 0
) with (fillfactor = 50);

-- Who runs it; while that process lives and its walk goes on, nobody else walks the same root.
alter table scans add column worker_id bigint;

-- Pieces of work, each a range of a volume in physical order: the keys of files to be read in a stage.
-- A worker takes one by writing its id here, and the row goes when all its files are answered: so a
-- file's own row is written once. Unlogged, because it only says what files without hash say too: after a
-- crash of the server it is empty, and is filled again.
create unlogged table leases (
    id          bigint generated always as identity primary key,
    stage       text     not null,
    volume_id   bigint   not null,
    files       bigint   not null,
    bytes       bigint   not null,
    directories bigint[] not null,
    names       bytea[]  not null,
    worker_id   bigint
);

alter table leases alter directories set storage external, alter names set storage external;

-- The names listed so far of a directory whose listing comes in pieces.
create table listed (
    scan_id      bigint not null,
    directory_id bigint not null,
    name         bytea  not null,
    primary key (scan_id, directory_id, name)
);
