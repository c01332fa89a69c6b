//! From words to what follows: who becomes ready.

use redis::{FromRedisValue, Pipeline};

use crate::broker::script::{Script, only};
use crate::broker::{Broker, BrokerError};
use crate::job::flow::{self, Word};
use crate::job::{FlowId, QueueName, Timestamp};
use crate::store::accepted;

/// A word as it stands in its list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    text: String,
    /// `None` when this version cannot read it: it is passed over.
    pub word: Option<Word>,
}

impl Broker {
    /// The oldest words of each of these queues that has any, up to `limit` of each.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn words(
        &self,
        queues: &[QueueName],
        limit: usize,
    ) -> Result<Vec<(QueueName, Vec<Heard>)>, BrokerError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for queue in queues {
            pipeline.cmd("LRANGE").arg(self.keys(queue).words).arg(0).arg(limit.saturating_sub(1));
        }
        let unexpected = |_| BrokerError::Answer { script: "LRANGE", expected: "words" };
        let mut words = Vec::new();
        for (queue, reply) in queues.iter().zip(self.store.link.send(&pipeline).await?) {
            let texts: Vec<String> = FromRedisValue::from_redis_value(accepted(reply)?).map_err(unexpected)?;
            if !texts.is_empty() {
                let heard = texts.into_iter().map(|text| Heard { word: read(queue, &text), text });
                words.push((queue.clone(), heard.collect()));
            }
        }
        Ok(words)
    }

    /// Takes these words, which stood at the head of the queue's list, and does what follows from them in their flows. Says
    /// how many were still there to be taken.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it; what was taken is not taken again.
    pub(crate) async fn advance(
        &self,
        queue: &QueueName,
        heard: &[Heard],
        now: Timestamp,
    ) -> Result<usize, BrokerError> {
        if heard.is_empty() {
            return Ok(0);
        }
        let all = self.store.keys.flows();
        let flows = flows_of(heard);
        let mut touched = vec![self.keys(queue).words, all.due, all.completed, all.stopped];
        for flow in &flows {
            let keys = self.store.keys.flow(flow);
            touched.extend([keys.plan, keys.state, keys.ready]);
        }
        let mut pipeline = Pipeline::new();
        Script::flow_advance.call(&mut pipeline, &touched.iter().map(String::as_str).collect::<Vec<_>>());
        pipeline.arg(now.as_millis());
        for Heard { text, word } in heard {
            match word {
                None => pipeline.arg(text).arg(0).arg("").arg("").arg("").arg("").arg("").arg(""),
                Some(word) => {
                    let number = 1 + flows.iter().position(|flow| **flow == word.flow).expect("it was gathered");
                    let result = word.result.as_ref().map(ToString::to_string).unwrap_or_default();
                    pipeline.arg(text).arg(number).arg(word.flow.as_str()).arg(flow::ids_of(&word.flow));
                    pipeline.arg(word.name.as_str()).arg(word.what.letter()).arg(result);
                    pipeline.arg(word.error.as_deref().unwrap_or_default())
                }
            };
        }
        Script::flow_advance.reply(only(self.store.link.send(&pipeline).await?)?, "a count")
    }
}

fn flows_of(heard: &[Heard]) -> Vec<&FlowId> {
    let mut flows: Vec<&FlowId> = heard.iter().filter_map(|heard| heard.word.as_ref()).map(|word| &word.flow).collect();
    flows.sort_unstable();
    flows.dedup();
    flows
}

fn read(queue: &QueueName, text: &str) -> Option<Word> {
    let word = serde_json::from_str(text);
    word.map_err(|error| tracing::error!(%queue, "a word to a flow cannot be read and is passed over: {error}")).ok()
}
