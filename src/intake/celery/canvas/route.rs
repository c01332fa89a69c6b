//! Where a message goes that we publish.
//!
//! A real worker has the application's routes. Here the configuration takes their place: it says which queue does a task,
//! and which lists that queue reads.

use crate::config::Config;
use crate::job::{NodeId, Wire};

/// What is known of where things go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routes<'a> {
    pub(crate) config: &'a Config,
    pub(crate) node: &'a NodeId,
    /// The Celery queue that the task came from which is followed.
    pub(crate) from: &'a str,
}

impl Routes<'_> {
    /// The Celery queue for a task: the one it asks for; else one that the task's own queue reads, rather the one that
    /// its predecessor came from; else, for a task that only others know, that one.
    pub(super) fn queue(&self, task: &str, asked: Option<&str>) -> String {
        if let Some(queue) = asked.filter(|queue| !queue.is_empty()) {
            return queue.to_owned();
        }
        let task = self.config.task_named(task);
        let queue = task.and_then(|task| self.config.queues.get(&task.queue));
        let mut lists = queue.iter().flat_map(|queue| &queue.lists).filter(|(wire, _)| *wire == Wire::Celery);
        let mut names = lists.by_ref().map(|(_, name)| name.as_str());
        match names.next() {
            Some(first) if first != self.from && !names.any(|name| name == self.from) => first.to_owned(),
            _ => self.from.to_owned(),
        }
    }
}
