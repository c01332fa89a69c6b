//! A job as Celery's clients are shown it: its name, its arguments with what is secret masked, and what has happened to it
//! as the fields of an event. What a client waits for is [`super::answer`]'s.

use serde_json::{Map, Value, json};

use super::answer;
use super::ask::Ask;
use crate::broker::OwedJob;
use crate::config::{Config, JobSecrets, Task};
use crate::intake::{iso, pyrepr};
use crate::job::{Cause, End, Job, Origin, State, Timestamp, Wire};
use crate::store::ForeignList;

/// A job that came by Celery, with what it takes to show it.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    job: &'a Job,
    /// What admission left for the answer.
    note: &'a Value,
    list: &'a str,
    task: Option<&'a Task>,
    secrets: JobSecrets,
}

impl<'a> Shown<'a> {
    /// `None` for jobs of other origin.
    pub(super) fn of(job: &'a Job, config: &'a Config) -> Option<Self> {
        let Origin::Wire { wire: Wire::Celery, reply: note, list } = &job.origin else { return None };
        let task = config.tasks.get(&job.task).map(|task| &**task);
        Some(Self { job, note, list, task, secrets: JobSecrets::of(task, &job.args) })
    }

    /// The id that the client knows.
    fn id(&self) -> &str {
        self.text("id").unwrap_or(self.job.id.as_str())
    }

    /// As `inspect` shows a task. `began` is when it began to run; with `safe` the arguments are printed.
    pub(super) fn info(&self, worker: &str, began: Option<Timestamp>, safe: bool) -> Value {
        let name = self.name();
        let (args, kwargs) = self.args();
        let (args, kwargs) = if safe {
            (pyrepr::celery_args(&args).into(), pyrepr::celery_kwargs(&kwargs).into())
        } else {
            (Value::Array(args), Value::Object(kwargs))
        };
        json!({
            "id": self.id(),
            "name": name,
            "args": args,
            "kwargs": kwargs,
            "type": name,
            "hostname": worker,
            "time_start": began.map(seconds),
            "acknowledged": began.is_some(),
            "delivery_info": {
                "exchange": "",
                "routing_key": ForeignList::name_of(Wire::Celery, self.list),
                "priority": self.job.priority.steps(),
                "redelivered": false,
            },
            "worker_pid": began.map(|_| std::process::id()),
        })
    }

    /// The fields of `task-received`.
    pub(super) fn received(&self) -> Value {
        let (args, kwargs) = self.args();
        let time = |at: Option<Timestamp>| at.map(|at| iso::celery(at.to_utc()));
        json!({
            "uuid": self.id(),
            "name": self.name(),
            "args": pyrepr::celery_args(&args),
            "kwargs": pyrepr::celery_kwargs(&kwargs),
            "root_id": self.text("root").unwrap_or(self.id()),
            "parent_id": self.text("parent"),
            "retries": 0,
            "eta": time(self.job.due),
            "expires": time(self.job.expires),
        })
    }

    /// The fields of `task-started`.
    pub(super) fn started(&self) -> Value {
        json!({"uuid": self.id()})
    }

    /// The kind of the event that tells how an attempt has ended, and its fields.
    pub(super) fn ended(&self, owed: &OwedJob) -> (&'static str, Value) {
        let revoked = |signal: Option<u8>, expired: bool| json!({"uuid": self.id(), "terminated": signal.is_some(), "signum": signal, "expired": expired});
        match &owed.history.end {
            None => ("retried", self.failure(owed)),
            Some(end @ End { state: State::Completed, .. }) => {
                let result = pyrepr::celery_result(&self.secrets.value(&end.result));
                let runtime = end.at.since(end.started.unwrap_or(end.at)).as_secs_f64();
                ("succeeded", json!({"uuid": self.id(), "result": result, "runtime": runtime}))
            }
            Some(end @ End { state: State::Cancelled, .. }) => {
                ("revoked", revoked(Ask::terminated(end).map(|signal| signal.number()), false))
            }
            Some(End { cause: Some(Cause::Expired), .. }) => ("revoked", revoked(None, true)),
            Some(_) => ("failed", self.failure(owed)),
        }
    }

    fn failure(&self, owed: &OwedJob) -> Value {
        let exception = answer::exception(self.note, &owed.history);
        let args = pyrepr::celery_args(&exception.exc_message);
        // Not `Error('a',)`: an exception is printed as a call.
        let args = args.strip_suffix(",)").map_or(args.clone(), |open| format!("{open})"));
        let traceback = answer::text_of_traceback(owed, &exception);
        json!({
            "uuid": self.id(),
            "exception": self.secrets.text(&format!("{}{args}", exception.exc_type)),
            "traceback": traceback.map(|text| self.secrets.text(&text)),
        })
    }

    /// The producer's name for the task.
    fn name(&self) -> &str {
        let usual = || self.task.and_then(usual_name);
        self.text("task").or_else(usual).unwrap_or(self.job.task.as_str())
    }

    /// The call, as the producer made it; what is secret is masked.
    fn args(&self) -> (Vec<Value>, Map<String, Value>) {
        let mut named = self.secrets.args().as_object().cloned().unwrap_or_default();
        let count = self.note.get("positional").and_then(Value::as_u64).unwrap_or(0);
        let params = self.task.into_iter().flat_map(|task| &task.params);
        let positional = params.take(usize::try_from(count).unwrap_or(usize::MAX));
        let args = positional.map(|param| named.remove(&param.name).unwrap_or_default()).collect();
        (args, named)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.note.get(name).and_then(Value::as_str)
    }
}

/// The name that producers use for a task, when they use one: jobs by that name need not say it.
pub(super) fn usual_name(task: &Task) -> Option<&str> {
    task.names.iter().map(|pattern| pattern.0.as_str()).find(|name| !name.contains('*'))
}

/// As Python counts time.
pub(super) fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age, below 2^53")]
    let millis = at.as_millis() as f64;
    millis / 1000.0
}
