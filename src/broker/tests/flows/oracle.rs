//! What should become of a flow, as plainly as it can be said: the words of its jobs, one after another, and a walk
//! through its shape after each. It knows nothing of joins and counts nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::QueueName;
use crate::job::flow::{Callback, Outline, Shape, Stand, Told};

#[derive(Debug)]
pub(super) struct Oracle {
    outline: Outline,
    stands: BTreeMap<String, Stand>,
    /// Those that have ended, however, at least once.
    ended: BTreeSet<String>,
    pub(super) died: bool,
    pub(super) cancelled: bool,
}

/// What a part of the flow means for what follows it.
#[derive(Clone, Copy)]
struct Passed {
    completed: bool,
    ended: bool,
}

impl Oracle {
    pub(super) fn new(outline: &Outline) -> Self {
        let mut oracle = Self {
            outline: outline.clone(),
            stands: BTreeMap::new(),
            ended: BTreeSet::new(),
            died: false,
            cancelled: false,
        };
        oracle.walk();
        oracle
    }

    pub(super) fn stand(&self, name: &str) -> Stand {
        self.stands.get(name).copied().unwrap_or(Stand::Blocked)
    }

    pub(super) fn stands(&self) -> impl Iterator<Item = (&str, Stand)> {
        self.outline.jobs().map(|listed| (listed.name.as_str(), self.stand(listed.name.as_str())))
    }

    pub(super) fn queue_of(&self, name: &str) -> Option<&QueueName> {
        self.outline.jobs().find(|listed| listed.name.as_str() == name).map(|listed| &listed.queue)
    }

    /// A ready job is in its queue, or was ended instead.
    pub(super) fn start(&mut self, name: &str) {
        assert_eq!(self.stands.insert(name.to_owned(), Stand::Started), Some(Stand::Ready), "{name} was not to start");
    }

    /// A job without a record is to start anew.
    pub(super) fn reopen(&mut self, name: &str) {
        let before = self.stands.insert(name.to_owned(), Stand::Ready);
        assert!(matches!(before, Some(Stand::Dead | Stand::Cancelled)), "{name} was {before:?}");
    }

    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        for stand in self.stands.values_mut().filter(|stand| **stand == Stand::Ready) {
            *stand = Stand::Cancelled;
        }
    }

    pub(super) fn hear(&mut self, name: &str, told: Told) {
        let before = self.stand(name);
        // Who is about to start has not ended: it is said of an earlier life.
        if matches!(before, Stand::Blocked | Stand::Ready | Stand::Completed) {
            return;
        }
        match told {
            Told::Again if before == Stand::Started => return,
            Told::Again => drop(self.stands.insert(name.to_owned(), Stand::Started)),
            Told::Completed => self.end(name, Stand::Completed),
            Told::Dead => self.end(name, Stand::Dead),
            Told::Cancelled => self.end(name, Stand::Cancelled),
        }
        let is_member = self.outline.members.iter().any(|listed| listed.name.as_str() == name);
        self.died |= told == Told::Dead && is_member;
        if !self.cancelled {
            self.walk();
            self.call_back();
        }
    }

    fn end(&mut self, name: &str, stand: Stand) {
        self.stands.insert(name.to_owned(), stand);
        self.ended.insert(name.to_owned());
    }

    fn call_back(&mut self) {
        let of =
            |stand: Stand| self.outline.members.iter().filter(|one| self.stand(one.name.as_str()) == stand).count();
        let nothing_runs = of(Stand::Ready) + of(Stand::Started) == 0;
        let all_completed = of(Stand::Completed) == self.outline.members.len();
        let due = |callback| match callback {
            Callback::Success => all_completed,
            Callback::Complete => nothing_runs,
            Callback::Death => self.died,
        };
        let due: Vec<Callback> =
            self.outline.callbacks.iter().map(|(callback, _)| *callback).filter(|one| due(*one)).collect();
        for callback in due {
            self.stands.entry(callback.as_str().to_owned()).or_insert(Stand::Ready);
        }
    }

    /// Lets everything start that may.
    fn walk(&mut self) {
        let shape = self.outline.shape.clone();
        self.walk_part(&shape, Passed { completed: true, ended: true });
    }

    fn walk_part(&mut self, shape: &Shape, before: Passed) -> Passed {
        match shape {
            Shape::Job(member) => self.visit(*member, before),
            Shape::Chain(parts) => parts.iter().fold(before, |before, part| self.walk_part(part, before)),
            Shape::Group(parts) => {
                let passed: Vec<Passed> = parts.iter().map(|part| self.walk_part(part, before)).collect();
                Passed {
                    completed: passed.iter().all(|part| part.completed),
                    ended: passed.iter().all(|part| part.ended),
                }
            }
            Shape::Graph(follows) => {
                for (member, after) in follows.iter().enumerate() {
                    let passed: Vec<Passed> = after.iter().map(|&one| self.passed(one)).collect();
                    let before = Passed {
                        completed: passed.iter().all(|one| one.completed),
                        ended: passed.iter().all(|one| one.ended),
                    };
                    self.visit(member, before);
                }
                before
            }
        }
    }

    fn visit(&mut self, member: usize, before: Passed) -> Passed {
        let listed = &self.outline.members[member];
        if if listed.allow_failure { before.ended } else { before.completed } {
            self.stands.entry(listed.name.to_string()).or_insert(Stand::Ready);
        }
        self.passed(member)
    }

    fn passed(&self, member: usize) -> Passed {
        let name = self.outline.members[member].name.as_str();
        Passed { completed: self.stand(name) == Stand::Completed, ended: self.ended.contains(name) }
    }
}
