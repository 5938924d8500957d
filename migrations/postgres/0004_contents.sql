-- What a directory held when it was last listed whole and all its rows were brought up to date: a hash over
-- names and stamps. A listing with the same fingerprint needs no look at the rows. Null: look at them.
alter table directories add column fingerprint bytea;

-- How often files, problems, or what is to be read changed, counted in the transaction that changes it. Each
-- process counts in a row that it shares with few others, so that none waits; the sum tells whether anything
-- changed.
create table changes (
    slot   bigint primary key,
    number bigint not null
) with (fillfactor = 50);

-- One row with the figures of the whole index, as JSON, at a moment in which nothing was left to be read and nothing
-- had failed, and the sum of changes of that moment: they hold as long as it is still the same.
create table figures (
    changes numeric not null,
    summary text    not null
);

-- A row grows by half when its hash comes. With 60 of 100 full, the pages had room for 6 of 10 rows, and the index over
-- names was written again for the others; with 40, for all of them, and the table is not larger in the end.
alter table files set (fillfactor = 40);
