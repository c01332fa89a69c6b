//! What became of jobs, as Redis holds it: the keys that src/store/keys.rs names.

use redis::Commands;
use serde_json::Value;

use super::{Redis, until};

/// The jobs of one queue.
pub(crate) struct Jobs {
    connection: redis::Connection,
    queue: String,
}

impl Jobs {
    pub(crate) fn of(redis: &Redis, queue: &str) -> Self {
        Self::over(redis.client(), queue)
    }

    pub(crate) fn over(connection: redis::Connection, queue: &str) -> Self {
        Self { connection, queue: queue.to_owned() }
    }

    /// How many are in a state: `pending`, `active`, `retry`, `completed`, `dead`, …
    pub(crate) fn count(&mut self, state: &str) -> usize {
        let key = self.key(state);
        let command = if matches!(state, "active" | "inflight" | "jobs") { "HLEN" } else { "ZCARD" };
        redis::cmd(command).arg(key).query(&mut self.connection).expect("Redis answers")
    }

    #[track_caller]
    pub(crate) fn until(&mut self, state: &str, count: usize) {
        let what = format!("{count} jobs of the queue {} to be {state}", self.queue);
        until(what, || (self.count(state) == count).then_some(()));
    }

    /// The history of a job, once it has ended in this state.
    #[track_caller]
    pub(crate) fn ended(&mut self, id: &str, state: &str) -> Value {
        let history = until(format!("the job {id} of the queue {} to end", self.queue), || {
            self.history(id).filter(|history| !history["end"].is_null())
        });
        assert_eq!(history["end"]["state"], state, "{id} ended otherwise: {history:#}");
        history
    }

    pub(crate) fn history(&mut self, id: &str) -> Option<Value> {
        let text: Option<String> = self.connection.hget(self.key("history"), id).expect("Redis answers");
        text.map(|text| serde_json::from_str(&text).expect("histories are JSON"))
    }

    /// The ids of the jobs in a state that is a sorted set.
    pub(crate) fn ids(&mut self, state: &str) -> Vec<String> {
        self.connection.zrange(self.key(state), 0, -1).expect("Redis answers")
    }

    /// The only dead job's cause and reason.
    #[track_caller]
    pub(crate) fn only_dead(&mut self) -> (String, String) {
        let id = until("a job to be dead", || self.ids("dead").into_iter().next());
        let history = self.ended(&id, "dead");
        assert_eq!(self.ids("dead").len(), 1);
        reason(&history)
    }

    pub(crate) fn key(&self, what: &str) -> String {
        format!("jobsd:{{{}}}:{what}", self.queue)
    }
}

/// The cause of a dead job, and the sentence a person reads.
pub(crate) fn reason(history: &Value) -> (String, String) {
    let cause = history["end"]["cause"].as_str().unwrap_or_default().to_owned();
    let last = history["mishaps"].as_array().and_then(|mishaps| mishaps.last());
    (cause, last.and_then(|mishap| mishap["message"].as_str()).unwrap_or_default().to_owned())
}
