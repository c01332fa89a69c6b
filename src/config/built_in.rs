//! Tasks that no file declares: what a producer brings along itself, to be done when its job has ended.

use std::sync::{Arc, LazyLock};

use super::{BatchRule, Step, Task};
use crate::job::{QueueName, TaskName};

/// The task of a webhook of RQ.
pub(crate) const WEBHOOK: &str = "rq.webhook";

static WEBHOOK_TASK: LazyLock<Arc<Task>> = LazyLock::new(|| {
    Arc::new(Task {
        name: TaskName::parse(WEBHOOK).expect("a valid name"),
        names: Vec::new(),
        // Of no consequence: its jobs are put into the queue of the job that they tell of.
        queue: QueueName::parse("rq").expect("a valid name"),
        params: Vec::new(),
        timeout: None,
        retry: None,
        expires: None,
        limits: Vec::new(),
        unique: None,
        batch: BatchRule::Never,
        steps: vec![Step::Webhook],
        result: None,
    })
});

/// A task by a name that no `[tasks.NAME]` has.
pub(super) fn built_in(name: &TaskName) -> Option<&'static Arc<Task>> {
    (name.as_str() == WEBHOOK).then(|| &*WEBHOOK_TASK)
}
