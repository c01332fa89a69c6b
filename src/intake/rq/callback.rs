//! `on_success`, `on_failure` and `on_stopped` of RQ's jobs: a callback is a task of the configuration, by the name of the
//! producer's function, and runs as a job of its own when the job has ended.
//!
//! RQ hands its callbacks Python objects; a task gets by name those of the values below that it declares.

use serde_json::{Map, Value, json};

use super::follow_up::follow_up;
use super::job::Options;
use crate::broker::{OwedJob, RqSay};
use crate::config::{Config, bind};
use crate::job::{Job, Timestamp};

/// Where the names stand in the note of a job.
const FIELDS: [&str; 3] = ["on_success", "on_failure", "on_stopped"];

/// Adds the callbacks of a job to its note.
///
/// # Errors
/// The reason why the job is refused: a callback that no task of the configuration performs.
pub(crate) fn note(options: &Options, config: &Config, note: &mut Value) -> Result<(), String> {
    let callbacks = [&options.on_success, &options.on_failure, &options.on_stopped];
    for (field, callback) in FIELDS.into_iter().zip(callbacks) {
        let Some(func_name) = callback else { continue };
        if config.task_named(func_name).is_none() {
            return Err(format!(
                "the job's {field} is {func_name}, and no task of this configuration has that name; declare it in \
                 jobsd.toml, or enqueue the job without {field}"
            ));
        }
        note[field] = func_name.as_str().into();
    }
    Ok(())
}

/// The callback that is due now, as a job of its own.
pub(crate) fn due(owed: &OwedJob, note: &Value, say: RqSay, config: &Config, now: Timestamp) -> Option<Job> {
    let field = match say {
        RqSay::Finished => FIELDS[0],
        RqSay::Failed => FIELDS[1],
        RqSay::Stopped => FIELDS[2],
        RqSay::Canceled(_) | RqSay::Retry { .. } => return None,
    };
    let name = note.get(field)?.as_str()?;
    let (queue, job) = (&owed.job.queue, &owed.job.id);
    let Some(task) = config.task_named(name) else {
        tracing::error!(%queue, %job, "its {field}, {name}, is not run: the task is not in the configuration any more");
        return None;
    };
    let declared = |name: &str| task.params.iter().any(|param| param.name == name);
    let args: Map<String, Value> = values(owed).into_iter().filter(|(name, _)| declared(name)).collect();
    let args = match bind(task, &[], args) {
        Ok(args) => args,
        Err(error) => {
            tracing::error!(%queue, %job, "its {field}, {name}, is not run: {error}");
            return None;
        }
    };
    Some(follow_up(owed, field, (&task.queue, &task.name), args, config, now))
}

/// What a callback may declare as its parameters.
fn values(owed: &OwedJob) -> Map<String, Value> {
    let mishap = owed.history.mishaps.last().filter(|_| owed.history.end.is_some());
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    let result = owed.history.end.as_ref().map_or(Value::Null, |end| end.result.clone());
    let values = json!({
        "job_id": owed.job.id,
        "task": owed.job.task,
        "args": owed.job.args,
        "result": result,
        "error_type": text(mishap.map(|mishap| mishap.name.as_str())),
        "error": text(mishap.map(|mishap| mishap.message.as_str())),
    });
    match values {
        Value::Object(values) => values,
        _ => Map::new(),
    }
}
