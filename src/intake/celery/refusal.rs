//! A Celery message that cannot become a job: who waits for it, what to tell them, and what to tell the operator.

use super::result::Exception;

/// Everything that could be read of a message that is refused. A real worker drops such a message and its client waits
/// for ever; with an id, a FAILURE can be written instead.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) id: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) parent_id: Option<String>,
    /// The client asked for no result: write none.
    pub(crate) ignore_result: bool,
    /// What the client is told.
    pub(crate) exception: Exception,
    /// What the operator is told: one sentence, with the remedy.
    pub(crate) reason: String,
}

impl Refusal {
    /// A refusal of which nothing is known but why.
    pub(super) fn nameless(reason: String) -> Self {
        Self {
            id: None,
            task: None,
            group: None,
            parent_id: None,
            ignore_result: false,
            exception: Exception::invalid_task(&reason),
            reason,
        }
    }
}
