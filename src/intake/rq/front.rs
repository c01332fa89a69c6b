//! This node towards RQ's clients: what its pumps, its writer of answers and its clerk share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::answer::ending;
use super::roster::Roster;
use super::tallies::Tallies;
use super::{callback, webhook};
use crate::broker::{Answered, Broker, BrokerError, OwedJob, RqEnding, RqSay, RqWorkerTally};
use crate::clock;
use crate::config::Config;
use crate::job::{Job, Origin, QueueName, Timestamp, Wire};

#[derive(Debug)]
pub(crate) struct Front {
    pub(super) broker: Arc<Broker>,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) roster: Roster,
    pub(super) tallies: Tallies,
    /// The configuration has changed.
    pub(crate) changed: tokio::sync::Notify,
}

impl Front {
    pub(crate) fn new(broker: Arc<Broker>, config: Arc<ArcSwap<Config>>) -> Self {
        let roster = Roster::new(broker.node.clone());
        broker.beginnings.want(Wire::Rq, true);
        Self { broker, config, roster, tallies: Tallies::new(), changed: tokio::sync::Notify::new() }
    }

    /// How many more messages of RQ a queue may take; `None`: as many as it can.
    pub(crate) fn places(&self, queue: &QueueName) -> Option<usize> {
        self.roster.places(queue)
    }

    /// Takes note of the attempts that have begun since it was asked last.
    pub(super) fn hear_beginnings(&self) {
        self.roster.begin(self.broker.beginnings.take(Wire::Rq));
    }

    /// Tells the producers of these jobs what became of them; says for each what came of that.
    pub(crate) async fn answer(&self, batch: &[&OwedJob]) -> Result<Vec<Answered>, BrokerError> {
        // An attempt was told to have begun before it can have ended.
        self.hear_beginnings();
        let now = clock::now();
        let config = self.config.load();
        let (mut answers, mut followers, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for &owed in batch {
            let Origin::Wire { wire: Wire::Rq, reply: note, .. } = &owed.job.origin else { continue };
            let queue = note.get("origin").and_then(serde_json::Value::as_str).unwrap_or_default();
            let ended = self.roster.end(&owed.job.id, owed.token);
            let ending = ending(owed, note, ended.as_ref(), self.roster.schedules(queue), now);
            let ending = ending.unwrap_or_else(|| unreadable(owed, now));
            if let Some(ended) = ended {
                self.tally(&ended.worker, &ending, ended.began, now);
                if ended.shown {
                    watched.push(ended.worker);
                }
            }
            followers.extend(callback::due(owed, note, ending.say, &config, now));
            followers.extend(webhook::due(owed, note, &ending, &config, now));
            answers.push((owed, ending));
        }
        // Before the debt is paid: if we die in between, both are done again, and what follows has the same id.
        self.enqueue(&followers).await?;
        self.broker.rq_answer(&answers, &self.tallies.due(&watched), now).await
    }

    fn tally(&self, worker: &str, ending: &RqEnding, began: Timestamp, now: Timestamp) {
        let succeeded = ending.say == RqSay::Finished;
        self.tallies.add(RqWorkerTally {
            worker: worker.to_owned(),
            succeeded: u32::from(succeeded),
            failed: u32::from(!succeeded),
            seconds: now.since(began).as_secs_f64(),
        });
    }

    async fn enqueue(&self, jobs: &[Job]) -> Result<(), BrokerError> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.broker.enqueue(jobs).await.map(drop)
    }
}

/// Nobody can be told: pays the debt of a job whose note another version has written.
fn unreadable(owed: &OwedJob, now: Timestamp) -> RqEnding {
    tracing::error!(queue = %owed.job.queue, job = %owed.job.id, "its producer cannot be told what became of it");
    RqEnding {
        say: RqSay::Failed,
        queue: String::new(),
        began: None,
        ended: now,
        worker: String::new(),
        keep: 0,
        value: None,
        retries_left: None,
        shown: false,
        rate_limit: String::new(),
    }
}
