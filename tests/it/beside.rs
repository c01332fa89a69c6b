//! RQ's own workers beside jobsd on one queue, all of them killed at random: every job ends, and none is done twice but
//! by a kill in the middle of it.
//!
//! `JOBSD_BESIDE=10000` makes as many jobs as a move of a busy application would see; a test run has some hundreds.

mod celery;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use redis::Commands;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bench::{Child, Daemon, Home, Python, Redis, until_within};
use crate::conformance::worker;

const WORKERS: usize = 2;
/// A kill of something, this often.
const KILL_EVERY: Duration = Duration::from_millis(700);

fn config(effects: &Path) -> String {
    format!(
        "[queues.conf]\nwires = [\"rq\"]\nconcurrency = 2\nretry = false\ncrash_limit = 100\n\
         [tasks.mark]\nnames = [\"conformance_tasks.mark\"]\nqueue = \"conf\"\n\
         params = {{ n = \"int\", path = \"string\" }}\n\
         [tasks.mark.exec]\nprogram = \"/bin/sh\"\n\
         args = [\"-c\", 'echo \"jobsd $1\" >> \"{}\"; sleep 0.02', \"mark\", \"{{{{ n }}}}\"]\n",
        effects.display(),
    )
}

const ENQUEUE: &str = r#"
import json, os
from redis import Redis
from rq import Queue
queue = Queue("conf", connection=Redis.from_url(os.environ["REDIS_URL"]))
jobs = queue.enqueue_many([
    Queue.prepare_data("conformance_tasks.mark", args=(n, EFFECTS), timeout=5, result_ttl=86400) for n in range(COUNT)
])
print(json.dumps([job.id for job in jobs]))
"#;

#[test]
fn rqs_own_workers_beside_jobsd_lose_nothing() {
    let count = count_of_jobs(200);
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let effects = folder.path().join("effects");
    let home = Home::new(&redis, &config(&effects));
    let program = ENQUEUE.replace("COUNT", &count.to_string()).replace("EFFECTS", &format!("{:?}", effects.display()));
    let ids: Vec<String> = serde_json::from_value::<Vec<Value>>(Python::on(&redis.url()).run(&program).remove(0))
        .expect("a list")
        .iter()
        .map(|id| id.as_str().expect("an id").to_owned())
        .collect();
    let mut field = Field { redis: &redis, home: &home, workers: Vec::new(), daemon: None, kills: [0; 3], dice: 1 };
    field.until_worked_off(&ids);
    let statuses = statuses(&redis, &ids);
    let runs = by_task(&effects, &["rq", "jobsd"]);
    let doubled = runs.values().filter(|runs| runs.len() > 1).count();
    let by = |who: &str| runs.values().filter(|runs| runs.iter().any(|by| by == who)).count();
    let [daemons, workers, horses] = field.kills;
    println!(
        "{count} jobs: {statuses:?}, {} done by RQ's workers, {} by jobsd, {doubled} done twice; \
         killed: {daemons} × jobsd, {workers} × rq worker, {horses} × its work-horse",
        by("rq"),
        by("jobsd"),
    );
    let finished = statuses.get("finished").copied().unwrap_or(0);
    let failed = statuses.get("failed").copied().unwrap_or(0);
    assert_eq!(finished + failed, count, "every job has ended");
    assert!(by("rq") > 0 && by("jobsd") > 0, "both have worked");
    // A job that failed was in the hands of a worker or a work-horse of RQ's that was killed.
    assert!(failed <= workers + horses, "{failed} have failed");
    assert!(doubled <= 2 * daemons + workers + horses, "{doubled} were done twice");
    let done = runs.len();
    assert!(done >= finished, "{finished} are finished and {done} were done");
}

struct Field<'a> {
    redis: &'a Redis,
    home: &'a Home,
    workers: Vec<Child>,
    daemon: Option<Daemon>,
    /// Of daemons, of RQ's workers, of their work-horses.
    kills: [usize; 3],
    dice: u64,
}

impl Field<'_> {
    fn until_worked_off(&mut self, ids: &[String]) {
        let started = Instant::now();
        let mut killed = Instant::now();
        let limit =
            Duration::from_secs(120) + Duration::from_millis(40) * u32::try_from(ids.len()).expect("not so many");
        loop {
            self.staff();
            if killed.elapsed() > KILL_EVERY {
                self.kill_something();
                killed = Instant::now();
            }
            let left = waiting(self.redis);
            if left == 0 {
                break;
            }
            assert!(started.elapsed() < limit, "{left} jobs wait still after {limit:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.staff();
        until_within(Duration::from_secs(300), "every job to have ended", || {
            self.age();
            let ended =
                statuses(self.redis, ids).into_iter().filter(|(status, _)| status == "finished" || status == "failed");
            (ended.map(|(_, count)| count).sum::<usize>() == ids.len()).then_some(())
        });
    }

    fn staff(&mut self) {
        while self.workers.len() < WORKERS {
            self.workers.push(worker(self.redis, &["conf"]));
        }
        if self.daemon.is_none() {
            self.daemon = Some(self.home.start());
        }
    }

    fn kill_something(&mut self) {
        // A small generator of our own: the same kills in every run.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match (self.dice >> 33) % 5 {
            0 => {
                self.daemon.take().expect("it runs").kill();
                self.kills[0] += 1;
            }
            1 | 2 => {
                let mut worker = self.workers.remove(0);
                let horses = children(worker.id());
                worker.kill();
                horses.into_iter().for_each(kill);
                self.kills[1] += 1;
            }
            _ => {
                let horses = children(self.workers[0].id());
                self.kills[2] += horses.len();
                horses.into_iter().for_each(kill);
            }
        }
    }

    /// What dead workers of RQ's have left is theirs for up to a minute and a half; nobody needs to wait for that here.
    fn age(&self) {
        let mut client = self.redis.client();
        let running: Vec<String> = client.zrange("rq:wip:conf", 0, -1).expect("Redis answers");
        let alive: Vec<String> = client.smembers("rq:workers").expect("Redis answers");
        let busy: Vec<Option<String>> =
            alive.iter().map(|key| client.hget(key, "current_job").expect("Redis answers")).collect();
        for member in running.iter().filter(|member| !member.ends_with(":jobsd")) {
            let id = member.split(':').next().expect("an id").to_owned();
            let worker: Option<String> = client.hget(format!("rq:job:{id}"), "worker_name").expect("Redis answers");
            let pid: Option<u32> = worker.and_then(|name| client.hget(format!("rq:worker:{name}"), "pid").ok());
            if !busy.contains(&Some(id)) || pid.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                client.zadd::<_, _, _, ()>("rq:wip:conf", member, 1).expect("Redis answers");
            }
        }
        let seen: Vec<String> = client.keys("rq:queue:conf:intermediate:first_seen:*").expect("Redis answers");
        for key in seen {
            client.set::<_, _, ()>(key, "1").expect("Redis answers");
        }
    }
}

fn count_of_jobs(usual: usize) -> usize {
    std::env::var("JOBSD_BESIDE").map_or(usual, |text| text.parse().expect("a number of jobs"))
}

fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn waiting(redis: &Redis) -> usize {
    redis.client().llen("rq:queue:conf").expect("Redis answers")
}

fn statuses(redis: &Redis, ids: &[String]) -> BTreeMap<String, usize> {
    let mut pipeline = redis::pipe();
    for id in ids {
        pipeline.hget(format!("rq:job:{id}"), "status");
    }
    let found: Vec<Option<String>> = pipeline.query(&mut redis.client()).expect("Redis answers");
    let mut counts = BTreeMap::new();
    for status in found {
        *counts.entry(status.unwrap_or_else(|| "lost".to_owned())).or_default() += 1;
    }
    counts
}

/// Who has said each of these words of a task, by its number: `WORD NUMBER` are the lines.
fn by_task(effects: &Path, words: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(effects).unwrap_or_default().lines() {
        if let Some((word, n)) = line.split_once(' ').filter(|(word, _)| words.contains(word)) {
            found.entry(n.to_owned()).or_default().push(word.to_owned());
        }
    }
    found
}
