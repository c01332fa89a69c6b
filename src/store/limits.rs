//! Reads: the limits of a queue as they stand, and what keeps one waiting job from starting.
//!
//! The same reckoning as the claim's, of the same keys, without changing them: what it says can be other by the time it
//! is read. Which buckets a job draws from stands in its record; the bounds are those of this node's configuration.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::inspect::{number, typed};
use super::{ActiveView, LinkError, QueueKeys, Store};
use crate::config::{Limit, Points, Queue, Rate};
use crate::job::{Bucket, Job, JobId, Timestamp};

/// Lines that one look reads: more are not counted.
const LINES: isize = 1000;
/// Values of a key that are shown, those with the longest lines.
const TOP: usize = 5;

/// One limit of a queue, as it stands.
#[derive(Debug, Clone)]
pub(crate) struct LimitView<'a> {
    pub limit: &'a Limit,
    /// Of a limit without a key.
    pub whole: Option<BucketView>,
    /// Values of the key that are in use.
    pub values: u64,
    /// Jobs that it holds; up to a thousand lines are counted.
    pub held: u64,
    /// The values with the longest lines, each with its line.
    pub top: Vec<(String, u64)>,
}

/// One bucket, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketView {
    /// Points in use, where the limit bounds them.
    pub used: Option<u64>,
    /// What has started in each of the limit's windows, and when the oldest of that leaves it.
    pub started: Vec<(u64, Option<Timestamp>)>,
}

/// Why a waiting job cannot start: the first bucket that has no room for it, in the order in which a claim looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// The name of the limit: `*` or its task, and behind a `/` its key.
    pub limit: String,
    /// The value of the limit's key, readable; `None` where it has none.
    pub key: Option<String>,
    pub bound: Bound,
    /// What the job would take.
    pub points: u64,
    /// What is in use, or has started in the window.
    pub used: u64,
    /// Who holds it: the running jobs that have drawn from the bucket, longest running first. Empty for a rate, which
    /// nobody holds.
    pub holders: Vec<(JobId, ActiveView)>,
    /// When the window has room again. `None`: when one of the holders ends.
    pub free_at: Option<Timestamp>,
}

/// The bound that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Concurrency(u64),
    Rate(Rate),
}

impl Store {
    /// The limits of a queue, in their order.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn limits<'a>(&self, queue: &'a Queue, now: Timestamp) -> Result<Vec<LimitView<'a>>, LinkError> {
        if queue.limits.all.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys.queue(&queue.name);
        let lines = self.lines(&keys).await?;
        let in_use = self.in_use(&keys).await?;
        let mut views = Vec::new();
        for limit in &queue.limits.all {
            let name = limit.name();
            let whole = match limit.key {
                None => Some(self.bucket(&keys, limit, &name, now).await?),
                Some(_) => None,
            };
            let mut own: Vec<(String, u64)> = lines.get(&name).cloned().unwrap_or_default();
            own.sort_by_key(|(_, held)| std::cmp::Reverse(*held));
            let held = own.iter().map(|(_, held)| held).sum();
            own.truncate(if limit.key.is_some() { TOP } else { 0 });
            let values = in_use.get(&name).copied().unwrap_or(0);
            views.push(LimitView { limit, whole, values, held, top: own });
        }
        Ok(views)
    }

    /// What keeps a pending job from starting, if it is a limit.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn blocked(&self, queue: &Queue, job: &Job, now: Timestamp) -> Result<Option<Blocked>, LinkError> {
        let keys = self.keys.queue(&queue.name);
        for (limit, bucket) in draws(queue, job) {
            let points = bucket.points().min(limit.smallest());
            let view = self.bucket(&keys, limit, bucket.name(), now).await?;
            let (name, key) = bucket.parts();
            let blocked = |bound, used, free_at| Blocked {
                limit: name.to_owned(),
                key,
                bound,
                points,
                used,
                holders: Vec::new(),
                free_at,
            };
            if let (Some(most), Some(used)) = (limit.concurrency, view.used)
                && used + points > most
            {
                let holders = self.drawers(&keys, bucket.name()).await?;
                return Ok(Some(Blocked { holders, ..blocked(Bound::Concurrency(most), used, None) }));
            }
            let mut full =
                limit.rates.iter().zip(&view.started).filter(|(rate, (used, _))| used + points > rate.points);
            // Of several windows the one that takes longest.
            if let Some((rate, (used, free_at))) = full.by_ref().max_by_key(|(_, (_, free_at))| *free_at) {
                return Ok(Some(blocked(Bound::Rate(*rate), *used, *free_at)));
            }
        }
        Ok(None)
    }

    /// A bucket's use, reckoned as a claim does.
    async fn bucket(
        &self,
        keys: &QueueKeys,
        limit: &Limit,
        bucket: &str,
        now: Timestamp,
    ) -> Result<BucketView, LinkError> {
        let mut pipeline = Pipeline::new();
        match (&limit.task, &limit.key, &limit.points) {
            (None, None, Points::Each(1)) => pipeline.hlen(&keys.active),
            _ => pipeline.hget(&keys.used, bucket),
        };
        for rate in &limit.rates {
            let era = now.as_millis() / rate.era();
            pipeline.hgetall(keys.quanta(rate.millis(), era, bucket));
            pipeline.hgetall(keys.quanta(rate.millis(), era.saturating_sub(1), bucket));
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let used: Option<u64> = typed(next(), "points in use")?;
        let mut started = Vec::new();
        for rate in &limit.rates {
            let mut quanta: Vec<(u64, u64)> = typed(next(), "what has started in a window")?;
            quanta.extend(typed::<Vec<(u64, u64)>>(next(), "what has started in a window")?);
            started.push(inside(rate, &quanta, now));
        }
        Ok(BucketView { used: limit.concurrency.map(|_| used.unwrap_or(0)), started })
    }

    /// The running jobs that have drawn from a bucket; of the whole queue, all.
    async fn drawers(&self, keys: &QueueKeys, bucket: &str) -> Result<Vec<(JobId, ActiveView)>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(&keys.active);
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let active: Vec<(String, String)> = typed(reply, "running jobs")?;
        let drew = |holder: &str| holder.split(' ').skip(3).any(|draw| Bucket::from(draw.to_owned()).name() == bucket);
        let mut holders: Vec<(JobId, ActiveView)> = active
            .iter()
            .filter(|(_, holder)| bucket == "*" || drew(holder))
            .filter_map(|(id, holder)| Some((JobId::parse(id).ok()?, ActiveView::parse(holder)?)))
            .collect();
        holders.sort_by_key(|(_, view)| view.started);
        Ok(holders)
    }

    /// The lines of limits: by the limit's name, the value of its key and how many stand there.
    async fn lines(&self, keys: &QueueKeys) -> Result<BTreeMap<String, Vec<(String, u64)>>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.zrange(&keys.lines, 0, LINES - 1);
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let names: Vec<String> = typed(reply, "lines")?;
        let of_limits = |name: &String| !name.starts_with(['!', '~', '*']) || name.starts_with("*/");
        let names: Vec<String> = names.into_iter().filter(of_limits).collect();
        let mut pipeline = Pipeline::new();
        for name in &names {
            pipeline.zcard(keys.line(name));
        }
        let replies = if names.is_empty() { Vec::new() } else { self.read(&pipeline).await? };
        let mut lines: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for (name, reply) in names.into_iter().zip(replies) {
            let bucket = Bucket::of_limit(&name, 1);
            let (limit, value) = bucket.parts();
            lines.entry(limit.to_owned()).or_default().push((value.unwrap_or_default(), number(reply)?));
        }
        Ok(lines)
    }

    /// How many values of each limit's key are in use: no more than jobs run.
    async fn in_use(&self, keys: &QueueKeys) -> Result<BTreeMap<String, u64>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hkeys(&keys.used);
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let mut in_use: BTreeMap<String, u64> = BTreeMap::new();
        for name in typed::<Vec<String>>(reply, "buckets in use")? {
            *in_use.entry(Bucket::of_limit(&name, 1).parts().0.to_owned()).or_default() += 1;
        }
        Ok(in_use)
    }
}

/// What a job draws from, each with its limit, in the order in which a claim looks: the buckets of its record, its task's,
/// the queue's.
fn draws<'a>(queue: &'a Queue, job: &Job) -> Vec<(&'a Limit, Bucket)> {
    let all = &queue.limits.all;
    let named = |name: &str| all.iter().find(|limit| limit.name() == name);
    let mut draws: Vec<(&Limit, Bucket)> = job
        .buckets
        .iter()
        .filter(|bucket| bucket.parts().1.is_some())
        .filter_map(|bucket| Some((named(bucket.parts().0)?, bucket.clone())))
        .collect();
    for name in [job.task.as_str(), "*"] {
        let Some(limit) = named(name) else { continue };
        let written = job.buckets.iter().find(|bucket| bucket.name() == name).map_or(1, Bucket::points);
        let points = if let Points::Each(points) = limit.points { points } else { written };
        draws.push((limit, Bucket::of_limit(name, points)));
    }
    draws
}

/// The points of those quanta that have not left the window, and when the first of them does.
fn inside(rate: &Rate, quanta: &[(u64, u64)], now: Timestamp) -> (u64, Option<Timestamp>) {
    let leaves = |quantum: u64| Timestamp::from_millis((quantum + 1) * rate.quantum() - 1 + rate.millis());
    let inside = || quanta.iter().filter(|(quantum, _)| leaves(*quantum) > now);
    (inside().map(|(_, points)| points).sum(), inside().map(|(quantum, _)| leaves(*quantum)).min())
}
