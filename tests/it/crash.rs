//! `kill -9` of the daemon with 200 jobs active: every one of them completes, counted by its effects.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use redis::Commands;
use serde_json::json;

use crate::bench::{Home, Jobs, Redis, celery_message, random_id, until};

const JOBS: usize = 200;

/// The gate is a pipe: opening it to read waits, at no cost, until somebody has it open to write.
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(home: &Home) -> Self {
        let path = home.path("gate");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo starts").success());
        Self(path)
    }

    /// Open for as long as the file lives.
    fn open(&self) -> fs::File {
        // To read and to write, so that opening does not wait for a reader.
        fs::File::options().read(true).write(true).open(&self.0).expect("the pipe is there")
    }
}

/// Each job writes `begin N`, waits for the gate, and writes `end N`.
fn config(gate: &Gate, effects: &Path) -> String {
    format!(
        "[queues.work]\nwires = [\"celery\"]\nconcurrency = {JOBS}\n\
         [tasks.work]\nnames = [\"app.work\"]\nqueue = \"work\"\nparams = {{ n = \"int\" }}\n\
         [tasks.work.exec]\nprogram = \"/bin/sh\"\n\
         args = [\"-c\", 'echo \"begin $1\" >> \"$2\"; : < \"$3\"; echo \"end $1\" >> \"$2\"', \"work\", \"{{{{ n }}}}\", '{}', '{}']\n",
        effects.display(),
        gate.0.display(),
    )
}

fn enqueue(redis: &Redis) {
    let mut client = redis.client();
    let message = |n| celery_message("app.work", &random_id(), &json!({ "n": n }));
    let messages: Vec<String> = (0..JOBS).map(message).collect();
    client.lpush::<_, _, ()>("work", messages).expect("Redis takes them");
}

/// How often each job has come to this point.
fn effects(path: &Path, point: &str) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        if let Some(n) = line.strip_prefix(point) {
            *counts.entry(n.trim().parse().expect("a number")).or_default() += 1;
        }
    }
    counts
}

#[test]
fn all_200_jobs_complete_after_a_restart() {
    let redis = Redis::start();
    let home = Home::new(&redis, "");
    let (gate, path) = (Gate::new(&home), home.path("effects"));
    // Whoever gets the state folder knows that the one before is dead: this lease is never waited for.
    home.rewrite(&redis.url(), &["node.lease = \"10m\"\n", &config(&gate, &path)].concat());
    enqueue(&redis);
    let mut jobs = Jobs::of(&redis, "work");

    let daemon = home.start();
    until("200 jobs to have begun", || (effects(&path, "begin").len() == JOBS).then_some(()));
    assert_eq!(jobs.count("active"), JOBS);
    daemon.kill();
    assert_eq!(jobs.count("active"), JOBS, "whoever dies takes nothing along");

    // Once it runs, nothing is left of the programs that the dead one had started: the gate lets none of them through.
    let _restarted = home.start();
    let _open = gate.open();
    jobs.until("completed", JOBS);
    check(&path, &mut jobs);
}

#[test]
fn another_node_with_a_state_of_its_own_takes_over() {
    let redis = Redis::start();
    let (home, other) = (Home::new(&redis, ""), Home::new(&redis, ""));
    let (gate, path) = (Gate::new(&home), home.path("effects"));
    home.rewrite(&redis.url(), &config(&gate, &path));
    other.rewrite(&redis.url(), &config(&gate, &path));
    enqueue(&redis);
    let mut jobs = Jobs::of(&redis, "work");

    let daemon = home.start();
    until("200 jobs to have begun", || (effects(&path, "begin").len() == JOBS).then_some(()));
    let _other = other.start();
    // It lives beside the owner for longer than a lease, and takes nothing: the owner lives.
    let until_when = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::time::Instant::now() < until_when {
        assert_eq!(effects(&path, "begin").values().sum::<usize>(), JOBS, "a living owner's job ran twice");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    daemon.kill();
    until("the other node to begin them", || {
        (effects(&path, "begin").values().sum::<usize>() >= 2 * JOBS).then_some(())
    });
    let _open = gate.open();
    jobs.until("completed", JOBS);
    check(&path, &mut jobs);
}

/// None lost, and none left anywhere. The programs of a killed daemon die with it, so none ends twice either.
fn check(path: &Path, jobs: &mut Jobs) {
    let ends = effects(path, "end");
    assert_eq!(ends.len(), JOBS, "{} of {JOBS} jobs have had their effect", ends.len());
    let twice: Vec<_> = ends.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "ended more than once: {twice:?}");
    for state in ["pending", "active", "retry", "dead", "scheduled", "inflight"] {
        assert_eq!(jobs.count(state), 0, "{state}");
    }
    println!(
        "{} of {JOBS} jobs completed after kill -9, {} attempts",
        ends.len(),
        effects(path, "begin").values().sum::<usize>()
    );
}

/// Of a killed daemon's programs nothing is left, neither what they have started nor what has left their groups: the
/// latter used to live on, beside the next attempt.
#[test]
fn programs_and_all_that_they_have_started_end_with_a_killed_daemon() {
    let redis = Redis::start();
    let home = Home::new(&redis, "");
    let folder = home.path("pids");
    fs::create_dir(&folder).expect("a folder");
    let script = "echo $$ > \"$1/$2.shell\"; sleep 600 & echo $! > \"$1/$2.child\"; \
                  setsid sh -c 'trap \"\" TERM HUP; echo $$ > \"$1/$2.far\"; sleep 600' sh \"$1\" \"$2\" & wait";
    home.rewrite(
        &redis.url(),
        &format!(
            "node.lease = \"10m\"\n[queues.work]\nwires = [\"celery\"]\nconcurrency = 20\n\
             [tasks.work]\nnames = [\"app.work\"]\nqueue = \"work\"\nparams = {{ n = \"int\" }}\n\
             [tasks.work.exec]\nprogram = \"/bin/sh\"\nargs = [\"-c\", \"\"\"{}\"\"\", \"work\", '{}', \"{{{{ n }}}}\"]\n",
            script.replace('$', "$$").replace('\\', "\\\\"),
            folder.display()
        ),
    );
    let mut client = redis.client();
    for n in 0..20 {
        crate::bench::push(&mut client, "work", "app.work", &json!({ "n": n }));
    }
    let daemon = home.start();
    let pids = until("60 processes", || {
        let files = fs::read_dir(&folder).ok()?.flatten();
        let pids: Vec<i32> =
            files.filter_map(|file| fs::read_to_string(file.path()).ok()?.trim().parse().ok()).collect();
        (pids.len() == 60).then_some(pids)
    });
    let lives = |pid: &&i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    assert_eq!(pids.iter().filter(lives).count(), 60);
    daemon.kill();
    until("all of them to end", || (pids.iter().filter(lives).count() == 0).then_some(()));
    println!("0 of {} processes are left after kill -9 of the daemon", pids.len());
}

/// However long a guard needs to end its program, the next daemon does not begin the job before. A program of the dead
/// daemon used to run beside that of the next attempt for a moment. Here the test is one more guard, and takes its time.
#[test]
fn a_daemon_that_starts_waits_for_the_programs_of_the_one_before() {
    let redis = Redis::start();
    let home = Home::new(&redis, "");
    let (gate, path) = (Gate::new(&home), home.path("effects"));
    home.rewrite(&redis.url(), &["node.lease = \"10m\"\n", &config(&gate, &path)].concat());
    let id = crate::bench::push(&mut redis.client(), "work", "app.work", &json!({ "n": 1 }));
    let begun = || effects(&path, "begin").values().sum::<usize>();
    let lock = || fs::File::open(home.path("state/exec.lock")).expect("there is a program");
    let daemon = home.start();
    until("the program to run", || (begun() == 1).then_some(()));
    let alone = rustix::fs::flock(lock(), rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert!(alone.is_err(), "its guard holds the lock");
    let guard = lock();
    rustix::fs::flock(&guard, rustix::fs::FlockOperation::NonBlockingLockShared).expect("guards share it");
    daemon.kill();

    let next = home.spawn();
    let words = "waiting for the programs of the daemon before";
    until("it to say that it waits", || next.log().contains(words).then_some(()));
    assert_eq!(begun(), 1, "the job was begun beside its old program");
    drop(guard);
    until("the next attempt", || (begun() == 2).then_some(()));
    let _open = gate.open();
    Jobs::of(&redis, "work").ended(&id, "completed");
    assert_eq!(effects(&path, "end").values().sum::<usize>(), 1, "the old program came to its end too");
}

/// The first step writes a line; the second waits for the gate and writes what it has of the first one's result. The
/// daemon is killed in the second. The first used to be done again.
#[test]
fn a_step_that_was_finished_before_the_crash_is_not_done_again() {
    let redis = Redis::start();
    let home = Home::new(&redis, "");
    let (gate, path) = (Gate::new(&home), home.path("effects"));
    let (gate_path, effects_path) = (gate.0.display(), path.display());
    home.rewrite(
        &redis.url(),
        &format!(
            "node.lease = \"10m\"\n[queues.work]\nwires = [\"celery\"]\nconcurrency = 20\n\
             [tasks.work]\nnames = [\"app.work\"]\nqueue = \"work\"\nparams = {{ n = \"int\" }}\n\
             [[tasks.work.steps]]\n[tasks.work.steps.exec]\nprogram = \"/bin/sh\"\n\
             args = [\"-c\", 'echo \"first $1\" >> \"$2\"; echo \"made by $1\"', \"work\", \"{{{{ n }}}}\", '{effects_path}']\n\
             [[tasks.work.steps]]\n[tasks.work.steps.exec]\nprogram = \"/bin/sh\"\n\
             args = [\"-c\", 'echo \"second $1\" >> \"$2\"; : < \"$3\"; echo \"$4\"', \"work\", \"{{{{ n }}}}\", '{effects_path}', '{gate_path}', \"{{{{ steps[0] }}}}\"]\n"
        ),
    );
    let mut client = redis.client();
    let ids: Vec<String> =
        (0..20).map(|n| crate::bench::push(&mut client, "work", "app.work", &json!({ "n": n }))).collect();
    let mut jobs = Jobs::of(&redis, "work");
    let daemon = home.start();
    until("20 second steps to have begun", || (effects(&path, "second").len() == 20).then_some(()));
    daemon.kill();
    let _open = gate.open();
    let _restarted = home.start();
    jobs.until("completed", 20);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(jobs.ended(id, "completed")["end"]["result"], json!(format!("made by {n}")));
    }
    let first = effects(&path, "first");
    assert_eq!(first.values().sum::<usize>(), 20, "the first step was done again: {first:?}");
    assert_eq!(
        effects(&path, "second").values().sum::<usize>(),
        40,
        "the second was cut off, and done by the next attempt"
    );
}

/// A job that ends the process each time is dead in the end, and the others are not.
#[test]
fn a_job_that_kills_the_daemon_is_dead_after_three_crashes() {
    let redis = Redis::start();
    let home = Home::new(
        &redis,
        "[queues.work]\nwires = [\"celery\"]\nconcurrency = 1\n\
         [tasks.crash]\nnames = [\"app.crash\"]\nqueue = \"work\"\nprobe = \"crash\"\n\
         [tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"work\"\nprobe = \"noop\"\n",
    );
    let mut client = redis.client();
    let crash = crate::bench::push(&mut client, "work", "app.crash", &json!({}));
    for _ in 0..3 {
        let mut daemon = home.spawn();
        assert!(!daemon.wait().success(), "the crash has not ended it");
    }
    let good = crate::bench::push(&mut client, "work", "app.noop", &json!({}));
    let mut daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let history = jobs.ended(&crash, "dead");
    assert_eq!((&history["end"]["cause"], &history["crashes"]), (&json!("crash-loop"), &json!(3)), "{history:#}");
    jobs.ended(&good, "completed");
    daemon.assert_alive();
    let key = format!("celery-task-meta-{crash}");
    let told = until("the producer to be told", || client.get::<_, String>(&key).ok());
    assert!(told.contains("WorkerLostError"), "{told}");
}
