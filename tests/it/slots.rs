//! `[node] concurrency`: what queues share, in which order they get it, and that a reload touches nothing that runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, post, push, until};

/// A queue whose jobs sleep.
fn sleepers(name: &str, settings: &str) -> String {
    format!(
        "[queues.{name}]\n{settings}\n[tasks.{name}]\nnames = [\"app.{name}\"]\nqueue = \"{name}\"\n\
         params = {{ seconds = \"number\" }}\nprobe = \"sleep\"\n"
    )
}

/// A queue whose jobs tell that they have begun, and run until their file is there.
fn gated(name: &str, settings: &str) -> String {
    format!(
        "[queues.{name}]\n{settings}\n[tasks.{name}]\nnames = [\"app.{name}\"]\nqueue = \"{name}\"\nparams = {{ n = \"any\" }}\n\
         exec = {{ program = \"/bin/sh\", args = [\"-c\", 'echo $1 >> begun; until [ -e open-$1 ]; do sleep 0.1; done', \"x\", \"{{{{ n }}}}\"] }}\n"
    )
}

fn open(home: &Home, n: usize) {
    std::fs::write(home.path(&format!("open-{n}")), "").expect("it can be written");
}

fn begun(home: &Home) -> usize {
    std::fs::read_to_string(home.path("begun")).unwrap_or_default().lines().count()
}

fn metric(daemon: &Daemon, name: &str) -> usize {
    let metrics = get(daemon.admin, "/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[track_caller]
fn enqueue(daemon: &Daemon, task: &str, count: usize, args: &Value) {
    let jobs: Vec<Value> = (0..count).map(|_| json!({"task": task, "args": args})).collect();
    let answer = post(daemon.admin, "/api/v1/jobs", &json!(jobs));
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

fn reload(home: &Home, redis: &Redis, daemon: &Daemon, config: &str) {
    home.rewrite(&redis.url(), config);
    let before = daemon.log().matches("reloaded: ").count();
    daemon.reload();
    until("the reload", || (daemon.log().matches("reloaded: ").count() > before).then_some(()));
}

/// When the last job of the queue had ended.
fn last_end(redis: &Redis, queue: &str) -> f64 {
    let key = Jobs::of(redis, queue).key("completed");
    let last: Vec<(String, f64)> = redis.client().zrange_withscores(key, -1, -1).expect("Redis answers");
    last.first().expect("it has completed jobs").1
}

fn ended_by(redis: &Redis, queue: &str, time: f64) -> usize {
    redis.client().zcount(Jobs::of(redis, queue).key("completed"), "-inf", time).expect("Redis answers")
}

#[test]
fn by_weight_queues_run_in_proportion() {
    const HEAVY: usize = 600;
    let redis = Redis::start();
    let config = [
        "node.concurrency = 4\n".to_owned(),
        gated("gate", "concurrency = 4"),
        sleepers("heavy", "concurrency = 8\nweight = 6"),
        sleepers("middle", "concurrency = 8\nweight = 3\nwires = [\"celery\"]"),
        sleepers("light", "concurrency = 8\nweight = 1"),
    ]
    .concat();
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    // The gate holds every slot until everyone has a backlog.
    enqueue(&daemon, "gate", 4, &json!({"n": 0}));
    until("the gate to hold all slots", || (begun(&home) == 4).then_some(()));
    let (seconds, mut client) = (json!({"seconds": 0.02}), redis.client());
    for _ in 0..HEAVY {
        push(&mut client, "middle", "app.middle", &seconds);
    }
    enqueue(&daemon, "heavy", HEAVY, &seconds);
    enqueue(&daemon, "light", HEAVY, &seconds);
    assert_eq!(metric(&daemon, "jobsd_node_slots"), 4);
    open(&home, 0);
    let mut most = 0;
    until("the heavy queue to be done", || {
        most = most.max(metric(&daemon, "jobsd_node_running"));
        (Jobs::of(&redis, "heavy").count("completed") == HEAVY).then_some(())
    });
    let end = last_end(&redis, "heavy");
    let (middle, light) = (ended_by(&redis, "middle", end), ended_by(&redis, "light", end));
    println!("6 : 3 : 1 gave {HEAVY} : {middle} : {light}, at most {most} at once");
    assert!(light.abs_diff(HEAVY / 6) <= 20, "the light queue ran {light}");
    // Its messages come from a foreign list, which takes a moment: a busy machine may cost it some turns.
    assert!((200..=330).contains(&middle), "the Celery queue ran {middle}");
    assert!((1..=4).contains(&most), "{most} ran at once");
}

#[test]
fn strictly_the_heavy_queue_comes_first_and_the_light_one_does_not_starve() {
    let redis = Redis::start();
    let config = [
        "node.concurrency = 2\nnode.order = \"strict\"\nnode.starve_after = \"1s\"\n".to_owned(),
        gated("gate", "weight = 100"),
        sleepers("heavy", "weight = 10"),
        sleepers("light", "weight = 9"),
    ]
    .concat();
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    enqueue(&daemon, "gate", 2, &json!({"n": 0}));
    until("the gate to hold all slots", || (begun(&home) == 2).then_some(()));
    enqueue(&daemon, "heavy", 400, &json!({"seconds": 0.02}));
    let asked = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    enqueue(&daemon, "light", 1, &json!({"seconds": 0}));
    open(&home, 0);
    Jobs::of(&redis, "light").until("completed", 1);
    Jobs::of(&redis, "heavy").until("completed", 400);
    let (light, heavy) = (last_end(&redis, "light") / 1000.0, last_end(&redis, "heavy") / 1000.0);
    println!("the light job ended after {:.2} s, the heavy ones after {:.2} s", light - asked, heavy - asked);
    assert!(light - asked >= 0.95, "it went before heavier ones after {} s", light - asked);
    assert!(light < heavy, "it had to wait for all heavier ones");
}

#[test]
fn a_queue_without_slots_leaves_its_messages_where_they_are() {
    let redis = Redis::start();
    let queue = |name| gated(name, "wires = [\"celery\"]");
    let home = Home::new(&redis, &["node.concurrency = 2\n".to_owned(), queue("a"), queue("b")].concat());
    let mut client = redis.client();
    for list in ["a", "b"].repeat(20) {
        push(&mut client, list, &format!("app.{list}"), &json!({"n": 0}));
    }
    let daemon = home.start();
    until("two to run", || (begun(&home) == 2).then_some(()));
    let waiting = |client: &mut redis::Connection| -> usize {
        ["a", "b"].iter().map(|list| client.llen::<_, usize>(list).expect("Redis answers")).sum()
    };
    let commands = |client: &mut redis::Connection| -> u64 {
        let stats: String = redis::cmd("INFO").arg("stats").query(client).expect("Redis answers");
        let count = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        count.and_then(|count| count.trim().parse().ok()).expect("a number")
    };
    // Longer than any wake-up of the daemon: whoever takes too much has done so by now.
    std::thread::sleep(Duration::from_secs(1));
    let (before, awake) = (commands(&mut client), daemon.cpu());
    std::thread::sleep(Duration::from_secs(3));
    let (sent, awake) = (commands(&mut client) - before, daemon.cpu() - awake);
    assert_eq!((begun(&home), metric(&daemon, "jobsd_node_running")), (2, 2));
    let left = waiting(&mut client);
    println!("{left} of 40 messages remain in their lists while 2 run; {sent} commands and {awake:?} in 3 s");
    // Besides those that run, two for each queue; the first queue there is may take the whole node to be its own.
    assert!(left >= 32, "{left} are still where their producers see them");
    assert!(sent < 300, "waiting for a slot took {sent} commands in 3 s");
    assert!(awake < Duration::from_secs(1), "waiting for a slot took {awake:?} in 3 s");
    open(&home, 0);
    for name in ["a", "b"] {
        Jobs::of(&redis, name).until("completed", 20);
    }
}

#[test]
fn another_bound_touches_nothing_that_runs() {
    let redis = Redis::start();
    let config = |node: &str| [node.to_owned(), gated("a", "concurrency = 5"), gated("b", "concurrency = 5")].concat();
    let home = Home::new(&redis, &config(""));
    let mut daemon = home.start();
    for n in 0..4 {
        enqueue(&daemon, "a", 1, &json!({ "n": n }));
        enqueue(&daemon, "b", 1, &json!({ "n": n }));
    }
    until("all to run where there is no bound", || (begun(&home) == 8).then_some(()));
    assert_eq!(metric(&daemon, "jobsd_node_slots"), 10, "those of both queues");

    reload(&home, &redis, &daemon, &config("node.concurrency = 3\n"));
    assert_eq!((metric(&daemon, "jobsd_node_slots"), metric(&daemon, "jobsd_node_running")), (3, 8));
    for n in 4..7 {
        enqueue(&daemon, "a", 1, &json!({ "n": n }));
        enqueue(&daemon, "b", 1, &json!({ "n": n }));
    }
    // Two end by each file: 8, 6, 4 run, and nobody may begin.
    for (n, left) in [(0, 6), (1, 4)] {
        open(&home, n);
        until("two of the surplus to end", || (metric(&daemon, "jobsd_node_running") == left).then_some(()));
    }
    assert_eq!(begun(&home), 8, "more ran than the bound says, so nothing began");
    open(&home, 2);
    until("the first of the new ones to begin", || (begun(&home) == 9).then_some(()));
    assert_eq!(metric(&daemon, "jobsd_node_running"), 3);

    reload(&home, &redis, &daemon, &config("node.concurrency = 5\n"));
    until("the higher bound to be used", || (begun(&home) == 11).then_some(()));
    reload(&home, &redis, &daemon, &config(""));
    until("all to run again", || (begun(&home) == 14).then_some(()));
    (3..7).for_each(|n| open(&home, n));
    for name in ["a", "b"] {
        Jobs::of(&redis, name).until("completed", 7);
    }
    daemon.assert_alive();
    assert_eq!(begun(&home), 14, "no job began twice");
    assert!(daemon.stop().success());
}
