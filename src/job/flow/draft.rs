//! A job of a flow before its turn: complete, but for the times that count from when it becomes ready.

use serde::{Deserialize, Serialize};

use crate::job::{Job, Timestamp};

/// The job as if it had been ready when its flow was submitted, and which of its times move with its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub job: Job,
    /// Its delay is a span: it counts from when the job becomes ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// So does the span after which it expires, from when it is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires_later: bool,
}

impl Draft {
    /// The job, ready at `now`.
    pub(crate) fn ready(&self, now: Timestamp) -> Job {
        let submitted = self.job.enqueued_at;
        let due = match self.job.due {
            Some(due) if self.delayed => Some(now.after(due.since(submitted))),
            due => due.filter(|due| *due > now),
        };
        let expires = match self.job.expires {
            Some(expires) if self.expires_later => {
                let span = expires.since(self.job.due.unwrap_or(submitted));
                Some(due.unwrap_or(now).after(span))
            }
            expires => expires,
        };
        Job { enqueued_at: now, due, expires, ..self.job.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixture;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn spans_count_from_when_the_job_becomes_ready() {
        let job = |due: Option<u64>, expires: Option<u64>| {
            let plain = fixture::job(serde_json::json!({}));
            Job { enqueued_at: at(100), due: due.map(at), expires: expires.map(at), ..plain }
        };
        let times = |draft: Draft| {
            let ready = draft.ready(at(1000));
            (ready.enqueued_at, ready.due, ready.expires)
        };
        let draft = |job, delayed, expires_later| Draft { job, delayed, expires_later };
        // In 60 s, and worth 30 s from then.
        let spans = draft(job(Some(160), Some(190)), true, true);
        assert_eq!(times(spans), (at(1000), Some(at(1060)), Some(at(1090))));
        // At a time that is past by now, worth 30 s from when it could start.
        let past = draft(job(Some(500), Some(530)), false, true);
        assert_eq!(times(past), (at(1000), None, Some(at(1030))));
        // At a time that is to come, and not after another.
        let fixed = draft(job(Some(2000), Some(2500)), false, false);
        assert_eq!(times(fixed), (at(1000), Some(at(2000)), Some(at(2500))));
        assert_eq!(times(draft(job(None, None), false, true)), (at(1000), None, None));
    }
}
