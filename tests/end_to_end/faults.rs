//! Connections that are lost: killed, cut, gone silent, or with the whole server.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::server::TestDatabase;
use super::support::{Run, Sandbox, on_a_runtime};
use super::watcher::{Watching, until_groups};

/// A tree whose scan takes long enough to be disturbed, and what is in it.
fn tree_in(sandbox: &Sandbox) -> usize {
    for index in 0..12_000_usize {
        let content = format!("{:05}", index % 6000).repeat(1 + index % 3);
        sandbox.write(format!("{}/{}/{index}", index % 37, index % 5), content);
    }
    for name in ["x", "y", "z"] {
        sandbox.write(format!("large/{name}"), vec![b'l'; 3_000_000]);
    }
    6001
}

/// Small batches, so that there are many moments.
fn scan_command(sandbox: &Sandbox) -> Command {
    sandbox.command(["scan", "--threads", "1", "--batch-size", "100", "tree"])
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finds_all(sandbox: &Sandbox, child: Child, groups: usize) -> Run {
    let run = Run::of(child.wait_with_output().unwrap()).succeeds();
    assert_eq!(sandbox.report()["complete"], true, "{}", run.stderr());
    assert_eq!(sandbox.groups().len(), groups, "{}", run.stderr());
    run
}

#[test]
fn a_backend_killed_in_any_phase_costs_nothing() {
    let sandbox = Sandbox::on_postgres();
    let groups = tree_in(&sandbox);
    std::fs::create_dir(sandbox.path().join("empty")).unwrap();
    for (phase, writes, is_discovered) in [
        ("insert into directories", "insert on directories", false),
        ("insert into files", "insert on files", false),
        ("update files", "update on files", false),
        // A first scan may read everything while it walks: what waits for hashes must be there before.
        ("null_size (size)", "insert on leases", true),
        ("update leases", "update on leases", true),
        ("update files", "update on files", true),
    ] {
        sandbox.forget_index();
        let root = if is_discovered { "tree" } else { "empty" };
        sandbox.run(["scan", "--discover-only", root]).succeeds();
        // Some statements are few and last a millisecond: the hunter needs longer.
        sandbox.sql(&format!(
            "create function pause() returns trigger language plpgsql as
             $$ begin perform pg_sleep(0.02); return null; end $$;
             create trigger pause after {writes} for each statement execute function pause()"
        ));
        let child = spawn(&mut scan_command(&sandbox));
        // Hunts on the server, which sees them at once.
        let hunt = format!(
            "create function pg_temp.hunt() returns bigint language plpgsql as $$
             declare killed bigint := 0; began timestamptz := clock_timestamp();
             begin
                 while killed < 3 and clock_timestamp() < began + interval '5 seconds' loop
                     perform pg_stat_clear_snapshot();
                     killed := killed + (
                         select count(pg_terminate_backend(pid)) from pg_stat_activity
                         where application_name = 'dupfind' and datname = current_database()
                           and state = 'active' and query like '%{phase}%');
                     perform pg_sleep(0.001);
                 end loop;
                 return killed;
             end $$;
             select pg_temp.hunt()"
        );
        let killed = sandbox.sql(&hunt);
        assert_ne!(killed, "0", "nobody was killed in: {phase}");
        finds_all(&sandbox, child, groups);
    }
}

/// `tests/postgres COMMAND DIRECTORY`; returns what it says.
fn control(command: &str, directory: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
    let output = Command::new(script).arg(command).arg(directory).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server of a test's own, which may be treated badly.
struct OwnServer {
    directory: TempDir,
    url: String,
}

impl OwnServer {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dupfind-pg-").tempdir().unwrap();
        let url = control("start", &directory.path().join("server"));
        Self { directory, url }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    fn sandbox(&self) -> Sandbox {
        Sandbox::with(Some(on_a_runtime(async || TestDatabase::create_on(&self.url).await)))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // A test that failed may have left it stopped: a second panic would hide why.
        if !std::thread::panicking() {
            control("stop", &self.path());
        }
    }
}

#[test]
fn a_server_restarted_ten_times_during_a_scan_costs_nothing() {
    let server = OwnServer::start();
    let sandbox = server.sandbox();
    let groups = tree_in(&sandbox);
    // So small that the scan lasts longer than ten restarts, however fast they are.
    let mut command = sandbox.command(["scan", "--threads", "1", "--batch-size", "3", "tree"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut restarts = 0;
    while restarts < 10 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
        // In good order, or as a power cut would: the leases are lost then.
        control(if restarts % 2 == 0 { "restart" } else { "crash" }, &server.path());
        restarts += 1;
    }
    let run = finds_all(&sandbox, child, groups);
    assert!(run.stderr().contains("trying again"), "{}", run.stderr());
    assert_eq!(restarts, 10, "the scan was over too soon");
}

#[test]
fn a_server_that_stays_away_is_given_up_and_resume_goes_on() {
    let server = OwnServer::start();
    let sandbox = server.sandbox();
    let groups = tree_in(&sandbox);
    sandbox.run(["db", "check"]).succeeds();
    let child = spawn(scan_command(&sandbox).env("DUPFIND_RETRY_SECONDS", "2"));
    let began = Instant::now();
    while sandbox.sql("select count(*) > 3000 from files") != "t" {
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    control("stop", &server.path());
    let run = Run::of(child.wait_with_output().unwrap()).ends_with(3);
    assert!(run.stderr().contains("dupfind resume"), "{}", run.stderr());
    assert_eq!(run.stderr().matches("trying again").count(), 1, "the limit is kept once: {}", run.stderr());
    control("start", &server.path());
    let kept: u32 = sandbox.sql("select count(*) from files").parse().unwrap();
    assert!(kept >= 3000, "what was committed is kept: {kept}");
    sandbox.run(["resume", "-q"]).succeeds();
    assert_eq!(sandbox.groups().len(), groups);
    assert_eq!(sandbox.report()["complete"], true);
}

#[test]
fn a_watcher_outlives_its_server() {
    let server = OwnServer::start();
    let sandbox = server.sandbox();
    for name in ["a", "b"] {
        sandbox.write(name, "the same");
    }
    let mut command = sandbox.command(["watch", "--json", "--debounce", "50ms", "tree"]);
    command.env("DUPFIND_RETRY_SECONDS", "1");
    let watching = Watching::spawn(&sandbox, command);
    control("stop", &server.path());
    sandbox.write("while/it/is/away", "the same");
    watching.until("away", |told| told["event"] == "index_away");
    std::fs::remove_file(sandbox.tree().join("a")).unwrap();
    control("start", &server.path());
    watching.until("back", |told| told["event"] == "index_back");
    until_groups(&sandbox, &[&["b", "while/it/is/away"]]);
    sandbox.write("afterwards", "the same");
    until_groups(&sandbox, &[&["afterwards", "b", "while/it/is/away"]]);
    let reconciled =
        watching.until("reconciled", |told| told["event"] == "reconciled" && told["kind"] == "reconcile");
    assert_eq!(reconciled["problems"], 0);
    watching.stop();
}

/// Stands between the program and the server, and can break what lies between.
struct Proxy {
    address: SocketAddr,
    /// Ends of all connections that were made.
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// While set, bytes get lost without a word, as behind a router that lost its power.
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_silent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ends, silence) = (Arc::clone(&open), Arc::clone(&is_silent));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    let silence = Arc::clone(&silence);
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; 65536];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            if !silence.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                ends.lock().unwrap().extend([client, server]);
            }
        });
        Self { address, open, is_silent }
    }

    fn cut(&self) -> usize {
        let ends = std::mem::take(&mut *self.open.lock().unwrap());
        for end in &ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        ends.len() / 2
    }
}

/// A scan that reaches the sandbox's database through a proxy.
fn scan_through(sandbox: &Sandbox) -> (Proxy, Child) {
    let mut url: url::Url = sandbox.database_url().parse().unwrap();
    let proxy = Proxy::before(SocketAddr::from(([127, 0, 0, 1], url.port().unwrap())));
    url.set_port(Some(proxy.address.port())).unwrap();
    let child = spawn(scan_command(sandbox).env("DUPFIND_DB_URL", String::from(url)));
    (proxy, child)
}

#[test]
fn a_cut_line_costs_nothing() {
    let sandbox = Sandbox::on_postgres();
    let groups = tree_in(&sandbox);
    // Making the tables is one transaction: on a busy machine it would be cut off again and again.
    sandbox.run(["db", "check"]).succeeds();
    let (proxy, mut child) = scan_through(&sandbox);
    let mut cut = 0;
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(90));
        if cut < 40 {
            cut += proxy.cut();
        }
    }
    assert!(cut > 3, "{cut}");
    finds_all(&sandbox, child, groups);
}

#[test]
fn a_line_that_goes_silent_is_noticed() {
    let sandbox = Sandbox::on_postgres();
    let groups = tree_in(&sandbox);
    let (proxy, child) = scan_through(&sandbox);
    std::thread::sleep(Duration::from_millis(300));
    proxy.is_silent.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(1));
    // The line is there again, but what was under way is lost, and the old connections never hear of it.
    proxy.open.lock().unwrap().clear();
    proxy.is_silent.store(false, Ordering::Relaxed);
    finds_all(&sandbox, child, groups);
}
