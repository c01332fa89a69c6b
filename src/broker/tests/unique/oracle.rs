//! What unique keys mean, as plainly as it can be said: the whole story of each job, and for each key who took it last.
//!
//! Written from the table in [`crate::job::unique`], not from the scripts: it knows what happened, where they work out
//! from sets and histories what must have.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::{Altered, Enqueued, Holder};
use crate::job::{Hold, Job, JobId, Next, Outcome, State, TaskName, Timestamp, Unique, UniqueKey, UniqueRule, Until};

/// What the oracle knows of one job.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) job: Job,
    pub(super) place: Place,
    serial: usize,
    /// An attempt has begun since it was put in, or sent off once more by a person.
    begun: bool,
    /// When the first one began that counts: an interrupted one was none.
    first_start: Option<Timestamp>,
    /// When the running one began.
    running_since: Option<Timestamp>,
    pub(super) to_cancel: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pending,
    Scheduled(Timestamp),
    Retry(Timestamp),
    /// With the token of its claim.
    Active(u64),
    Ended(State, Timestamp),
    Purged(Waiting),
    /// Retention has deleted it.
    Forgotten,
}

/// Where a purge took a job from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Pending,
    Scheduled(Timestamp),
    Retry(Timestamp),
}

/// Who took a key last, and on what terms.
#[derive(Debug, Clone)]
struct Owner {
    id: String,
    /// Which of the jobs that had this id, one after another.
    serial: usize,
    since: Timestamp,
    /// When the first came of those whose place was taken one after another.
    first: Timestamp,
    rule: UniqueRule,
    /// When a throttled job was to start.
    due: Timestamp,
}

type Key = (TaskName, UniqueKey);

#[derive(Debug, Clone, Default)]
pub(super) struct Oracle {
    pub(super) jobs: BTreeMap<String, Known>,
    owners: BTreeMap<(String, String), Owner>,
    serials: usize,
}

impl Place {
    pub(super) fn state(self) -> Option<State> {
        match self {
            Self::Pending => Some(State::Pending),
            Self::Scheduled(_) => Some(State::Scheduled),
            Self::Retry(_) => Some(State::Retry),
            Self::Active(_) => Some(State::Active),
            Self::Ended(state, _) => Some(state),
            Self::Purged(_) => Some(State::Cancelled),
            Self::Forgotten => None,
        }
    }

    fn waiting(self) -> Option<Waiting> {
        match self {
            Self::Pending => Some(Waiting::Pending),
            Self::Scheduled(due) => Some(Waiting::Scheduled(due)),
            Self::Retry(at) => Some(Waiting::Retry(at)),
            Self::Active(_) | Self::Ended(..) | Self::Purged(_) | Self::Forgotten => None,
        }
    }
}

impl Known {
    fn new(job: Job, place: Place, serial: usize) -> Self {
        Self { job, place, serial, begun: false, first_start: None, running_since: None, to_cancel: false }
    }
}

impl Oracle {
    /// Puts a job in, if nothing stands in its way.
    pub(super) fn enqueue(&mut self, mut job: Job, now: Timestamp) -> Enqueued {
        let id = job.id.to_string();
        if self.jobs.get(&id).is_some_and(|known| known.place != Place::Forgotten) {
            return Enqueued::Exists;
        }
        self.serials += 1;
        let serial = self.serials;
        let mut outcome = Enqueued::Added;
        if let Some(unique) = job.unique.clone() {
            let mut first = now;
            if let Some((holder, since_first)) = self.holder(&job.task, &unique.key, now) {
                let gives_way = matches!(unique.rule, UniqueRule::Replace(_) | UniqueRule::Debounce { .. });
                let waits = matches!(holder.state, Some(State::Pending | State::Scheduled | State::Retry));
                if !gives_way || !waits {
                    return Enqueued::Held(holder);
                }
                self.place_at(holder.id.as_str(), Place::Ended(State::Cancelled, now));
                first = since_first;
                if let UniqueRule::Debounce { longest: Some(longest), .. } = unique.rule {
                    job.due = job.due.map(|due| due.min(first.after(longest)));
                }
                outcome = Enqueued::Replaced { id: holder.id, due: job.due };
            }
            self.take(&job, serial, &unique, first, now);
        }
        let place = job.due.map_or(Place::Pending, Place::Scheduled);
        self.jobs.insert(id, Known::new(job, place, serial));
        outcome
    }

    /// A message that came while its key was held.
    pub(super) fn leave_out(&mut self, job: Job, now: Timestamp) {
        self.serials += 1;
        let place = Place::Ended(State::Cancelled, now);
        self.jobs.insert(job.id.to_string(), Known::new(job, place, self.serials));
    }

    fn take(&mut self, job: &Job, serial: usize, unique: &Unique, first: Timestamp, now: Timestamp) {
        let due = job.due.map_or(now, |due| due.max(now));
        let owner = Owner { id: job.id.to_string(), serial, since: now, first, rule: unique.rule, due };
        self.owners.insert(key_of(&job.task, &unique.key), owner);
    }

    /// Who holds a key, and when the first came whose place it has.
    pub(super) fn holder(&self, task: &TaskName, key: &UniqueKey, now: Timestamp) -> Option<(Holder, Timestamp)> {
        let owner = self.owners.get(&key_of(task, key))?;
        let known = self.jobs.get(&owner.id).filter(|known| known.serial == owner.serial);
        let place = known.map_or(Place::Forgotten, |known| known.place);
        let is_over = |end: Timestamp| end <= now;
        let waits = place.waiting().is_some();
        let begun = known.is_some_and(|known| known.begun);
        let state = place.state();
        if state == Some(State::Cancelled) {
            return None;
        }
        let (holds, free_at) = match owner.rule {
            UniqueRule::Reject(hold) | UniqueRule::Replace(hold) => {
                let (until, span) = match hold {
                    Hold::Until(until) => (Some(until), None),
                    Hold::For(span) => (None, Some(span)),
                    Hold::Either(until, span) => (Some(until), Some(span)),
                };
                let by_state = until.is_none_or(|until| match until {
                    Until::Started => waits && !begun,
                    Until::Ended => waits || state == Some(State::Active),
                    Until::Completed => waits || matches!(state, Some(State::Active | State::Dead)),
                });
                let free_at = span.map(|span| owner.since.after(span));
                (by_state && !free_at.is_some_and(is_over), free_at)
            }
            UniqueRule::Debounce { .. } => (waits && !begun, None),
            UniqueRule::Throttle { span } => match known.and_then(|known| known.first_start.or(known.running_since)) {
                _ if place == Place::Forgotten => {
                    let end = owner.due.after(span);
                    (!is_over(end), Some(end))
                }
                Some(start) => (!is_over(start.after(span)), Some(start.after(span))),
                None => (waits, None),
            },
        };
        let id = JobId::parse(&owner.id).expect("an id");
        holds.then_some((Holder { id, state, since: owner.since, free_at }, owner.first))
    }

    /// Whether a job that does not hold a key now will, if a purge is taken back or its attempt was none.
    pub(super) fn may_return(&self, task: &TaskName, key: &UniqueKey) -> bool {
        let Some(owner) = self.owners.get(&key_of(task, key)) else { return false };
        let known = self.jobs.get(&owner.id).filter(|known| known.serial == owner.serial);
        known.is_some_and(|known| match known.place {
            Place::Purged(_) => true,
            Place::Forgotten | Place::Ended(..) => false,
            _ => matches!(owner.rule, UniqueRule::Throttle { .. }),
        })
    }

    /// The keys that were ever taken.
    pub(super) fn keys(&self) -> Vec<Key> {
        let parsed = |(task, key): &(String, String)| (TaskName::parse(task).expect("a name"), UniqueKey::new(key));
        self.owners.keys().map(parsed).collect()
    }

    fn place_at(&mut self, id: &str, place: Place) {
        self.jobs.get_mut(id).expect("the oracle knows every job").place = place;
    }

    pub(super) fn promote(&mut self, now: Timestamp) {
        for known in self.jobs.values_mut() {
            if let Place::Scheduled(due) | Place::Retry(due) = known.place
                && due <= now
            {
                known.place = Place::Pending;
            }
        }
    }

    pub(super) fn claim(&mut self, id: &str, token: u64, now: Timestamp) {
        let known = self.jobs.get_mut(id).expect("the oracle knows every job");
        assert_eq!(known.place, Place::Pending, "{id} was claimed");
        known.place = Place::Active(token);
        (known.begun, known.running_since) = (true, Some(now));
    }

    /// What comes of an attempt that ends so.
    pub(super) fn settle(&mut self, id: &str, outcome: &Outcome, next: &Next, now: Timestamp) {
        let known = self.jobs.get_mut(id).expect("the oracle knows every job");
        let start = known.running_since.take();
        if !matches!(outcome, Outcome::Interrupted { .. } | Outcome::Expired(_)) {
            known.first_start = known.first_start.or(start);
        }
        known.to_cancel = false;
        known.place = match next {
            Next::Release => Place::Pending,
            Next::Retry { at } => Place::Retry(*at),
            Next::End(state) => Place::Ended(*state, now),
        };
    }

    pub(super) fn cancel(&mut self, id: &str, now: Timestamp) -> Altered {
        let known = self.jobs.get_mut(id).expect("the oracle knows every job");
        match known.place {
            Place::Forgotten => Altered::Unknown,
            Place::Active(_) => {
                known.to_cancel = true;
                Altered::Requested
            }
            place if place.waiting().is_some() => {
                known.place = Place::Ended(State::Cancelled, now);
                Altered::Done(Some(State::Cancelled))
            }
            place => Altered::Unfit(place.state().unwrap_or(State::Cancelled)),
        }
    }

    /// An ended job goes once more if nobody else holds its key; a waiting one goes at once.
    pub(super) fn retry(&mut self, id: &str, now: Timestamp) -> Altered {
        let known = self.jobs[id].clone();
        match known.place {
            Place::Forgotten => return Altered::Unknown,
            Place::Pending | Place::Active(_) | Place::Purged(_) => {
                return Altered::Unfit(known.place.state().unwrap_or(State::Cancelled));
            }
            Place::Scheduled(_) | Place::Retry(_) => {}
            Place::Ended(..) => {
                if let Some(unique) = &known.job.unique {
                    match self.holder(&known.job.task, &unique.key, now) {
                        Some((holder, _)) if holder.id != known.job.id => return Altered::Held(holder),
                        _ => self.take(&known.job, known.serial, unique, now, now),
                    }
                }
                self.jobs.insert(id.to_owned(), Known::new(known.job, Place::Pending, known.serial));
            }
        }
        self.place_at(id, Place::Pending);
        Altered::Done(Some(State::Pending))
    }

    pub(super) fn promote_one(&mut self, id: &str) -> Altered {
        match self.jobs[id].place {
            Place::Forgotten => Altered::Unknown,
            Place::Scheduled(_) | Place::Retry(_) => {
                self.place_at(id, Place::Pending);
                Altered::Done(Some(State::Pending))
            }
            place => Altered::Unfit(place.state().unwrap_or(State::Cancelled)),
        }
    }

    /// A deleted job is none any more, and holds nothing.
    pub(super) fn delete(&mut self, id: &str) -> Altered {
        let known = &self.jobs[id];
        match known.place {
            Place::Forgotten => return Altered::Unknown,
            Place::Active(_) => return Altered::Unfit(State::Active),
            Place::Purged(_) => return Altered::Unfit(State::Cancelled),
            _ => {}
        }
        let serial = known.serial;
        self.owners.retain(|_, owner| owner.serial != serial);
        self.jobs.remove(id);
        Altered::Done(None)
    }

    pub(super) fn purge(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        for (id, known) in &mut self.jobs {
            if let Some(waiting) = known.place.waiting() {
                known.place = Place::Purged(waiting);
                taken.push(id.clone());
            }
        }
        taken
    }

    pub(super) fn restore(&mut self, taken: &[String]) {
        for id in taken {
            let Place::Purged(waiting) = self.jobs[id].place else { panic!("{id} was purged") };
            let place = match waiting {
                Waiting::Pending => Place::Pending,
                Waiting::Scheduled(due) => Place::Scheduled(due),
                Waiting::Retry(at) => Place::Retry(at),
            };
            self.place_at(id, place);
        }
    }

    /// Retention deletes what has ended before that.
    pub(super) fn forget(&mut self, keep: Duration, now: Timestamp) {
        for known in self.jobs.values_mut() {
            if let Place::Ended(_, at) = known.place
                && at < now.before(keep)
            {
                known.place = Place::Forgotten;
            }
        }
    }
}

fn key_of(task: &TaskName, key: &UniqueKey) -> (String, String) {
    (task.to_string(), key.as_str().to_owned())
}
