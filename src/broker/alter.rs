//! What a person does to jobs by id: cancel, retry, retry with other arguments, promote, delete.
//!
//! The job is read, the change is decided here, and a script makes it if the job stands as it was read. What changed in
//! between is read and decided again; so nobody's step is lost, and nothing needs a lock.

use redis::Pipeline;
use serde_json::Value;

use super::enqueue::{Record, encode};
use super::exchange::encode_history;
use super::flows::words;
use super::place;
use super::script::{Script, only};
use super::unique::{Holder, Wanted};
use super::{Broker, BrokerError, OwedJob};
use crate::job::flow::{Told, UNBOUND};
use crate::job::{
    Args, Bucket, End, History, Job, JobId, Mishap, MishapKind, Origin, QueueName, Request, State, Timestamp, Unique,
};
use crate::store::{QueueKeys, Standing};

/// What is asked of a job.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Ends it, whether it waits or runs.
    Cancel(Request),
    /// Makes an ended job pending again, with all its attempts before it, or a waiting one due at once; with an edit under
    /// other arguments.
    Retry(Option<Edit>),
    /// Makes a job that waits for its time due at once.
    Promote,
    /// Deletes it with everything that is known of it.
    Delete,
}

/// Other arguments for a job, and what it draws from and what makes it unique under them.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub args: Args,
    pub buckets: Vec<Bucket>,
    pub unique: Option<Unique>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Altered {
    /// It stands there now; `None` after a delete.
    Done(Option<State>),
    /// It runs: the node that runs it is told, and ends it.
    Requested,
    /// A job in this state cannot be changed so.
    Unfit(State),
    /// Another job holds its unique key, so it cannot be sent off once more.
    Held(Holder),
    Unknown,
    /// It changed each time it was looked at.
    Restless,
}

/// Looks at a job that keeps changing.
const ROUNDS: usize = 10;
/// A set that a move of `move_jobs` names is given by its number among these keys.
const FIXED_KEYS: usize = 17;

/// Says that the large arguments stay as they are.
const KEEP: &str = "-";

/// Says that the key is given up.
const GIVES_UP: &str = "-";

const DONE: &str = "what became of each job";

/// One line of a call of `move_jobs`, as its header lists them.
struct Line {
    what: &'static str,
    from: String,
    before: Vec<u8>,
    to: String,
    score: String,
    history: String,
    record: String,
    large: String,
    note: String,
    counter: &'static str,
    owed: bool,
    /// The key that it must hold for the move, or gives up by it.
    key: Option<Wanted>,
    gives_up: bool,
    /// What its flow is told.
    word: String,
    then: Altered,
    /// What its foreign producer is told.
    answer: Option<OwedJob>,
}

impl Broker {
    /// Changes each of the jobs, which must be different ones, in one queue. Says what became of each, in order.
    ///
    /// # Errors
    /// [`BrokerError`]: some may have been changed; a repetition finds those as they are now.
    pub(crate) async fn alter(
        &self,
        queue: &QueueName,
        ids: &[JobId],
        change: &Change,
        now: Timestamp,
    ) -> Result<Vec<Altered>, BrokerError> {
        let mut altered = vec![Altered::Restless; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            open = self.alter_once(queue, ids, &open, change, now, &mut altered).await?;
        }
        Ok(altered)
    }

    /// One look and one step for the jobs of these indexes; returns those that changed in between.
    async fn alter_once(
        &self,
        queue: &QueueName,
        ids: &[JobId],
        open: &[usize],
        change: &Change,
        now: Timestamp,
        altered: &mut [Altered],
    ) -> Result<Vec<usize>, BrokerError> {
        let wanted: Vec<_> = open.iter().map(|&index| (queue, &ids[index])).collect();
        let standings = self.store.standings(&wanted).await?;
        let mut lines = Vec::new();
        let mut sets = Vec::new();
        for (&index, standing) in open.iter().zip(standings) {
            match standing {
                None => altered[index] = Altered::Unknown,
                Some(standing) => match self.line(queue, &standing, change, now, &mut sets)? {
                    Err(outcome) => altered[index] = outcome,
                    Ok(line) => lines.push((index, line)),
                },
            }
        }
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        let touched = fixed(&keys).into_iter().map(String::as_str).chain(sets.iter().map(String::as_str));
        Script::move_jobs.call(&mut pipeline, &touched.collect::<Vec<_>>());
        pipeline.arg(now.as_millis());
        for (index, line) in &lines {
            pipeline.arg(line.what).arg(ids[*index].as_str()).arg(&line.from).arg(&line.before).arg(&line.to);
            pipeline.arg(&line.score).arg(&line.history).arg(&line.record).arg(&line.large).arg(&line.note);
            pipeline.arg(line.counter).arg(u8::from(line.owed));
            let key = line.key.as_ref();
            let till = if line.gives_up { GIVES_UP } else { key.map_or("", |key| key.till) };
            pipeline.arg(key.map_or("", |key| &key.field)).arg(till);
            pipeline.arg(key.map_or(0, |key| key.expires)).arg(key.map_or(0, |key| key.span).to_string());
            pipeline.arg(&line.word);
        }
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let done: Vec<Vec<String>> = Script::move_jobs.reply(reply, DONE)?;
        let mut again = Vec::new();
        for ((index, line), done) in lines.into_iter().zip(done) {
            match done.as_slice() {
                [code] if code == "1" => {
                    altered[index] = line.then;
                    if !line.word.is_empty() {
                        self.flows_stir.notify_one();
                    }
                    line.answer.into_iter().for_each(|answer| self.owed.send(answer));
                }
                [code, holder @ ..] if code == "2" => {
                    let holder = Holder::read(holder);
                    let broken = BrokerError::Answer { script: "move_jobs", expected: DONE };
                    altered[index] = Altered::Held(holder.ok_or(broken)?);
                }
                _ => again.push(index),
            }
        }
        Ok(again)
    }

    /// The step that makes the change, or what is to be said instead of one.
    fn line(
        &self,
        queue: &QueueName,
        standing: &Standing,
        change: &Change,
        now: Timestamp,
        sets: &mut Vec<String>,
    ) -> Result<Result<Line, Altered>, BrokerError> {
        let Standing { job, history, place, before, .. } = standing;
        let keys = self.keys(queue);
        let mut number = |key: &str| {
            let index = sets.iter().position(|set| set == key).unwrap_or_else(|| {
                sets.push(key.to_owned());
                sets.len() - 1
            });
            (FIXED_KEYS + 1 + index).to_string()
        };
        let state = place.state();
        let Some(from) = place.key(&keys) else {
            return Ok(match change {
                Change::Cancel(request) if state == State::Active => Ok(Line::mark(request)?),
                _ => Err(Altered::Unfit(state)),
            });
        };
        let mut line = Line::new(number(&from), before.clone());
        match change {
            Change::Cancel(_) if state.has_ended() => return Ok(Err(Altered::Unfit(state))),
            Change::Cancel(request) => {
                let history = self.cancelled(history.clone(), request, now);
                line.to = number(&keys.cancelled);
                line.score = now.as_millis().to_string();
                line.history = encode_history(&history)?;
                line.counter = "cancelled";
                line.then = Altered::Done(Some(State::Cancelled));
                line.word = words::of(job, Told::Cancelled, now)?;
                line.owed = matches!(job.origin, Origin::Wire { .. });
                line.answer = line.owed.then(|| OwedJob { job: job.clone().into(), history, token: 0, again: None });
                line.gives_up = true;
                line.key = job.unique.as_ref().map(|unique| Wanted::of(job, unique, now));
            }
            Change::Promote if !matches!(state, State::Scheduled | State::Retry) => {
                return Ok(Err(Altered::Unfit(state)));
            }
            Change::Retry(_) if state == State::Pending => return Ok(Err(Altered::Unfit(state))),
            Change::Retry(None) if is_unbound(history) => return Ok(Err(Altered::Unfit(state))),
            Change::Promote | Change::Retry(_) => {
                let edited = matches!(change, Change::Retry(Some(_)));
                line.to = number(&keys.pending);
                line.score = place::in_line(job.priority, now, self.ageing(queue)).to_string();
                line.history = encode_unless_empty(&again(history.clone(), state, edited))?;
                if let Change::Retry(edit) = change {
                    (line.record, line.large) = rewritten(job, edit.as_ref(), now)?;
                    line.key = wanted(job, state, edit.as_ref(), now);
                }
                line.then = Altered::Done(Some(State::Pending));
                if state.has_ended() {
                    line.word = words::of(job, Told::Again, now)?;
                }
            }
            Change::Delete => {
                if !state.has_ended() {
                    // It will not run any more.
                    line.word = words::of(job, Told::Cancelled, now)?;
                }
                line.what = "delete";
                line.gives_up = true;
                line.key = job.unique.as_ref().map(|unique| Wanted::of(job, unique, now));
                line.then = Altered::Done(None);
            }
        }
        Ok(Ok(line))
    }

    /// The history of a job that is cancelled while it waits.
    fn cancelled(&self, mut history: History, request: &Request, now: Timestamp) -> History {
        history.note(Mishap {
            at: now,
            attempt: history.next_attempt(),
            node: self.node.clone(),
            kind: MishapKind::Cancelled,
            name: "Cancelled".to_owned(),
            message: format!("cancelled {} before it ran", request.words()),
            args: None,
            detail: None,
        });
        history.end = Some(End {
            state: State::Cancelled,
            at: now,
            started: None,
            node: None,
            result: Value::Null,
            cause: None,
            reason: Some(format!("cancelled {}", request.words())),
        });
        history
    }
}

impl Line {
    /// Tells the node that runs the job; it is nobody's to move.
    fn mark(request: &Request) -> Result<Self, BrokerError> {
        let note = serde_json::to_string(request).map_err(|error| BrokerError::Encode(error.to_string()))?;
        Ok(Self { what: "mark", note, then: Altered::Requested, ..Self::new("0".to_owned(), Vec::new()) })
    }

    fn new(from: String, before: Vec<u8>) -> Self {
        Self {
            what: "move",
            from,
            before,
            to: "0".to_owned(),
            score: "0".to_owned(),
            history: String::new(),
            record: String::new(),
            large: KEEP.to_owned(),
            note: String::new(),
            counter: "",
            owed: false,
            key: None,
            gives_up: false,
            word: String::new(),
            then: Altered::Restless,
            answer: None,
        }
    }
}

/// Whether it died because its arguments refer to results that are not there: only its flow can start it anew.
fn is_unbound(history: &History) -> bool {
    history.end.is_some() && history.mishaps.last().is_some_and(|mishap| mishap.name == UNBOUND)
}

/// The keys that every call of `move_jobs` names, in its order.
fn fixed(keys: &QueueKeys) -> [&String; FIXED_KEYS] {
    [
        &keys.jobs,
        &keys.history,
        &keys.large,
        &keys.active,
        &keys.outbox,
        &keys.cancels,
        &keys.counters,
        &keys.unique,
        &keys.pending,
        &keys.scheduled,
        &keys.retry,
        &keys.held,
        &keys.completed,
        &keys.dead,
        &keys.cancelled,
        &keys.words,
        &keys.notes,
    ]
}

/// The history of a job that a person sends off once more: what an ended one has used up is given back, what has
/// happened stays readable. Finished steps stay finished, unless they were done with other arguments.
fn again(mut history: History, state: State, edited: bool) -> History {
    if state.has_ended() {
        let History { mishaps, interruptions, steps, partial, .. } = history;
        history = History { mishaps, interruptions, steps, partial, ..History::default() };
    }
    if edited {
        history.forget_steps();
    }
    history
}

/// The record of a job that is sent off once more, and its large arguments, where they are other than before: under other
/// arguments, or when its time to expire has passed, which it is not held to again.
fn rewritten(job: &Job, edit: Option<&Edit>, now: Timestamp) -> Result<(String, String), BrokerError> {
    let expires = job.expires.filter(|expires| *expires > now);
    match edit {
        None if expires == job.expires => Ok((String::new(), KEEP.to_owned())),
        None => {
            // The arguments may stand beside the record; they are not touched.
            let text = serde_json::to_string(&Job { expires, ..job.clone() });
            Ok((text.map_err(|error| BrokerError::Encode(error.to_string()))?, KEEP.to_owned()))
        }
        Some(Edit { args, buckets, unique }) => {
            let (args, buckets, unique) = (args.clone(), buckets.clone(), unique.clone());
            let edited = Job { args, buckets, unique, args_apart: None, expires, ..job.clone() };
            let Record { text, large } = encode(&edited)?;
            Ok((text, large))
        }
    }
}

/// The key that a job must hold to be sent off once more: when it had ended, or gets another one. A job that waits and goes
/// on under the same key asks nobody.
fn wanted(job: &Job, state: State, edit: Option<&Edit>, now: Timestamp) -> Option<Wanted> {
    let unique = edit.map_or(job.unique.as_ref(), |edit| edit.unique.as_ref())?;
    let is_new = state.has_ended() || job.unique.as_ref().is_none_or(|before| before.key != unique.key);
    is_new.then(|| Wanted::of(job, unique, now))
}

/// A job without a past has none in Redis either.
fn encode_unless_empty(history: &History) -> Result<String, BrokerError> {
    if *history == History::default() { Ok(String::new()) } else { encode_history(history) }
}
