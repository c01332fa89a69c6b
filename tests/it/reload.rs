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
