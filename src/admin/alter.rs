//! What a person does to one job: `POST /api/v1/jobs/{id}/{cancel,retry,promote}` and `DELETE /api/v1/jobs/{id}`.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{Answer, json};
use super::enqueue::is_stale;
use super::fields::{Fields, no_task};
use super::problem::{Problem, ProblemKind};
use super::{Shared, job, who};
use crate::broker::{Altered, Broker, BrokerError, Change, Edit};
use crate::clock;
use crate::config::{BindError, Config, JobSecrets, RenderError, Task, bind};
use crate::job::{Args, Job, JobId, QueueName, State, Unique};
use crate::store::{LinkError, Place, Standing};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Cancel,
    Retry,
    Promote,
    Delete,
}

/// What has become of the job.
#[derive(Serialize)]
struct Done<'a> {
    id: &'a str,
    queue: &'a str,
    outcome: &'static str,
    /// Where it stands now; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

impl Verb {
    /// As it stands in paths and sentences.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Delete => "delete",
        }
    }

    pub(super) fn past(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::Promote => "promoted",
            Self::Delete => "deleted",
        }
    }

    /// Whether a job in this state can be changed so.
    pub(super) fn fits(self, state: State) -> bool {
        match self {
            Self::Cancel => !state.has_ended(),
            Self::Retry | Self::Delete => state != State::Active,
            Self::Promote => matches!(state, State::Scheduled | State::Retry),
        }
    }

    /// The fields of the request's body.
    fn fields(self) -> Vec<&'static str> {
        let own: &[&str] = if self == Self::Retry { &["args"] } else { &[] };
        [own, &who::FIELDS].concat()
    }
}

/// The change of one job by id.
pub(super) async fn answer(
    shared: &Shared,
    config: &Config,
    verb: Verb,
    id: &str,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let mut fields = Fields::of_body(body, &format!("a request to {} a job", verb.word()), &verb.fields())?;
    let request = who::request(head, &mut fields)?;
    let broker = &shared.parts.broker;
    let standing = job::find(shared, config, id).await?;
    let change = match verb {
        Verb::Cancel => Change::Cancel(request.clone()),
        Verb::Retry => Change::Retry(edit(broker, config, &standing, &mut fields).await?),
        Verb::Promote => Change::Promote,
        Verb::Delete => Change::Delete,
    };
    fields.done()?;
    let (queue, id) = (&standing.job.queue, &standing.job.id);
    let altered =
        change_all(broker, queue, std::slice::from_ref(id), &change).await.map_err(|error| refusal(broker, &error))?;
    let done =
        |status, outcome, state| Ok(json(status, &Done { id: id.as_str(), queue: queue.as_str(), outcome, state }));
    match altered.into_iter().next().unwrap_or(Altered::Unknown) {
        Altered::Done(state) => done(StatusCode::OK, verb.past(), state),
        Altered::Requested => done(StatusCode::ACCEPTED, "cancel-requested", Some(State::Active)),
        Altered::Unfit(state) => Err(unfit(broker, verb, &standing, state).await),
        Altered::Held(holder) => Err(Problem::key_held(&holder, "the job cannot be retried")),
        Altered::Unknown => Err(job::unknown()),
        Altered::Restless => {
            Err(Problem::unavailable("the job changed each time it was looked at; it was left as it is"))
        }
    }
}

/// Changes jobs of one queue; once more when the connection turns out to be dead, as the first call after a restart of
/// Redis finds it. What the lost call had done is found done.
pub(super) async fn change_all(
    broker: &Broker,
    queue: &QueueName,
    ids: &[JobId],
    change: &Change,
) -> Result<Vec<Altered>, BrokerError> {
    match broker.alter(queue, ids, change, clock::now()).await {
        Err(BrokerError::Link(error)) if is_stale(&error) => {
            tracing::debug!("change jobs again, on a new connection: {error}");
            broker.alter(queue, ids, change, clock::now()).await
        }
        other => other,
    }
}

/// A change, or a look, that is not known to have happened.
pub(super) fn refusal(broker: &Broker, error: &BrokerError) -> Problem {
    match error {
        BrokerError::Link(LinkError::Refused(words)) => {
            let refused = Problem::of_refused_write(words, broker.store.report().as_deref(), "nothing was changed");
            refused.unwrap_or_else(|| Problem::unavailable(error.to_string()))
        }
        BrokerError::Link(LinkError::Unexpected { .. }) | BrokerError::Answer { .. } | BrokerError::Encode(_) => {
            Problem::internal(error.to_string())
        }
        BrokerError::Link(away @ (LinkError::Timeout(_) | LinkError::Broken(_))) => {
            Problem::unavailable(format!("{away}; it may have happened all the same, and a repetition is safe"))
        }
        BrokerError::Link(away) => Problem::unavailable(format!("{away}; nothing was changed")),
    }
}

/// An edit-and-retry: the arguments, bound to the task's parameters as those of a new job are. Where a secret was shown as
/// `***` and comes back as that, the secret stays as it was.
async fn edit(
    broker: &Broker,
    config: &Config,
    standing: &Standing,
    fields: &mut Fields<'_>,
) -> Result<Option<Edit>, Problem> {
    let Some(given) = fields.value("args").cloned() else { return Ok(None) };
    let job = &standing.job;
    let Some(task) = config.tasks.get(&job.task) else {
        fields.wrong("args", format!("{}; its arguments cannot be checked", no_task(config, job.task.as_str())));
        return Ok(None);
    };
    let apart = match job.args_apart {
        Some(_) => broker.store.args_apart(&job.queue, &job.id).await.map_err(|error| Problem::of_read(&error))?,
        None => None,
    };
    let before = apart.unwrap_or_else(|| job.args.clone());
    let bound: Result<Args, BindError> = match given {
        Value::Object(named) => {
            let shown = JobSecrets::of(Some(Arc::as_ref(task)), &before).args().clone();
            match unmasked(Value::Object(named), &shown, &Value::Object(before.clone())) {
                Value::Object(named) => bind(task, &[], named),
                _ => bind(task, &[], Map::new()),
            }
        }
        Value::Array(positional) => bind(task, &positional, Map::new()),
        _ => {
            fields.wrong("args", "\"args\" must be an object (arguments by name) or an array (by position)");
            return Ok(None);
        }
    };
    let Some(args) = bound.map_err(|error| fields.wrong("args", error.to_string())).ok() else { return Ok(None) };
    let buckets = config.buckets(&job.queue, &job.task, &args).map_err(|error| error.to_string());
    let unique = unique_under(config, task, job, &before, &args)
        .map_err(|error| format!("the task's unique key cannot be told: {error}"));
    match buckets.and_then(|buckets| Ok((buckets, unique?))) {
        Ok((buckets, unique)) => Ok(Some(Edit { args, buckets, unique })),
        Err(wrong) => {
            fields.wrong("args", wrong);
            Ok(None)
        }
    }
}

/// What makes a job unique under other arguments: a key that the task made of the old ones is made anew, one that its
/// producer gave it stays.
fn unique_under(
    config: &Config,
    task: &Task,
    job: &Job,
    before: &Args,
    after: &Args,
) -> Result<Option<Unique>, RenderError> {
    let (Some(old), Some(rule)) = (&job.unique, &task.unique) else { return Ok(job.unique.clone()) };
    if rule.key_of(before, &config.vars).ok().flatten().as_ref() != Some(&old.key) {
        return Ok(Some(old.clone()));
    }
    Ok(rule.key_of(after, &config.vars)?.map(|key| Unique { key, rule: old.rule }))
}

/// The value that is meant where somebody has edited what was shown.
fn unmasked(given: Value, shown: &Value, before: &Value) -> Value {
    if given == *shown {
        return before.clone();
    }
    match (given, shown, before) {
        (Value::Object(given), Value::Object(shown), Value::Object(before)) => {
            let inner = |(name, value): (String, Value)| match (shown.get(&name), before.get(&name)) {
                (Some(shown), Some(before)) => (name, unmasked(value, shown, before)),
                _ => (name, value),
            };
            Value::Object(given.into_iter().map(inner).collect())
        }
        (Value::Array(given), Value::Array(shown), Value::Array(before)) if given.len() == before.len() => {
            let pairs = shown.iter().zip(before);
            Value::Array(given.into_iter().zip(pairs).map(|(value, (s, b))| unmasked(value, s, b)).collect())
        }
        (given, ..) => given,
    }
}

/// Why the job's state does not fit, and what helps.
async fn unfit(broker: &Broker, verb: Verb, standing: &Standing, state: State) -> Problem {
    let (id, queue) = (&standing.job.id, &standing.job.queue);
    let detail = if standing.place == Place::Purged {
        let purge = broker.store.purge_of(queue, id).await.ok().flatten();
        let undo = purge.map_or("a purge takes the jobs it took away for good".to_owned(), |(purge, until)| {
            format!("take the purge back until {until}: POST /api/v1/queues/{queue}/purges/{purge}/undo")
        });
        format!("the job was purged; {undo}")
    } else {
        let help = match (verb, state) {
            (Verb::Delete | Verb::Retry, State::Active) => "; cancel it first",
            (Verb::Promote, State::Active | State::Pending) => "; it does not wait for its time",
            (Verb::Promote, _) => "; retry it instead",
            (Verb::Retry, State::Dead) => {
                "; its arguments refer to results that it did not get: retry its flow, or give it other arguments"
            }
            _ => "",
        };
        format!("a job that is {} cannot be {}{help}", state.as_str(), verb.past())
    };
    Problem::new(ProblemKind::Unfit, detail).standing_at(state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_back_masked_stays_as_it_was() {
        let before = json!({"token": "s3cret", "to": "a@b.c", "list": [{"password": "x1"}, 2], "n": 1});
        let shown = json!({"token": "***", "to": "a@b.c", "list": [{"password": "***"}, 2], "n": 1});
        let given = json!({"token": "***", "to": "d@e.f", "list": [{"password": "***"}, 3], "m": "***"});
        let meant = json!({"token": "s3cret", "to": "d@e.f", "list": [{"password": "x1"}, 3], "m": "***"});
        assert_eq!(unmasked(given, &shown, &before), meant);
        assert_eq!(unmasked(json!({"token": "new"}), &shown, &before), json!({"token": "new"}));
    }
}
