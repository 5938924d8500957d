//! Several processes on one index, as if on several hosts.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{Run, Sandbox};

/// Files in the tree; half of them have a partner, most share their size with another.
const FILES: usize = 6000;

/// How many connections are in a pause that a test makes.
const PAUSING: &str = "
    select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";

/// A tree whose files are found, and not read yet.
fn discovered_tree() -> Sandbox {
    let sandbox = Sandbox::on_postgres();
    for index in 0..FILES {
        let content = format!("{:05}", index % (FILES / 2)).repeat(1 + index % 2);
        sandbox.write(format!("{}/{index}", index % 23), content);
    }
    for name in ["x", "y", "z"] {
        sandbox.write(format!("large/{name}"), vec![b'l'; 3_000_000]);
    }
    let found = sandbox.scan_json(&["--discover-only", "tree"]);
    assert_eq!(found["files_seen"], FILES + 3);
    sandbox
}

fn worker(sandbox: &Sandbox, host: &str, arguments: &[&str]) -> Child {
    let mut command = sandbox.command(["worker", "--json", "-q", "--threads", "1"].iter().chain(arguments));
    command.env("DUPFIND_HOST", host).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn outcome(child: Child) -> Value {
    let run = Run::of(child.wait_with_output().unwrap()).succeeds();
    serde_json::from_slice(&run.output.stdout).unwrap()
}

fn hashed(outcomes: &[Value]) -> u64 {
    outcomes.iter().map(|outcome| outcome["hashed"].as_u64().unwrap()).sum()
}

/// The rounds of a test that leaves something to chance; more on request.
fn rounds(few: u32) -> u32 {
    std::env::var("DUPFIND_TEST_ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

#[test]
fn one_two_and_four_workers_read_each_file_once_and_find_the_same() {
    let mut results = Vec::new();
    for workers in [1, 2, 4] {
        let sandbox = discovered_tree();
        let children: Vec<Child> =
            (0..workers).map(|number| worker(&sandbox, &format!("host-{number}"), &[])).collect();
        let outcomes: Vec<Value> = children.into_iter().map(outcome).collect();
        // A sampled file counts once.
        assert_eq!(hashed(&outcomes), FILES as u64 + 3, "{workers} workers");
        assert_eq!(sandbox.report()["complete"], true);
        assert_eq!(sandbox.sql("select count(*) from leases"), "0");
        assert_eq!(sandbox.sql("select count(*) from workers"), "0", "they took their leave");
        results.push(sandbox.groups());
    }
    assert_eq!(results[0].len(), FILES / 2 + 1);
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn what_a_killed_worker_held_is_taken_over_and_nothing_else_is_read_twice() {
    let expected = FILES as u64 + 3;
    let mut killed = 0;
    for round in 0..rounds(4) {
        let sandbox = discovered_tree();
        let mut children: Vec<Child> =
            (0..3).map(|number| worker(&sandbox, &format!("host-{number}"), &[])).collect();
        let mut victim = children.remove(usize::try_from(round).unwrap() % 3);
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 160) + 15));
        kill_process(Pid::from_child(&victim), Signal::KILL).unwrap();
        killed += u32::from(!victim.wait().unwrap().success());
        let survivors: Vec<Value> = children.into_iter().map(outcome).collect();
        assert!(hashed(&survivors) <= expected, "round {round}: a survivor read a file twice");
        assert_eq!(sandbox.report()["complete"], true, "round {round}");
        assert_eq!(sandbox.groups().len(), FILES / 2 + 1, "round {round}");
        assert_eq!(sandbox.sql("select count(*) from leases"), "0", "round {round}");
    }
    assert!(killed > 0, "no round was quick enough to kill");
}

#[test]
fn a_worker_that_waits_reads_what_another_host_finds_and_ends_when_told() {
    let sandbox = Sandbox::on_postgres();
    let waiting = worker(&sandbox, "reader", &["--watch"]);
    let seen_alive = || sandbox.sql("select count(*) from workers where host = 'reader'") == "1";
    wait_until("the worker joins", || sandbox.run(["status"]).output.status.success() && seen_alive());
    for name in ["a", "b"] {
        sandbox.write(name, "same content");
    }
    for round in 0..2 {
        sandbox.write(format!("c{round}"), "same content");
        let mut finder = sandbox.command(["scan", "-q", "--discover-only", "tree"]);
        assert!(finder.env("DUPFIND_HOST", "reader").status().unwrap().success());
        wait_until("it is read", || sandbox.report()["summary"]["pending_files"] == 0);
    }
    assert_eq!(sandbox.group_names(), [["a", "b", "c0", "c1"]]);
    let status = sandbox.run(["status", "--json"]).succeeds().stdout();
    let status: Value = serde_json::from_str(&status).unwrap();
    let worker = &status["workers"][0];
    assert_eq!(
        (&worker["host"], &worker["task"], &worker["alive"]),
        (&"reader".into(), &"worker".into(), &true.into())
    );
    assert!(sandbox.run(["status"]).stdout().contains("reader process"));
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    Run::of(waiting.wait_with_output().unwrap()).succeeds();
    assert_eq!(sandbox.sql("select count(*) from workers"), "0");
}

#[test]
fn what_is_found_while_a_worker_ends_its_last_pass_is_read() {
    let sandbox = Sandbox::on_postgres();
    sandbox.scan();
    // To end a pass takes long.
    let _ = sandbox.sql(
        "delete from figures;
         create function pause() returns trigger language plpgsql as
         $$ begin perform pg_sleep(1); return null; end $$;
         create trigger pause after insert on figures for each statement execute function pause()",
    );
    let waiting = worker(&sandbox, "reader", &["--watch"]);
    wait_until("a pass ends", || sandbox.sql(PAUSING) == "1");
    for name in ["a", "b"] {
        sandbox.write(name, "same content");
    }
    let mut finder = sandbox.command(["scan", "-q", "--discover-only", "tree"]);
    assert!(finder.env("DUPFIND_HOST", "reader").status().unwrap().success());
    wait_until("it is read", || sandbox.report()["summary"]["pending_files"] == 0);
    assert_eq!(sandbox.group_names(), [["a", "b"]]);
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    Run::of(waiting.wait_with_output().unwrap()).succeeds();
}

#[test]
fn a_sign_of_life_that_is_on_its_way_does_not_outlive_its_worker() {
    let sandbox = Sandbox::on_postgres();
    sandbox.scan();
    // Whoever joined says slowly that it lives.
    let _ = sandbox.sql(
        "create function pause() returns trigger language plpgsql as
         $$ begin if exists (select 1 from workers) then perform pg_sleep(1); end if; return new; end $$;
         create trigger pause before insert on workers for each row execute function pause()",
    );
    let mut waiting = sandbox.command(["worker", "-q", "--watch"]);
    let waiting = waiting.env("DUPFIND_LEASE_SECONDS", "6").stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it gives a sign", || sandbox.sql(PAUSING) == "1");
    kill_process(Pid::from_child(&waiting), Signal::TERM).unwrap();
    Run::of(waiting.wait_with_output().unwrap()).succeeds();
    wait_until("nothing is on its way", || sandbox.sql(PAUSING) == "0");
    assert_eq!(sandbox.sql("select count(*) from workers"), "0");
}

#[test]
fn a_worker_says_what_it_read_and_leaves_the_index_ready_for_reports() {
    for sandbox in [Sandbox::new(), Sandbox::on_postgres()] {
        sandbox.write("a", "same");
        sandbox.write("b", "same");
        sandbox.run(["scan", "--discover-only", "tree"]).succeeds();
        let run = sandbox.run(["worker"]).succeeds();
        assert!(run.stdout().contains("1 redundant file in 1 group"), "{}", run.stdout());
        assert_eq!(sandbox.sql("select count(*) from figures"), "1", "what it counted is kept");
    }
}

#[test]
fn a_worker_tries_what_cannot_be_read_once_and_ends() {
    let sandbox = Sandbox::on_postgres();
    for name in ["a", "b", "c"] {
        sandbox.write(name, "same content");
    }
    sandbox.scan_json(&["--discover-only", "tree"]);
    std::fs::remove_file(sandbox.tree().join("a")).unwrap();
    for problems in [1, 1] {
        let run = Run::of(worker(&sandbox, "reader", &[]).wait_with_output().unwrap()).ends_with(1);
        let outcome: Value = serde_json::from_slice(&run.output.stdout).unwrap();
        assert_eq!(outcome["problems"], problems);
    }
    assert_eq!(sandbox.group_names(), [["b", "c"]]);
}

#[test]
fn a_frozen_process_does_not_keep_others_waiting_for_longer_than_its_patience() {
    let sandbox = Sandbox::on_postgres();
    sandbox.write("a", "x");
    let mut frozen = sandbox.command(["scan", "-q", "tree"]).spawn().unwrap();
    wait_until("it is in a transaction", || {
        let _ = kill_process(Pid::from_child(&frozen), Signal::CONT);
        std::thread::sleep(Duration::from_millis(1));
        let _ = kill_process(Pid::from_child(&frozen), Signal::STOP);
        let open = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'";
        sandbox.sql(open) == "1" || frozen.try_wait().unwrap().is_some()
    });
    let mut other = sandbox.command(["scan", "-q", "tree"]);
    let mut other = other.env("DUPFIND_HOST", "other").spawn().unwrap();
    wait_until("the other one is done", || other.try_wait().unwrap().is_some());
    assert!(other.wait().unwrap().success());
    let _ = kill_process(Pid::from_child(&frozen), Signal::CONT);
    let _ = frozen.wait();
}

#[test]
fn hosts_that_begin_at_the_same_moment_make_one_index() {
    let sandbox = Sandbox::on_postgres();
    let children: Vec<Child> = (0..10)
        .map(|_| {
            sandbox.command(["db", "check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let run = Run::of(child.wait_with_output().unwrap()).succeeds();
        assert!(
            run.stdout().contains("PostgreSQL") && run.stdout().contains("round trip"),
            "{}",
            run.stdout()
        );
    }
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).unwrap();
    let applied = sandbox.sql("select count(*) from _sqlx_migrations where success");
    assert_eq!(applied, migrations.count().to_string());
}

#[test]
fn an_index_of_the_future_or_of_somebody_else_is_refused_and_left_alone() {
    let sandbox = Sandbox::on_postgres();
    sandbox.run(["report"]).refused(3, &["no index at PostgreSQL", "dupfind scan"]);
    assert_eq!(sandbox.sql("select count(*) from pg_tables where schemaname = 'public'"), "0");
    let _ = sandbox.sql("create table files (mine text)");
    sandbox.run(["scan", "tree"]).refused(3, &["something else than a dupfind index"]);
    let _ = sandbox.sql("drop table files");
    sandbox.scan();
    let _ = sandbox.sql(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of the future', true, '', 0)",
    );
    for arguments in [&["scan", "tree"][..], &["report"], &["worker"]] {
        sandbox.run(arguments).refused(3, &["left as it is", "newer dupfind"]);
    }
}

#[test]
fn a_server_that_its_makers_mend_no_more_is_refused_in_one_line() {
    let sandbox = Sandbox::on_postgres();
    // It says of itself that it is older.
    let _ = sandbox.sql(
        "create function current_setting(name text) returns text language sql as $$ select '140011' $$;
         do $$ begin
             execute format('alter database %I set search_path = public, pg_catalog', current_database());
         end $$",
    );
    let run = sandbox.run(["db", "check"]).refused(3, &["140011", "15 is the oldest", "upgrade"]);
    assert_eq!(run.stderr().lines().count(), 1, "{}", run.stderr());
    assert_eq!(sandbox.sql("select count(*) from pg_tables where schemaname = 'public'"), "0");
}

#[test]
fn one_root_is_walked_by_one_at_a_time() {
    let sandbox = Sandbox::on_postgres();
    sandbox.write("a", "x");
    sandbox.scan();
    // Somebody who is alive for a minute walks it.
    let _ = sandbox.sql(
        "insert into workers (host, process, task, patience) values ('nas', 77, 'scan', '1 minute');
         insert into scans (root_id, kind, status, started_at, worker_id)
         select 1, 'scan', 'running', 0, max(id) from workers",
    );
    sandbox.run(["scan", "--no-wait", "tree"]).refused(3, &["process 77 on nas"]);
    sandbox.run(["roots", "--no-wait", "remove", "tree"]).refused(3, &["process 77 on nas"]);
    let mut other = sandbox.command(["scan", "-q", "--no-wait", "home"]);
    assert!(other.status().unwrap().success(), "another root is free");
    // Its host is cut off.
    let _ = sandbox.sql("update workers set patience = '0 seconds'");
    sandbox.run(["scan", "--no-wait", "tree"]).succeeds();
    let ended = "select status from scans where worker_id in (select id from workers where host = 'nas')";
    assert_eq!(sandbox.sql(ended), "interrupted");
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
