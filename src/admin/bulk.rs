//! What a person does to many jobs: `POST /api/v1/jobs/{cancel,retry,delete}` with a filter.
//!
//! The jobs are found first and changed then, so what comes meanwhile is not touched. A request is bounded; when it has
//! not come to the end, it hands back a cursor with which the same request goes on.

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::alter::{Verb, change_all, refusal};
use super::answer::{Answer, json};
use super::fields::Fields;
use super::filter::{self, Filter};
use super::problem::{Problem, ShownHolder};
use super::{Shared, page, who};
use crate::broker::{Altered, Change, Holder};
use crate::clock;
use crate::config::Config;
use crate::job::{JobId, QueueName, State};
use crate::store::{Entry, Order, Position};

/// Jobs that one request changes.
const MOST: u64 = 10_000;
/// Records that one request looks into.
const SCAN: usize = 50_000;
/// Records in one round trip, and jobs changed in one.
const STEP: usize = 500;
/// Ids that an answer names.
const NAMED: usize = 100;

/// What was done.
#[derive(Serialize)]
struct Done {
    /// What became of the changed ones: `cancelled`, `retried`, `deleted`.
    outcome: &'static str,
    states: Vec<State>,
    matched: usize,
    changed: usize,
    /// Running jobs that end as soon as their node hears of it.
    #[serde(skip_serializing_if = "is_zero")]
    requested: usize,
    /// Jobs that had left these states, or were gone, when their turn came.
    unfit: usize,
    /// Those that cannot be retried because another job holds their unique key: how many, and the first of them.
    #[serde(skip_serializing_if = "is_zero")]
    conflicts: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicting: Vec<Conflict>,
    /// The first of those that matched.
    ids: Vec<String>,
    scanned: usize,
    /// There may be more: send the same request again with this `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// A job that is not retried, and the one that holds its unique key.
#[derive(Serialize)]
struct Conflict {
    id: String,
    holder: ShownHolder,
}

/// What was found.
struct Found {
    entries: Vec<Entry>,
    scanned: usize,
    /// What stands before the rest, if there may be one.
    rest: Option<Position>,
}

impl Done {
    fn conflict(&mut self, id: &JobId, holder: &Holder) {
        self.conflicts += 1;
        if self.conflicting.len() < NAMED {
            self.conflicting.push(Conflict { id: id.to_string(), holder: ShownHolder::of(holder) });
        }
    }
}

/// The change of all jobs that a filter means.
pub(super) async fn answer(
    shared: &Shared,
    config: &Config,
    verb: Verb,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let known = [&filter::FIELDS[..], &["cursor", "limit", "dry_run"], &who::FIELDS].concat();
    let mut fields = Fields::of_body(body, &format!("a filter of jobs to {}", verb.word()), &known)?;
    let mut filter = Filter::read(&mut fields, config, clock::now());
    settle_states(verb, &mut filter, &mut fields);
    let limit = fields.count("limit", 1..=MOST).unwrap_or(usize::try_from(MOST).unwrap_or(usize::MAX));
    let behind = page::cursor(&mut fields);
    let dry_run = fields.flag("dry_run").unwrap_or(false);
    let request = who::request(head, &mut fields)?;
    let change = match verb {
        Verb::Cancel => Change::Cancel(request.clone()),
        Verb::Retry => Change::Retry(None),
        Verb::Promote => Change::Promote,
        Verb::Delete => Change::Delete,
    };
    fields.done()?;

    let found = find(shared, config, &filter, behind, limit).await?;
    let ids = found.entries.iter().take(NAMED).map(|entry| entry.id.to_string()).collect();
    let (matched, scanned, next) = (found.entries.len(), found.scanned, found.rest.as_ref().map(page::encoded));
    let (outcome, states) = (verb.past(), filter.states.clone());
    let none = Done {
        outcome,
        states,
        matched,
        changed: 0,
        requested: 0,
        unfit: 0,
        conflicts: 0,
        conflicting: Vec::new(),
        ids,
        scanned,
        next,
        dry_run,
    };
    let done = if dry_run { none } else { change_found(shared, found.entries, &change, none).await? };
    if !dry_run {
        let Done { matched, changed, requested, .. } = done;
        tracing::info!(matched, changed, requested, "asked to {} many jobs {}", verb.word(), request.words());
    }
    Ok(json(StatusCode::OK, &done))
}

/// Nobody means everything by accident: a filter names a state or a queue. In a queue, without a state, those are meant
/// that one would mean: what can be cancelled, what has died, what has ended.
fn settle_states(verb: Verb, filter: &mut Filter, fields: &mut Fields<'_>) {
    if filter.states.is_empty() && !filter.names_queue && fields.is_sound() {
        fields.all_wrong("name at least a \"state\" or a \"queue\"; nothing was changed");
    }
    if filter.states.is_empty() {
        let meant = |state: &State| match verb {
            Verb::Retry => *state == State::Dead,
            Verb::Delete => state.has_ended(),
            Verb::Cancel | Verb::Promote => verb.fits(*state),
        };
        filter.states = State::ALL.into_iter().filter(meant).collect();
    }
    for state in filter.states.iter().filter(|state| !verb.fits(**state)) {
        fields.wrong("state", format!("a job that is {} cannot be {}", state.as_str(), verb.past()));
    }
}

/// The jobs that are meant, those first whose turn comes first. A job whose record cannot be read is nobody's to change.
async fn find(
    shared: &Shared,
    config: &Config,
    filter: &Filter,
    mut behind: Option<Position>,
    limit: usize,
) -> Result<Found, Problem> {
    let store = &shared.parts.broker.store;
    let of_read = |error| Problem::of_read(&error);
    let sources = store.sources(&filter.queues, &filter.states);
    let mut found = Found { entries: Vec::new(), scanned: 0, rest: None };
    loop {
        let entries =
            store.entries(&sources, Order::Rising, filter.span, behind.as_ref(), STEP).await.map_err(of_read)?;
        let is_last = entries.len() < STEP;
        behind = entries.last().map(Entry::position);
        found.scanned += entries.len();
        let listed = store.listed(entries).await.map_err(of_read)?;
        let meant = listed.into_iter().filter(|one| one.standing.is_some() && filter.means(one, config));
        found.entries.extend(meant.map(|listed| listed.entry));
        if found.entries.len() > limit {
            found.entries.truncate(limit);
            found.rest = found.entries.last().map(Entry::position);
            return Ok(found);
        }
        if is_last {
            return Ok(found);
        }
        if found.entries.len() == limit || found.scanned >= SCAN {
            found.rest = behind;
            return Ok(found);
        }
    }
}

async fn change_found(shared: &Shared, entries: Vec<Entry>, change: &Change, mut done: Done) -> Result<Done, Problem> {
    let mut by_queue: BTreeMap<QueueName, Vec<JobId>> = BTreeMap::new();
    for entry in entries {
        by_queue.entry(entry.queue).or_default().push(entry.id);
    }
    for (queue, ids) in &by_queue {
        for chunk in ids.chunks(STEP) {
            let altered = change_all(&shared.parts.broker, queue, chunk, change).await;
            let altered = altered.map_err(|error| {
                refusal(&shared.parts.broker, &error).after(done.changed + done.requested, done.matched)
            })?;
            for (id, one) in chunk.iter().zip(altered) {
                match one {
                    Altered::Done(_) => done.changed += 1,
                    Altered::Requested => done.requested += 1,
                    Altered::Held(holder) => done.conflict(id, &holder),
                    Altered::Unfit(_) | Altered::Unknown | Altered::Restless => done.unfit += 1,
                }
            }
        }
    }
    Ok(done)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
