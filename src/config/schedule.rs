//! `[schedules.NAME]`: a cron entry.

use crate::job::{Args, QueueName, TaskName};

/// One cron entry.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub name: String,
    pub cron: croner::Cron,
    /// The expression as the operator wrote it.
    pub expression: String,
    pub timezone: chrono_tz::Tz,
    pub task: TaskName,
    pub queue: QueueName,
    pub args: Args,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
}

/// What a fire does while the job of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// Nothing: this fire is left out.
    Skip,
    /// It is enqueued all the same.
    Allow,
}

/// What happens to fires that were missed while no node ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// They are left out.
    None,
    /// The latest of them is enqueued.
    Last,
}
