//! Limits as they are shown: each with its bounds and their use, and what keeps a waiting job from starting.

use serde::Serialize;

use super::Shared;
use super::problem::Problem;
use crate::clock;
use crate::config::{Queue, Rate};
use crate::store::{Blocked, Bound, LimitView};

/// A limit, and how much of it is in use over all nodes.
#[derive(Debug, Serialize)]
pub(super) struct ShownLimit {
    /// Of the whole queue where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u64>,
    /// Points in use; with a key, `values` says of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rates: Vec<ShownRate>,
    /// Jobs that wait for it, out of the way of the others.
    held: u64,
    /// The values of the key for which most wait.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<ShownLine>,
}

#[derive(Debug, Serialize)]
struct ShownRate {
    most: u64,
    window: String,
    /// In the window that ends now; without a key only.
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ShownLine {
    value: String,
    held: u64,
}

/// What a waiting job waits for.
#[derive(Debug, Serialize)]
pub(super) struct ShownBlocked {
    limit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    bound: String,
    used: u64,
    points: u64,
    /// Running jobs that hold it, longest running first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    holders: Vec<String>,
    /// When there is room, where a window says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_at: Option<String>,
}

/// Holders that are named.
const NAMED: usize = 10;

/// The limits of a queue that say something in it: its own, and those of tasks whose jobs wait or run there.
pub(super) async fn of(shared: &Shared, queue: &Queue) -> Result<Vec<ShownLimit>, Problem> {
    let views =
        shared.parts.broker.store.limits(queue, clock::now()).await.map_err(|error| Problem::of_read(&error))?;
    let speaks = |view: &LimitView<'_>| {
        let whole = view.whole.iter().any(|whole| {
            whole.used.is_some_and(|used| used > 0) || whole.started.iter().any(|(started, _)| *started > 0)
        });
        view.limit.task.is_none() || whole || view.held > 0 || view.values > 0
    };
    Ok(views.iter().filter(|view| speaks(view)).map(shown).collect())
}

fn shown(view: &LimitView<'_>) -> ShownLimit {
    let limit = view.limit;
    let started = |at: usize| view.whole.as_ref().and_then(|whole| Some(whole.started.get(at)?.0));
    let rate = |(at, rate): (usize, &Rate)| ShownRate {
        most: rate.points,
        window: humantime::format_duration(rate.window).to_string(),
        started: started(at),
    };
    ShownLimit {
        task: limit.task.as_ref().map(ToString::to_string),
        key: limit.key.as_ref().map(|key| key.template.source().to_owned()),
        concurrency: limit.concurrency,
        used: view.whole.as_ref().and_then(|whole| whole.used),
        values: limit.key.as_ref().map(|_| view.values),
        rates: limit.rates.iter().enumerate().map(rate).collect(),
        held: view.held,
        top: view.top.iter().map(|(value, held)| ShownLine { value: value.clone(), held: *held }).collect(),
    }
}

pub(super) fn blocked(blocked: Blocked) -> ShownBlocked {
    let Blocked { limit, key, bound, points, used, holders, free_at } = blocked;
    let bound = match bound {
        Bound::Concurrency(most) => format!("{most} at once"),
        Bound::Rate(rate) => format!("{} in {}", rate.points, humantime::format_duration(rate.window)),
    };
    let holders = holders.into_iter().take(NAMED).map(|(id, _)| id.to_string()).collect();
    ShownBlocked { limit, key, bound, used, points, holders, free_at: free_at.map(|at| at.to_string()) }
}
