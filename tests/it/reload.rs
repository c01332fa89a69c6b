//! SIGHUP: queues come, go and change their size without touching what runs; a bad file changes nothing and says so.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::bench::{Daemon, Home, Jobs, Redis, get, push, until};

/// A task for the queue: it waits until the file `open` is there.
fn task(queue: &str) -> String {
    format!(
        "[tasks.{queue}]\nnames = [\"app.{queue}\"]\nqueue = \"{queue}\"\n\
         exec = {{ program = \"/bin/sh\", args = [\"-c\", 'echo begun >> {queue}.begun; until [ -e open ]; do sleep 0.1; done; echo done >> {queue}.done'] }}\n"
    )
}

fn queue(name: &str, concurrency: usize) -> String {
    format!("[queues.{name}]\nwires = [\"celery\"]\nconcurrency = {concurrency}\n{}", task(name))
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[track_caller]
fn reload(daemon: &mut Daemon) {
    let before = daemon.log().matches("reloaded: ").count();
    daemon.reload();
    until("the reload", || (daemon.log().matches("reloaded: ").count() > before).then_some(()));
}

#[test]
fn queues_are_added_removed_and_resized_around_running_jobs() {
    let redis = Redis::start();
    let home = Home::new(&redis, &[queue("stays", 1), queue("goes", 1)].concat());
    let mut daemon = home.start();
    let mut client = redis.client();
    let first = push(&mut client, "stays", "app.stays", &json!({}));
    let second = push(&mut client, "stays", "app.stays", &json!({}));
    let leaving = push(&mut client, "goes", "app.goes", &json!({}));
    until("both queues to work", || {
        (lines(&home.path("stays.begun")) == 1 && lines(&home.path("goes.begun")) == 1).then_some(())
    });

    home.rewrite(&redis.url(), &[queue("stays", 2), queue("comes", 1)].concat());
    reload(&mut daemon);
    // The second place is used at once, while the first job still runs.
    until("the resized queue to run two", || (lines(&home.path("stays.begun")) == 2).then_some(()));
    let come = push(&mut client, "comes", "app.comes", &json!({}));
    until("the new queue to work", || (lines(&home.path("comes.begun")) == 1).then_some(()));
    let ignored = push(&mut client, "goes", "app.goes", &json!({}));

    // Smaller than what runs: nobody is stopped for that.
    home.rewrite(&redis.url(), &[queue("stays", 1), queue("comes", 1)].concat());
    reload(&mut daemon);
    let third = push(&mut client, "stays", "app.stays", &json!({}));
    assert_eq!(Jobs::of(&redis, "stays").count("active"), 2);

    fs::write(home.path("open"), "").expect("it can be written");
    for id in [&first, &second, &third] {
        Jobs::of(&redis, "stays").ended(id, "completed");
    }
    Jobs::of(&redis, "comes").ended(&come, "completed");
    let history = Jobs::of(&redis, "goes").ended(&leaving, "completed");
    assert_eq!(history["interruptions"], json!(null), "its job ran to its end: {history:#}");
    assert_eq!(lines(&home.path("stays.begun")), 3, "no job began twice");
    assert_eq!(lines(&home.path("goes.begun")), 1);
    assert_eq!(Jobs::of(&redis, "goes").history(&ignored), None, "nobody reads the list of a removed queue");
    daemon.assert_alive();

    home.rewrite(&redis.url(), &[queue("stays", 1), queue("goes", 1)].concat());
    reload(&mut daemon);
    Jobs::of(&redis, "goes").ended(&ignored, "completed");
    assert!(daemon.stop().success());
}

#[test]
fn a_bad_file_changes_nothing_and_says_so() {
    let redis = Redis::start();
    let config = queue("stays", 1);
    let home = Home::new(&redis, &config);
    let mut daemon = home.start();
    let mut client = redis.client();
    let running = push(&mut client, "stays", "app.stays", &json!({}));
    until("the job to run", || (lines(&home.path("stays.begun")) == 1).then_some(()));

    home.rewrite(&redis.url(), &config.replace("concurrency = 1", "concurency = 2"));
    daemon.reload();
    daemon.wait_for_log("nothing was changed");
    let log = daemon.log();
    assert!(log.contains("unknown key `concurency`") && log.contains("did you mean"), "{log}");
    assert_eq!(get(daemon.admin, "/readyz").status, 200);

    // A place that can be bound only by a restart, or a file that is gone, are no reason to stop either.
    fs::remove_file(home.config()).expect("it is there");
    daemon.reload();
    until("the second refusal", || (daemon.log().matches("nothing was changed").count() == 2).then_some(()));

    fs::write(home.path("open"), "").expect("it can be written");
    let mut jobs = Jobs::of(&redis, "stays");
    jobs.ended(&running, "completed");
    let next = push(&mut client, "stays", "app.stays", &json!({}));
    jobs.ended(&next, "completed");
    home.rewrite(&redis.url(), &config.replace("concurrency = 1", "concurrency = 2"));
    reload(&mut daemon);
    assert!(daemon.stop().success());
}

#[test]
fn what_is_set_by_hand_holds_until_the_next_reload() {
    let redis = Redis::start();
    let config = queue("stays", 1);
    let home = Home::new(&redis, &config);
    let mut daemon = home.start();
    let mut client = redis.client();
    let ids: Vec<String> = (0..4).map(|_| push(&mut client, "stays", "app.stays", &json!({}))).collect();
    until("one to run", || (lines(&home.path("stays.begun")) == 1).then_some(()));

    let said = home.type_to(&daemon, &["scale", "stays", "3", "--reason", "a burst"]).well().out;
    assert!(said.contains("until its next reload or restart; the configuration says 1"), "{said}");
    until("three to run, at once", || (lines(&home.path("stays.begun")) == 3).then_some(()));
    let why = until("one of them to wait for a slot", || {
        let said = ids.iter().map(|id| home.type_to(&daemon, &["why", id]).well().out);
        said.into_iter().find(|why| why.starts_with("waiting"))
    });
    assert!(why.contains("3 of 3 slots of the queue stays") && why.contains("was set to 3 by ann: a burst"), "{why}");
    assert!(daemon.log().contains("concurrency set from 1 to 3 by ann: a burst"), "{}", daemon.log());
    let queues = home.type_to(&daemon, &["queues"]).well().out;
    assert!(queues.contains("3, set") && queues.contains("slots set by ann: a burst"), "{queues}");
    let refused = home.type_to(&daemon, &["scale", "stays", "0"]);
    assert!(refused.code == 1 && refused.err.contains("must be a whole number from 1 to 10000"), "{refused:?}");
    assert_eq!(home.type_to(&daemon, &["scale", "stays", "some"]).code, 2);

    // A file that is refused leaves it as it is, one that is taken does not.
    home.rewrite(&redis.url(), &config.replace("concurrency = 1", "concurency = 2"));
    daemon.reload();
    daemon.wait_for_log("nothing was changed");
    assert_eq!(get(daemon.admin, "/api/v1/queues/stays").json()["queue"]["concurrency"], 3);
    home.rewrite(&redis.url(), &config);
    reload(&mut daemon);
    assert!(daemon.log().contains("no longer set by hand: stays (it was 3)"), "{}", daemon.log());
    let row = get(daemon.admin, "/api/v1/queues/stays").json()["queue"].take();
    assert_eq!((&row["concurrency"], row.get("override")), (&json!(1), None), "{row:#}");
    assert_eq!(Jobs::of(&redis, "stays").count("active"), 3, "running jobs are not touched");

    // A range follows the load.
    let said = home.type_to(&daemon, &["scale", "stays", "2-4"]).well().out;
    assert!(said.starts_with("stays has 2 to 4 slots on "), "{said}");
    let row = until("it to grow", || {
        let row = get(daemon.admin, "/api/v1/queues/stays").json()["queue"].take();
        (row["scale"]["size"] == 4).then_some(row)
    });
    assert_eq!((&row["scale"]["min"], &row["override"]["concurrency"]), (&json!(2), &json!({"min": 2, "max": 4})));
    assert!(daemon.log().contains("set to 2 to 4 by ann"), "a step says why: {}", daemon.log());
    until("the last one to run", || (lines(&home.path("stays.begun")) == 4).then_some(()));
    let said = home.type_to(&daemon, &["scale", "stays", "--reset"]).well().out;
    assert!(said.starts_with("stays has 1 slots on ") && said.contains("as the configuration says"), "{said}");
    fs::write(home.path("open"), "").expect("it can be written");
    ids.iter().for_each(|id| drop(Jobs::of(&redis, "stays").ended(id, "completed")));
    assert!(daemon.stop().success());
}
