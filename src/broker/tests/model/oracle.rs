//! What should be, as plainly as it can be said: one map of jobs, changed by one step after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::{Altered, Settlement};
use crate::job::{Job, Next, State, TaskName, Timestamp};

/// What the oracle knows of one job.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) job: Job,
    pub(super) place: Place,
    /// Somebody asked for its end while it ran.
    pub(super) to_cancel: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// In line since then.
    Pending(Timestamp),
    Scheduled(Timestamp),
    Retry(Timestamp),
    Active {
        node: usize,
    },
    Ended(State),
    /// Taken out of there by a purge.
    Purged(Box<Place>),
}

impl Place {
    pub(super) fn state(&self) -> State {
        match self {
            Self::Pending(_) => State::Pending,
            Self::Scheduled(_) => State::Scheduled,
            Self::Retry(_) => State::Retry,
            Self::Active { .. } => State::Active,
            Self::Ended(state) => *state,
            Self::Purged(_) => State::Cancelled,
        }
    }

    fn waits(&self) -> bool {
        matches!(self, Self::Pending(_) | Self::Scheduled(_) | Self::Retry(_))
    }
}

/// What a person does to one job.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Cancel,
    Retry,
    Promote,
    Delete,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) jobs: BTreeMap<String, Known>,
    pub(super) paused: bool,
    pub(super) paused_tasks: BTreeSet<TaskName>,
}

impl Oracle {
    pub(super) fn add(&mut self, job: Job, now: Timestamp) {
        let place = job.due.map_or(Place::Pending(now), Place::Scheduled);
        self.jobs.insert(job.id.to_string(), Known { job, place, to_cancel: false });
    }

    pub(super) fn put(&mut self, id: &str, place: Place) {
        let known = self.jobs.get_mut(id).expect("the oracle knows every job");
        known.to_cancel &= matches!(place, Place::Active { .. });
        known.place = place;
    }

    pub(super) fn promote(&mut self, now: Timestamp) {
        for known in self.jobs.values_mut() {
            if let Place::Scheduled(due) | Place::Retry(due) = known.place
                && due <= now
            {
                known.place = Place::Pending(due);
            }
        }
    }

    /// The jobs that come next, in their order.
    pub(super) fn next(&self, want: usize, ageing: Duration) -> Vec<String> {
        let step = i64::try_from(ageing.as_millis()).expect("a short time");
        let mut line: Vec<(i64, &String)> = Vec::new();
        for (id, known) in &self.jobs {
            if let Place::Pending(since) = known.place
                && !self.paused
                && !self.paused_tasks.contains(&known.job.task)
            {
                let since = i64::try_from(since.as_millis()).expect("a near time");
                line.push((since + step * i64::from(known.job.priority.steps()), id));
            }
        }
        line.sort();
        line.into_iter().take(want).map(|(_, id)| id.clone()).collect()
    }

    /// Does it, and says what should be answered.
    pub(super) fn alter(&mut self, id: &str, verb: Verb, now: Timestamp) -> Altered {
        let Some(known) = self.jobs.get_mut(id) else { return Altered::Unknown };
        let state = known.place.state();
        let purged = matches!(known.place, Place::Purged(_));
        let ended = matches!(known.place, Place::Ended(_));
        match verb {
            Verb::Cancel if state == State::Active => {
                known.to_cancel = true;
                Altered::Requested
            }
            Verb::Cancel if known.place.waits() => {
                known.place = Place::Ended(State::Cancelled);
                Altered::Done(Some(State::Cancelled))
            }
            Verb::Retry if ended || matches!(state, State::Scheduled | State::Retry) => {
                known.place = Place::Pending(now);
                Altered::Done(Some(State::Pending))
            }
            Verb::Promote if matches!(state, State::Scheduled | State::Retry) => {
                known.place = Place::Pending(now);
                Altered::Done(Some(State::Pending))
            }
            Verb::Delete if state != State::Active && !purged => {
                self.jobs.remove(id);
                Altered::Done(None)
            }
            _ => Altered::Unfit(state),
        }
    }

    /// Takes out everything that waits; says which jobs.
    pub(super) fn purge(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        for (id, known) in self.jobs.iter_mut().filter(|(_, known)| known.place.waits()) {
            known.place = Place::Purged(Box::new(known.place.clone()));
            taken.push(id.clone());
        }
        taken
    }

    pub(super) fn restore(&mut self, taken: &[String]) {
        for id in taken {
            let known = self.jobs.get_mut(id).expect("what was purged is kept");
            let Place::Purged(before) = known.place.clone() else { panic!("{id} was purged") };
            known.place = *before;
        }
    }

    pub(super) fn count(&self, state: State) -> u64 {
        let of_state = |known: &&Known| known.place.state() == state && !matches!(known.place, Place::Purged(_));
        self.jobs.values().filter(of_state).count() as u64
    }
}

/// Where a job goes by its settlement.
pub(super) fn place_after(settlement: &Settlement) -> Place {
    match settlement.decision.next {
        Next::Release => Place::Pending(settlement.claim.job.due.unwrap_or(settlement.claim.job.enqueued_at)),
        Next::Retry { at } => Place::Retry(at),
        Next::End(state) => Place::Ended(state),
    }
}
