//! The walk through a task's steps, with the probe handler and SQLite doing the work.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::config::{Param, ProbeOp, ProbeStep, SqlStep};
use crate::job::Retryable;
use crate::testing::attempt::{self, failure};
use crate::testing::fixture;

fn probe(op: ProbeOp) -> Step {
    Step::Probe(ProbeStep { op })
}

fn sql(statement: &str) -> Step {
    Step::Sql(SqlStep { statements: vec![fixture::statement(statement)], values: Vec::new() })
}

struct World {
    _dir: tempfile::TempDir,
    handlers: Handlers,
}

fn world() -> World {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = Handlers::new(&fixture::config(dir.path())).expect("the handlers are built");
    World { _dir: dir, handlers }
}

async fn perform(world: &World, task: &Task, args: Value, steps: &Steps) -> Outcome {
    let job = fixture::job(args);
    let attempt = Attempt { attempt: 2, steps: steps.clone(), ..attempt::first(&job, task) };
    world.handlers.perform(&attempt).await
}

#[tokio::test]
async fn the_result_sees_arguments_vars_steps_and_the_job() {
    let world = world();
    let mut task = fixture::task(vec![probe(ProbeOp::Echo), probe(ProbeOp::Noop)]);
    task.params = vec![Param { default: json!(7), required: false, ..fixture::param("count") }];
    task.result = Some(fixture::value(json!({
        "name": "{{ name }}",
        "count": "{{ count }}",
        "echo": "{{ steps[0].args.name }}",
        "nothing": "{{ steps[1] }}",
        "url": "{{ vars.base_url }}/x",
        "job": "{{ job.id }}/{{ job.queue }}/{{ job.attempt }}",
        "dated": "{{ now is string }}",
    })));
    let outcome = perform(&world, &task, json!({"name": "Ann"}), &Steps::default()).await;
    let expected = json!({
        "name": "Ann",
        "count": 7,
        "echo": "Ann",
        "nothing": null,
        "url": "https://hireme.test/x",
        "job": format!("{}/emails/2", fixture::JOB_ID),
        "dated": true,
    });
    assert_eq!(outcome, Outcome::Success(expected));
}

#[tokio::test]
async fn a_retry_goes_on_behind_the_finished_steps() {
    let world = world();
    let insert = "INSERT INTO notifications (user_id, notification_type, content) VALUES (:user_id, 'x', 'y')";
    let mut task =
        fixture::task(vec![sql(insert), probe(ProbeOp::Fail), sql("SELECT count(*) AS n FROM notifications")]);
    let steps = Steps::default();
    let failed = failure(perform(&world, &task, json!({"user_id": 1}), &steps).await);
    assert_eq!(steps.results(), [json!({"affected": 1, "rows": []})]);
    assert_eq!((failed.kind.as_str(), failed.retry), ("ProbeFailure", Retryable::ByPolicy));

    task.steps[1] = probe(ProbeOp::Noop);
    let outcome = perform(&world, &task, json!({"user_id": 1}), &steps).await;
    assert_eq!(outcome, Outcome::Success(json!({"affected": 1, "rows": [{"n": 1}]})), "one row: the insert ran once");
}

#[tokio::test]
async fn what_is_done_stays_done_when_the_attempt_is_stopped() {
    let world = world();
    let insert = "INSERT INTO notifications (user_id, notification_type, content) VALUES (:user_id, 'x', 'y')";
    let task = fixture::task(vec![sql(insert), probe(ProbeOp::Sleep)]);
    let steps = Steps::default();
    let attempt = perform(&world, &task, json!({"user_id": 1, "seconds": 3600}), &steps);
    tokio::select! {
        outcome = attempt => panic!("it sleeps: {outcome:?}"),
        () = crate::testing::wait::until("the first step is done", || (steps.results().len() == 1).then_some(())) => {}
    }
    assert_eq!(steps.results(), [json!({"affected": 1, "rows": []})]);
}

/// Each finished step but the last, whose settle follows at once. It used to be stored by the settle alone, so that a
/// daemon that died in the second step did the first one again.
#[tokio::test]
async fn a_finished_step_is_stored_before_the_next_one_begins() {
    let world = world();
    let count = "SELECT count(*) AS n FROM notifications";
    let insert = "INSERT INTO notifications (user_id, notification_type, content) VALUES (:user_id, 'x', 'y')";
    let task = fixture::task(vec![sql(insert), sql(count), sql(insert)]);
    let stored: Arc<Mutex<Vec<Done>>> = Arc::default();
    let store = Arc::clone(&stored);
    let keep: Keep = Arc::new(move |done| {
        store.lock().expect("no panic with the lock").push(done);
        Box::pin(async { Ok(()) })
    });
    perform(&world, &task, json!({"user_id": 1}), &Steps::new(Done::default(), Some(keep))).await;
    let first = json!({"affected": 1, "rows": []});
    let second = json!({"affected": 1, "rows": [{"n": 1}]});
    let done =
        |steps: &[&Value]| Done { steps: steps.iter().map(|&step| step.clone()).collect(), partial: Value::Null };
    assert_eq!(*stored.lock().expect("no panic"), [done(&[&first]), done(&[&first, &second])]);
}

#[tokio::test]
async fn an_attempt_whose_lease_was_lost_does_no_further_step() {
    let world = world();
    let insert = "INSERT INTO notifications (user_id, notification_type, content) VALUES (:user_id, 'x', 'y')";
    let task = fixture::task(vec![probe(ProbeOp::Noop), sql(insert)]);
    let lost: Keep = Arc::new(|_| Box::pin(async { Err(LeaseLost) }));
    let outcome = perform(&world, &task, json!({"user_id": 1}), &Steps::new(Done::default(), Some(lost))).await;
    assert!(matches!(outcome, Outcome::Interrupted { .. }), "{outcome:?}");
    let count = fixture::task(vec![sql("SELECT count(*) AS n FROM notifications")]);
    let outcome = perform(&world, &count, Value::Null, &Steps::default()).await;
    assert_eq!(outcome, Outcome::Success(json!({"affected": 1, "rows": [{"n": 0}]})));
}

#[tokio::test]
async fn a_job_whose_steps_are_all_done_only_renders_its_result() {
    let world = world();
    let task = fixture::task(vec![probe(ProbeOp::Fail)]);
    let outcome = perform(
        &world,
        &task,
        Value::Null,
        &Steps::new(Done { steps: vec![json!("done before")], partial: Value::Null }, None),
    )
    .await;
    assert_eq!(outcome, Outcome::Success(json!("done before")));
}

#[tokio::test]
async fn the_probe_fails_as_it_is_told() {
    let world = world();
    let task = fixture::task(vec![probe(ProbeOp::Fail)]);
    let args = json!({"message": "no luck", "kind": "Misfortune", "retry": false});
    let failed = failure(perform(&world, &task, args, &Steps::default()).await);
    assert_eq!(failed, Failure::never("Misfortune", "no luck"));
    let failed = failure(
        perform(&world, &fixture::task(vec![probe(ProbeOp::Sleep)]), json!({"seconds": -1}), &Steps::default()).await,
    );
    assert_eq!((failed.kind.as_str(), failed.retry), ("BadArguments", Retryable::Never));
}

#[tokio::test]
async fn a_secret_argument_never_stands_in_a_failure() {
    let world = world();
    let mut task = fixture::task(vec![probe(ProbeOp::Fail)]);
    task.params = vec![Param { secret: true, ..fixture::param("token") }, fixture::param("message")];
    for echoed in ["s3cr3t/+t0k3n", "s3cr3t%2f%2Bt0k3n", "s3cr3t\\/+t0k3n", "s3cr3t/&#43;t0k3n"] {
        let args = json!({"token": "s3cr3t/+t0k3n", "message": format!("the server said: {echoed} is unknown")});
        let failed = failure(perform(&world, &task, args, &Steps::default()).await);
        assert_eq!(failed.message, "the server said: *** is unknown");
    }
    let echo = fixture::task(vec![probe(ProbeOp::Echo)]);
    let outcome = perform(&world, &echo, json!({"token": "s3cr3t"}), &Steps::default()).await;
    let as_it_is = json!({"args": {"token": "s3cr3t"}});
    assert_eq!(outcome, Outcome::Success(as_it_is), "the result is for its producer, who knows the secret");
}

#[tokio::test]
async fn a_result_that_cannot_be_rendered_is_final() {
    let world = world();
    let mut task = fixture::task(vec![probe(ProbeOp::Noop)]);
    task.result = Some(fixture::value(json!("{{ nobody.knows }}")));
    let failed = failure(perform(&world, &task, Value::Null, &Steps::default()).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("TemplateError", Retryable::Never));
}

#[tokio::test]
async fn a_snooze_keeps_the_finished_steps_and_no_secret() {
    let world = world();
    let mut task = fixture::task(vec![probe(ProbeOp::Noop), probe(ProbeOp::Snooze), probe(ProbeOp::Crash)]);
    task.params = vec![Param { secret: true, ..fixture::param("token") }];
    let steps = Steps::default();
    let args = json!({"seconds": 1.5, "reason": "t0k3n-t0k3n is not known yet", "token": "t0k3n-t0k3n"});
    let outcome = perform(&world, &task, args, &steps).await;
    let delay = Some(Duration::from_millis(1500));
    assert_eq!(outcome, Outcome::Snoozed { delay, reason: "*** is not known yet".into() });
    let wrong = failure(perform(&world, &task, json!({"seconds": -1}), &steps).await);
    assert_eq!(wrong.kind, "BadArguments");
    assert_eq!(steps.results(), [Value::Null]);
}
