//! Jobs that wait for others of their task, to be done in one batch.
//!
//! Each group has a slot from its first job on, which its batch then runs in; groups are told apart by what a batch has
//! in common: the task, and the timeout.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::Claim;
use crate::config::Batch;
use crate::job::{JobId, TaskName};

#[derive(Debug, Default)]
pub(super) struct Gather {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    task: TaskName,
    timeout: Duration,
    max: usize,
    until: Instant,
    claims: Vec<Claim>,
}

impl Gather {
    /// Slots that groups have.
    pub(super) fn slots(&self) -> usize {
        self.groups.len()
    }

    /// Jobs that could join the groups.
    pub(super) fn room(&self) -> usize {
        self.groups.iter().map(|group| group.max - group.claims.len()).sum()
    }

    /// When the next group begins, full or not.
    pub(super) fn due(&self) -> Option<Instant> {
        self.groups.iter().map(|group| group.until).min()
    }

    /// Takes a job in; gives it back when it would need a slot and none is `free`.
    pub(super) fn add(&mut self, claim: Claim, timeout: Duration, batch: Batch, free: bool) -> Option<Claim> {
        let is_its = |group: &&mut Group| {
            group.task == claim.job.task && group.timeout == timeout && group.claims.len() < group.max
        };
        if let Some(group) = self.groups.iter_mut().find(is_its) {
            group.claims.push(claim);
        } else if free {
            let (task, until) = (claim.job.task.clone(), Instant::now() + batch.wait);
            self.groups.push(Group { task, timeout, max: batch.max, until, claims: vec![claim] });
        } else {
            return Some(claim);
        }
        None
    }

    /// A group that is full or has waited long enough; any, when nothing more will come.
    pub(super) fn ready(&mut self, no_more: bool) -> Option<(Vec<Claim>, Duration)> {
        let now = Instant::now();
        let is_ready = |group: &Group| no_more || group.claims.len() >= group.max || group.until <= now;
        let group = self.groups.remove(self.groups.iter().position(is_ready)?);
        Some((group.claims, group.timeout))
    }

    /// Takes a job out, if it is here.
    pub(super) fn remove(&mut self, id: &JobId) -> Option<Claim> {
        let position = |group: &Group| group.claims.iter().position(|claim| claim.job.id == *id);
        let (at, place) = self.groups.iter().enumerate().find_map(|(at, group)| Some((at, position(group)?)))?;
        let claim = self.groups[at].claims.remove(place);
        if self.groups[at].claims.is_empty() {
            self.groups.remove(at);
        }
        Some(claim)
    }
}
