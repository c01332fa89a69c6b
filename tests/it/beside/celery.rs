//! Celery's own workers beside jobsd on one queue, all of them killed at random: what jobsd has taken is done, and what is
//! lost or done twice was in the hands of a worker of Celery's, by Celery's own rules.
//!
//! A worker of Celery's acknowledges before a task (its default) or after it (`acks_late`). What it has not acknowledged
//! stands in `unacked`, from where another worker of Celery's takes it back when the visibility timeout has passed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::Commands;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{by_task, children, count_of_jobs, kill};
use crate::bench::{Child, Daemon, Home, Jobs, Python, Redis, celery_message, until, until_within};

const WORKERS: usize = 2;
/// Of each worker, and of jobsd.
const SLOTS: usize = 2;
/// Something is killed or told to end, this often.
const KILL_EVERY: Duration = Duration::from_millis(700);
/// Far longer than a task takes, and than the few wait that a worker has in hand.
const VISIBILITY: u32 = 6;

fn config(effects: &Path) -> String {
    let say = |what: &str| format!("'echo \"{what} $1\" >> \"{}\"; sleep 0.05', \"beside\"", effects.display());
    format!(
        "[queues.conf]\nwires = [\"celery\"]\nconcurrency = {SLOTS}\nretry = false\ncrash_limit = 100\n\
         keep_completed = {{ age = \"1d\", count = 100000 }}\n\
         [tasks.mark]\nnames = [\"beside.mark\"]\nqueue = \"conf\"\nparams = {{ n = \"int\", path = \"string\" }}\n\
         [tasks.mark.exec]\nprogram = \"/bin/sh\"\nargs = [\"-c\", {}, \"{{{{ n }}}}\"]\n\
         [tasks.long]\nnames = [\"beside.long\"]\nqueue = \"conf\"\nparams = {{ path = \"string\" }}\n\
         [tasks.long.exec]\nprogram = \"/bin/sh\"\n\
         args = [\"-c\", 'echo \"jobsd long\" >> \"{}\"; until [ -e open ]; do sleep 0.1; done']\n",
        say("jobsd"),
        effects.display(),
    )
}

const SEND: &str = "
import json
from beside_celery import mark
print(json.dumps([mark.delay(n, EFFECTS).id for n in range(COUNT)]))
";

/// What each worker of Celery's does ten seconds after it has begun, then every hundred seconds, and for ten messages at a
/// time: so many kills leave more than that.
const RESTORE: &str = "
import os
os.environ['VISIBILITY'] = 'SECONDS'
from beside_celery import app
with app.connection_for_read() as connection:
    connection.default_channel.qos.restore_visible(num=100000, interval=1)
print('null')
";

/// When the worker acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    Early,
    Late,
}

fn worker(redis: &Redis, acks: Acks, visibility: u32, name: usize) -> Child {
    let mut command = Child::command(Python::interpreter());
    command.args(["-m", "celery", "-A", "beside_celery", "worker", "-Q", "conf", "-l", "ERROR"]);
    command.args(["-c", &SLOTS.to_string(), "-n", &format!("w{name}@beside")]);
    command.env("PYTHONPATH", Python::folder()).env("PYTHONDONTWRITEBYTECODE", "1").env("REDIS_URL", redis.url());
    command.env("VISIBILITY", visibility.to_string()).env("ACKS", if acks == Acks::Late { "late" } else { "early" });
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::spawn(&mut command)
}

#[test]
fn celerys_own_workers_beside_jobsd_lose_nothing_of_ours_with_early_acks() {
    beside(Acks::Early);
}

#[test]
fn celerys_own_workers_beside_jobsd_lose_nothing_of_ours_with_late_acks() {
    beside(Acks::Late);
}

fn beside(acks: Acks) {
    let count = count_of_jobs(400);
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let effects = folder.path().join("effects");
    let home = Home::new(&redis, &config(&effects));
    let program = SEND.replace("COUNT", &count.to_string()).replace("EFFECTS", &format!("{:?}", effects.display()));
    let ids: Vec<String> =
        serde_json::from_value(Python::on(&redis.url()).run(&program).remove(0)).expect("a list of ids");
    let jobs = Jobs::of(&redis, "conf");
    let mut field = Field {
        redis: &redis,
        home: &home,
        jobs,
        acks,
        workers: Vec::new(),
        daemon: None,
        named: 0,
        kills: Kills::default(),
        in_hand_at_kills: BTreeSet::new(),
        dice: 2643,
    };
    field.until_worked_off(&effects, ids.len());
    let Field { kills, in_hand_at_kills, .. } = field;

    let statuses = statuses(&redis, &ids);
    let ours: BTreeSet<String> = redis.client().hkeys(Jobs::of(&redis, "conf").key("jobs")).expect("Redis answers");
    let runs = by_task(&effects, &["celery", "jobsd"]);
    let begun = by_task(&effects, &["begun"]);
    let by = |who: &str| runs.values().filter(|runs| runs.iter().any(|by| by == who)).count();
    let lost: Vec<usize> = (0..count).filter(|n| statuses[*n].is_none()).collect();
    let begun_and_lost = lost.iter().filter(|n| begun.contains_key(&n.to_string())).count();
    let failed = statuses.iter().filter(|status| status.as_deref() == Some("FAILURE")).count();
    let doubled = runs.values().filter(|runs| runs.len() > 1).count();
    let by_us = |runs: &[String]| runs.iter().filter(|by| *by == "jobsd").count();
    let by_us_twice: Vec<&String> = runs.iter().filter(|(_, runs)| by_us(runs) > 1).map(|(n, _)| n).collect();
    println!(
        "{count} tasks, {acks:?}: {} done by Celery's workers, {} by jobsd; {doubled} done twice, {} of them by \
         jobsd alone; of Celery's workers {} lost ({begun_and_lost} had begun), {failed} failed; {kills:?}",
        by("celery"),
        by("jobsd"),
        by_us_twice.len(),
        lost.len(),
    );
    assert!(by("celery") > 0 && by("jobsd") > 0, "both have worked");
    for n in 0..count {
        let (id, status) = (&ids[n], statuses[n].as_deref());
        assert!(!ours.contains(id) || status == Some("SUCCESS"), "jobsd had taken {n}, which is {status:?}");
        assert!(status != Some("SUCCESS") || runs.contains_key(&n.to_string()), "{n} is said to be done and is not");
    }
    // What a worker of Celery's held when it was killed. Acknowledged early, that is what its processes ran; either way it
    // loses what it has taken and not yet written down, a message at most.
    let held = if acks == Acks::Early { (kills.workers) * (SLOTS + 1) } else { kills.workers };
    assert!(lost.len() <= held, "{} are lost", lost.len());
    assert!(
        lost.len() - begun_and_lost <= kills.workers,
        "{} were lost before they began",
        lost.len() - begun_and_lost
    );
    assert!(failed <= kills.processes, "{failed} have failed");
    for n in by_us_twice {
        let id = &ids[n.parse::<usize>().expect("a number")];
        assert!(in_hand_at_kills.contains(id), "jobsd has done {n} twice, which no kill found in its hands");
    }
    assert!(doubled <= SLOTS * (kills.daemons + kills.workers + kills.processes), "{doubled} were done twice");
}

/// What was killed.
#[derive(Debug, Default)]
struct Kills {
    daemons: usize,
    /// With their processes.
    workers: usize,
    /// A process that runs tasks.
    processes: usize,
    /// Told to end, which they do when their tasks have ended.
    terms: usize,
}

struct Field<'a> {
    redis: &'a Redis,
    home: &'a Home,
    jobs: Jobs,
    acks: Acks,
    workers: Vec<Child>,
    daemon: Option<Daemon>,
    /// How many workers have been given a name.
    named: usize,
    kills: Kills,
    /// The tasks that jobsd ran when it was killed.
    in_hand_at_kills: BTreeSet<String>,
    dice: u64,
}

impl Field<'_> {
    fn until_worked_off(&mut self, effects: &Path, count: usize) {
        self.staff_workers();
        until_within(Duration::from_secs(60), "Celery's workers to work", || {
            fs::read_to_string(effects).ok().filter(|text| text.contains("celery "))
        });
        let (started, mut killed) = (Instant::now(), Instant::now());
        let limit = Duration::from_secs(180) + Duration::from_millis(200) * u32::try_from(count).expect("not so many");
        while self.waiting() > 0 {
            self.staff();
            if killed.elapsed() > KILL_EVERY {
                self.kill_something();
                killed = Instant::now();
            }
            assert!(started.elapsed() < limit, "{} wait still after {limit:?}", self.waiting());
            std::thread::sleep(Duration::from_millis(20));
        }
        // The last kill may have been that of the daemon.
        self.staff();
        self.until_nothing_is_in_hand(limit);
        for worker in &mut self.workers {
            worker.signal(Signal::TERM);
            assert!(worker.wait(Duration::from_secs(60)).is_some(), "a worker ends when it has nothing to do");
        }
        self.until_nothing_is_in_hand(limit);
    }

    /// # Panics
    /// In whose hands something still is after `limit`.
    fn until_nothing_is_in_hand(&mut self, limit: Duration) {
        let started = Instant::now();
        loop {
            let in_hand: Vec<(&str, usize)> = self.in_hand().into_iter().filter(|(_, count)| *count > 0).collect();
            if in_hand.is_empty() {
                return;
            }
            // One that was told to end may be done by now.
            self.workers.retain_mut(|worker| worker.ended().is_none());
            let running = self.workers.len();
            assert!(started.elapsed() < limit, "after {limit:?}: {in_hand:?}; {running} workers of Celery's live");
            if in_hand.iter().any(|(what, _)| *what == "unacked") {
                Python::on(&self.redis.url()).run(&RESTORE.replace("SECONDS", &VISIBILITY.to_string()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn staff(&mut self) {
        self.staff_workers();
        if self.daemon.is_none() {
            self.daemon = Some(self.home.start());
        }
    }

    fn staff_workers(&mut self) {
        self.workers.retain_mut(|worker| worker.ended().is_none());
        while self.workers.len() < WORKERS {
            self.named += 1;
            self.workers.push(worker(self.redis, self.acks, VISIBILITY, self.named));
        }
    }

    fn kill_something(&mut self) {
        // A small generator of our own: the same kills in every run.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match (self.dice >> 33) % 6 {
            0 | 1 => {
                self.daemon.take().expect("it runs").kill();
                self.kills.daemons += 1;
                let running: Vec<String> = self.redis.client().hkeys(self.jobs.key("active")).expect("Redis answers");
                self.in_hand_at_kills.extend(running);
            }
            2 | 3 => {
                let mut worker = self.workers.remove(0);
                let processes = children(worker.id());
                worker.kill();
                processes.into_iter().for_each(kill);
                self.kills.workers += 1;
            }
            4 => {
                if let Some(process) = children(self.workers[0].id()).first() {
                    kill(*process);
                    self.kills.processes += 1;
                }
            }
            _ => {
                self.workers[0].signal(Signal::TERM);
                self.kills.terms += 1;
            }
        }
    }

    fn waiting(&self) -> usize {
        self.redis.client().llen("conf").expect("Redis answers")
    }

    /// How much is where, before it is done and written down.
    fn in_hand(&mut self) -> Vec<(&'static str, usize)> {
        let mut redis = self.redis.client();
        let mut length = |key: &str| -> usize { redis.hlen(key).expect("Redis answers") };
        let theirs = [("unacked", length("unacked")), ("owed answers", length(&self.jobs.key("outbox")))];
        let ours = ["inflight", "pending", "retry", "active"].map(|what| (what, self.jobs.count(what)));
        std::iter::once(("waiting", self.waiting())).chain(theirs).chain(ours).collect()
    }
}

fn statuses(redis: &Redis, ids: &[String]) -> Vec<Option<String>> {
    let keys: Vec<String> = ids.iter().map(|id| format!("celery-task-meta-{id}")).collect();
    let found: Vec<Option<String>> = redis.client().mget(keys).expect("Redis answers");
    let status = |text: String| {
        let meta: Value = serde_json::from_str(&text).expect("results are JSON");
        meta["status"].as_str().expect("each has a status").to_owned()
    };
    found.into_iter().map(|text| text.map(status)).collect()
}

/// What a worker of Celery's has in hand, as it stands in Redis since `age` seconds.
fn leave_unacked(redis: &Redis, id: &str, message: &str, age: f64) {
    let mut client = redis.client();
    let (seconds, micros): (f64, f64) = redis::cmd("TIME").query(&mut client).expect("Redis answers");
    let entry = json!([serde_json::from_str::<Value>(message).expect("JSON"), "", "conf"]).to_string();
    client.hset::<_, _, _, ()>("unacked", id, entry).expect("Redis answers");
    client.zadd::<_, _, _, ()>("unacked_index", id, seconds + micros / 1e6 - age).expect("Redis answers");
}

#[test]
fn a_long_job_of_ours_is_not_taken_back_by_celerys_workers_nor_what_is_theirs_by_us() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let effects = folder.path().join("effects");
    let home = Home::new(&redis, &config(&effects));
    let daemon = home.start();
    let path = json!({ "path": effects.to_str().expect("UTF-8") });
    let mut client = redis.client();
    client.lpush::<_, _, ()>("conf", celery_message("beside.long", "ours", &path)).expect("Redis answers");
    let seen =
        |what: &str| fs::read_to_string(&effects).unwrap_or_default().lines().filter(|line| *line == what).count();
    until("jobsd to run the long job", || (seen("jobsd long") == 1).then_some(()));
    // A worker of Celery's has died and left one; another is at work on one, by its own visibility timeout.
    let mark = |n: u32| json!({ "n": n, "path": effects.to_str().expect("UTF-8") });
    leave_unacked(&redis, "left", &celery_message("beside.mark", "left", &mark(1)), 60.0);
    leave_unacked(&redis, "held", &celery_message("beside.mark", "held", &mark(2)), -3600.0);
    let mut worker = worker(&redis, Acks::Late, 1, 1);
    // A worker looks every ten seconds: by then the long job has run for longer than the visibility timeout.
    until_within(Duration::from_secs(60), "a living worker to take back what the dead one left", || {
        (seen("celery 1") + seen("jobsd 1") == 1).then_some(())
    });
    until("it to be acknowledged", || client.hkeys::<_, Vec<String>>("unacked").ok().filter(|held| held == &["held"]));
    assert_eq!((seen("jobsd long"), seen("celery long")), (1, 0), "it was not taken back");
    fs::write(home.path("open"), "").expect("it can be written");
    let mut jobs = Jobs::of(&redis, "conf");
    until("the long job to end", || (jobs.count("active") == 0).then_some(()));
    assert_eq!(statuses(&redis, &["ours".to_owned()]), [Some("SUCCESS".to_owned())]);
    worker.kill();
    drop(daemon);
    assert_eq!((seen("jobsd long"), seen("celery long"), seen("celery 1") + seen("jobsd 1")), (1, 0, 1), "once each");
    assert_eq!((seen("celery 2"), seen("jobsd 2")), (0, 0), "it is in a living worker's hands");
    let held: Vec<String> = client.zrange("unacked_index", 0, -1).expect("Redis answers");
    assert_eq!(held, ["held"]);
}
