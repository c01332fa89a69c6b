//! Reads: the jobs of many sets in one order, page by page.
//!
//! A page begins behind a position, a score and an id, which stays what it is whatever comes and goes meanwhile. Finding
//! it costs a few ranks of each set, never a walk; only the running jobs, which slots bound, are read as a whole.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::inspect::{number, typed};
use super::standing::{instant, parsed};
use super::{ActiveView, LinkError, Place, Standing, Store};
use crate::job::{JobId, QueueName, State, Timestamp};

/// A set that holds jobs.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub queue: QueueName,
    pub place: Place,
    key: String,
}

/// A job as a set holds it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub queue: QueueName,
    pub place: Place,
    pub id: JobId,
    /// Where it stands in the set; of a running job, since when it runs.
    pub score: f64,
    active: Option<ActiveView>,
}

/// What stands right before a page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    pub score: f64,
    pub id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Lowest score first: next in line, next due, longest running.
    Rising,
    /// Latest first.
    Falling,
}

/// A span of time: from `from` on, before `until`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// An entry with its record, which this version may be unable to read.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub entry: Entry,
    pub standing: Option<Standing>,
}

/// Ranks of a set: those of the span, narrowed to what lies behind a position.
#[derive(Debug, Clone, Copy)]
struct Ranks {
    first: u64,
    end: u64,
    /// Entries with the score of the position: whether each lies before or behind it is still to be found out.
    tied: (u64, u64),
}

impl Entry {
    pub(crate) fn position(&self) -> Position {
        Position { score: self.score, id: self.id.as_str().to_owned() }
    }
}

impl Span {
    pub(crate) fn holds(self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| at >= from) && self.until.is_none_or(|until| at < until)
    }
}

impl Order {
    fn compare(self, a: (f64, &str), b: (f64, &str)) -> Ordering {
        let rising = a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1));
        if self == Self::Rising { rising } else { rising.reverse() }
    }
}

impl Place {
    /// Whether a score is a time to the millisecond. In line it is moved by the job's priority.
    fn is_timed(self) -> bool {
        !matches!(self, Self::Pending | Self::Held)
    }
}

impl Store {
    /// The sets that hold the jobs of these states.
    pub(crate) fn sources(&self, queues: &[QueueName], states: &[State]) -> Vec<Source> {
        let mut sources = Vec::new();
        for queue in queues {
            let keys = self.keys.queue(queue);
            for state in states {
                let places: &[(Place, &String)] = match state {
                    State::Pending => &[(Place::Pending, &keys.pending), (Place::Held, &keys.held)],
                    State::Scheduled => &[(Place::Scheduled, &keys.scheduled)],
                    State::Retry => &[(Place::Retry, &keys.retry)],
                    State::Active => &[(Place::Active, &keys.active)],
                    State::Completed => &[(Place::Completed, &keys.completed)],
                    State::Dead => &[(Place::Dead, &keys.dead)],
                    State::Cancelled => &[(Place::Cancelled, &keys.cancelled)],
                };
                let of = |(place, key): &(Place, &String)| Source {
                    queue: queue.clone(),
                    place: *place,
                    key: (*key).clone(),
                };
                sources.extend(places.iter().map(of));
            }
        }
        sources
    }

    /// The first `count` entries of all these sets together that come behind `behind`, in order.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn entries(
        &self,
        sources: &[Source],
        order: Order,
        span: Span,
        behind: Option<&Position>,
        count: usize,
    ) -> Result<Vec<Entry>, LinkError> {
        let (running, sets): (Vec<&Source>, Vec<&Source>) =
            sources.iter().partition(|source| source.place == Place::Active);
        let mut entries = self.running(&running, order, span, behind).await?;
        let ranks = self.ranks(&sets, order, span, behind).await?;
        let wanted: Vec<(&Source, Ranks)> =
            sets.into_iter().zip(ranks).filter(|(_, ranks)| ranks.first < ranks.end).collect();
        if !wanted.is_empty() {
            let mut pipeline = Pipeline::new();
            for (source, ranks) in &wanted {
                let (first, last) = ranks.page(order, count);
                pipeline.cmd("ZRANGE").arg(&source.key).arg(first).arg(last).arg("WITHSCORES");
            }
            for ((source, _), reply) in wanted.iter().zip(self.read(&pipeline).await?) {
                let found: Vec<(String, f64)> = typed(reply, "jobs of a set")?;
                entries.extend(found.into_iter().filter_map(|(id, score)| source.entry(&id, score, None)));
            }
        }
        entries.sort_by(|a, b| order.compare((a.score, a.id.as_str()), (b.score, b.id.as_str())));
        entries.truncate(count);
        Ok(entries)
    }

    /// The entries with their records. What was deleted meanwhile is left out.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn listed(&self, entries: Vec<Entry>) -> Result<Vec<Listed>, LinkError> {
        let mut by_queue: BTreeMap<QueueName, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_queue.entry(entry.queue.clone()).or_default().push(index);
        }
        let mut pipeline = Pipeline::new();
        for (queue, indexes) in &by_queue {
            let keys = self.keys.queue(queue);
            let ids: Vec<&str> = indexes.iter().map(|&index| entries[index].id.as_str()).collect();
            pipeline.cmd("HMGET").arg(&keys.jobs).arg(&ids).cmd("HMGET").arg(&keys.history).arg(&ids);
        }
        if by_queue.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut texts =
            || -> Result<Vec<Option<Vec<u8>>>, LinkError> { typed(replies.next().unwrap_or(Value::Nil), "records") };
        let mut standings: Vec<Option<Option<Standing>>> = vec![None; entries.len()];
        for indexes in by_queue.values() {
            let (records, histories) = (texts()?, texts()?);
            for ((&index, record), history) in indexes.iter().zip(records).zip(histories) {
                let Some(record) = record else { continue };
                standings[index] = Some(entries[index].standing(&record, history.unwrap_or_default()));
            }
        }
        let listed = entries.into_iter().zip(standings);
        Ok(listed.filter_map(|(entry, standing)| Some(Listed { entry, standing: standing? })).collect())
    }

    /// The running jobs of these queues: there are never more than slots.
    async fn running(
        &self,
        sources: &[&Source],
        order: Order,
        span: Span,
        behind: Option<&Position>,
    ) -> Result<Vec<Entry>, LinkError> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for source in sources {
            pipeline.hgetall(&source.key);
        }
        let mut entries = Vec::new();
        for (source, reply) in sources.iter().zip(self.read(&pipeline).await?) {
            let found: Vec<(String, String)> = typed(reply, "running jobs")?;
            entries.extend(found.iter().filter_map(|(id, holder)| {
                let active = ActiveView::parse(holder)?;
                #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
                let score = active.started.as_millis() as f64;
                source.entry(id, score, Some(active))
            }));
        }
        let is_behind = |entry: &Entry, position: &Position| {
            order.compare((entry.score, entry.id.as_str()), (position.score, &position.id)) == Ordering::Greater
        };
        entries.retain(|entry| span.holds(instant(entry.score)));
        entries.retain(|entry| behind.is_none_or(|position| is_behind(entry, position)));
        Ok(entries)
    }

    /// The ranks of each set that lie in the span and behind the position.
    async fn ranks(
        &self,
        sets: &[&Source],
        order: Order,
        span: Span,
        behind: Option<&Position>,
    ) -> Result<Vec<Ranks>, LinkError> {
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let below = |at: Option<Timestamp>, otherwise: &str| {
            at.map_or(otherwise.to_owned(), |at| format!("({}", at.as_millis()))
        };
        let mut pipeline = Pipeline::new();
        for source in sets {
            let span = if source.place.is_timed() { span } else { Span::default() };
            pipeline.zcount(&source.key, "-inf", below(span.from, "(-inf"));
            pipeline.zcount(&source.key, "-inf", below(span.until, "+inf"));
            if let Some(Position { score, .. }) = behind {
                pipeline.zcount(&source.key, "-inf", format!("({score}"));
                pipeline.zcount(&source.key, "-inf", score.to_string());
            }
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut next = || number(replies.next().unwrap_or(Value::Nil));
        let mut ranks = Vec::with_capacity(sets.len());
        for _ in sets {
            let (first, end) = (next()?, next()?);
            let tied = if behind.is_some() { (next()?, next()?) } else { (first, first) };
            ranks.push(Ranks { first, end, tied });
        }
        if let Some(position) = behind {
            self.part_ties(sets, &mut ranks, order, position).await?;
            ranks.iter_mut().for_each(|ranks| ranks.cut(order));
        }
        Ok(ranks)
    }

    /// Finds, among entries with the score of the position, where those behind it begin: by halves, in all sets at once.
    async fn part_ties(
        &self,
        sets: &[&Source],
        ranks: &mut [Ranks],
        order: Order,
        position: &Position,
    ) -> Result<(), LinkError> {
        loop {
            let mut pipeline = Pipeline::new();
            let mut asked: Vec<(&mut Ranks, u64)> = Vec::new();
            for (source, ranks) in sets.iter().zip(ranks.iter_mut()).filter(|(_, ranks)| ranks.tied.0 < ranks.tied.1) {
                let middle = ranks.tied.0.midpoint(ranks.tied.1);
                pipeline.cmd("ZRANGE").arg(&source.key).arg(middle).arg(middle);
                asked.push((ranks, middle));
            }
            if asked.is_empty() {
                return Ok(());
            }
            for ((ranks, middle), reply) in asked.into_iter().zip(self.read(&pipeline).await?) {
                let found: Vec<String> = typed(reply, "a job of a set")?;
                let before = found.first().is_some_and(|id| match order {
                    Order::Rising => id.as_str() <= position.id.as_str(),
                    Order::Falling => id.as_str() < position.id.as_str(),
                });
                if before {
                    ranks.tied.0 = middle + 1;
                } else {
                    ranks.tied.1 = middle;
                }
            }
        }
    }
}

impl Source {
    /// `None` for what is no id, which nothing of ours writes.
    fn entry(&self, id: &str, score: f64, active: Option<ActiveView>) -> Option<Entry> {
        let id = JobId::parse(id).ok()?;
        Some(Entry { queue: self.queue.clone(), place: self.place, id, score, active })
    }
}

impl Entry {
    fn standing(&self, record: &[u8], before: Vec<u8>) -> Option<Standing> {
        let (job, history) = parsed(record, &before).ok()?;
        let due = match self.place {
            Place::Pending | Place::Held => Some(job.due.unwrap_or(job.enqueued_at)),
            Place::Scheduled | Place::Retry => Some(instant(self.score)),
            _ => None,
        };
        Some(Standing { job, history, before, place: self.place, active: self.active.clone(), due })
    }
}

impl Ranks {
    /// Leaves what lies behind the position; all ties are parted.
    fn cut(&mut self, order: Order) {
        match order {
            Order::Rising => self.first = self.first.max(self.tied.0),
            Order::Falling => self.end = self.end.min(self.tied.0),
        }
    }

    /// The first and the last rank of a page.
    fn page(self, order: Order, count: usize) -> (u64, u64) {
        let count = count as u64;
        match order {
            Order::Rising => (self.first, (self.first + count).min(self.end) - 1),
            Order::Falling => (self.end.saturating_sub(count).max(self.first), self.end - 1),
        }
    }
}
