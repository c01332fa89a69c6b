//! `GET /api/v1/jobs`: a page of jobs, those next in line or the latest first.
//!
//! A page costs what it shows. With a filter that looks into the records a request looks at a bounded number of them, says
//! how many, and hands back a cursor to go on with, even when it has found less than was asked for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde::Serialize;

use super::Shared;
use super::answer::{Answer, json};
use super::fields::Fields;
use super::filter::{self, Filter};
use super::problem::Problem;
use crate::clock;
use crate::config::{Config, JobSecrets};
use crate::job::State;
use crate::store::{Entry, Listed, Order, Place, Position, Standing};

/// Jobs in a page, when nobody says how many.
const USUAL: usize = 50;
const MOST: u64 = 500;
/// Records that one request looks into.
const SCAN: usize = 2000;
/// Records in one round trip.
const STEP: usize = 200;
/// Characters of the arguments, and of a failure, that a line shows.
const PREVIEW: usize = 160;

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<Row<'a>>,
    /// Where the next page begins; absent after the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Jobs that were looked at.
    scanned: usize,
}

/// A job in a line. What is absent is not known, or its record cannot be read.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    queue: &'a str,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    /// The beginning of the arguments, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enqueued_at: Option<String>,
    /// The time that counts in its state: since when it waits or runs, when it is due, or when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Attempts that have begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    /// The last failure, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Out of the way of the others: its task is paused or a limit has no room for it. Where tenants take turns, all are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreadable: bool,
}

/// `GET /api/v1/jobs`.
pub(super) async fn answer(shared: &Shared, config: &Config, query: Option<&str>) -> Result<Answer, Problem> {
    let known = [&filter::FIELDS[..], &["cursor", "limit"]].concat();
    let mut fields = Fields::of_query(query, "a list of jobs", &known);
    let filter = Filter::read(&mut fields, config, clock::now());
    let limit = fields.count("limit", 1..=MOST).unwrap_or(USUAL);
    let mut behind = cursor(&mut fields);
    fields.done()?;

    let store = &shared.parts.broker.store;
    let states = if filter.states.is_empty() { State::ALL.to_vec() } else { filter.states.clone() };
    let order = order(&filter.states);
    let of_read = |error| Problem::of_read(&error);
    let sources = store.sources(&filter.queues, &states);
    let (mut found, mut scanned): (Vec<Listed>, usize) = (Vec::new(), 0);
    let next = loop {
        let step = if filter.looks_inside() { STEP } else { limit };
        let entries = store.entries(&sources, order, filter.span, behind.as_ref(), step).await.map_err(of_read)?;
        let (came, last) = (entries.len(), entries.last().map(Entry::position));
        let mut listed = store.listed(entries).await.map_err(of_read)?.into_iter();
        let mut full = None;
        for one in listed.by_ref() {
            scanned += 1;
            if filter.means(&one, config) {
                let position = one.entry.position();
                found.push(one);
                if found.len() == limit {
                    full = Some(position);
                    break;
                }
            }
        }
        let is_last = came < step && listed.len() == 0;
        match full.or(last) {
            _ if is_last => break None,
            None => break None,
            Some(position) if found.len() == limit || scanned >= SCAN => break Some(position),
            Some(position) => behind = Some(position),
        }
    };
    let jobs = found.iter().map(|listed| row(listed, config)).collect();
    Ok(json(StatusCode::OK, &Page { jobs, next: next.map(|position| encoded(&position)), scanned }))
}

/// What waits or runs is shown in the order in which its turn comes; all else, and any mixture, latest first.
fn order(states: &[State]) -> Order {
    let all_wait = !states.is_empty() && !states.iter().any(|state| state.has_ended());
    if all_wait { Order::Rising } else { Order::Falling }
}

/// The field `cursor`: where to go on.
pub(super) fn cursor(fields: &mut Fields<'_>) -> Option<Position> {
    let text = fields.text("cursor", "MTc5NTQzMDI4OTAwMCBqb2I")?;
    let decoded = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let position = decoded.as_deref().and_then(|text| text.split_once(' ')).and_then(|(score, id)| {
        let score: f64 = score.parse().ok()?;
        score.is_finite().then(|| Position { score, id: id.to_owned() })
    });
    if position.is_none() {
        fields.wrong("cursor", "this is no cursor; take the \"next\" of the page before");
    }
    position
}

pub(super) fn encoded(position: &Position) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", position.score, position.id))
}

fn row<'a>(listed: &'a Listed, config: &Config) -> Row<'a> {
    let entry = &listed.entry;
    let plain = Row {
        id: entry.id.as_str(),
        queue: entry.queue.as_str(),
        state: entry.place.state(),
        task: None,
        args: None,
        priority: None,
        enqueued_at: None,
        at: None,
        node: None,
        attempts: None,
        error: None,
        held: entry.place == Place::Held
            && listed.standing.as_ref().is_none_or(|standing| standing.job.line().is_none()),
        unreadable: listed.standing.is_none(),
    };
    match &listed.standing {
        None => plain,
        Some(standing) => Row {
            task: Some(standing.job.task.as_str()),
            priority: Some(standing.job.priority.steps()),
            enqueued_at: Some(standing.job.enqueued_at.to_string()),
            at: Some(filter::time_of(standing).to_string()),
            node: node(standing),
            attempts: Some(attempts(standing)),
            ..with_texts(plain, standing, config)
        },
    }
}

/// The texts in which a secret could stand.
fn with_texts<'a>(row: Row<'a>, standing: &Standing, config: &Config) -> Row<'a> {
    let job = &standing.job;
    let last = standing.history.mishaps.last();
    if let Some(bytes) = job.args_apart {
        // What is secret is not known without the arguments: only the failure's name is shown.
        let args = Some(format!("({bytes} bytes, beside the record)"));
        return Row { args, error: last.map(|mishap| mishap.name.clone()), ..row };
    }
    let secrets = JobSecrets::of(config.tasks.get(&job.task).map(Arc::as_ref), &job.args);
    let error = last.map(|mishap| shortened(&secrets.text(&format!("{}: {}", mishap.name, mishap.message))));
    Row { args: Some(shortened(&secrets.args().to_string())), error, ..row }
}

fn node(standing: &Standing) -> Option<String> {
    let ran = standing.history.end.as_ref().and_then(|end| end.node.as_ref());
    standing.active.as_ref().map(|active| &active.node).or(ran).map(ToString::to_string)
}

/// Attempts that have begun: what failed or crashed, and the one that runs or came to an end.
fn attempts(standing: &Standing) -> u32 {
    let history = &standing.history;
    let completed = standing.place == Place::Completed;
    history.failures + history.crashes + u32::from(completed || standing.active.is_some())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(PREVIEW) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
