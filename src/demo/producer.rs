//! The clients of the Python application, Celery 5.4 and RQ 2.0, as far as Redis sees them: what they write to enqueue
//! a job, and how they read what became of it.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisError, Value as Reply};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::workload::{Call, Work};
use crate::clock;
use crate::config::Secret;
use crate::intake::celery::answer::result_key;
use crate::intake::celery::produce::{Call as Message, CallOptions};
use crate::intake::rq::job::{DEFAULT_TIMEOUT, Lapse};
use crate::intake::rq::keys;
use crate::intake::rq::produce::Enqueue;
use crate::intake::rq::result::{read_exc_string, read_return_value};
use crate::job::Wire;
use crate::store::ForeignList;

/// The wait for the answer to one command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// RQ has no message that says a job is done; its clients look again and again.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(super) enum ProducerError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the result of {0} cannot be read")]
    Result(String),
    #[error("the connection ended while an answer was awaited")]
    Gone,
}

/// One connection, for commands and for the messages of channels.
pub(super) struct Producer {
    connection: MultiplexedConnection,
    pushes: mpsc::UnboundedReceiver<PushInfo>,
}

/// A job that was put in.
pub(super) struct Ticket {
    pub(super) id: String,
    /// The commands that did it, in short.
    pub(super) how: String,
    wire: Wire,
}

/// What its producer learns, in its own words.
pub(super) enum Answer {
    Done { state: String, result: Value },
    Failed { state: String, reason: String },
}

impl Producer {
    pub(super) async fn connect(url: &Secret) -> Result<Self, ProducerError> {
        let (sink, pushes) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT)).set_push_sender(sink);
        let info = redis::Client::open(url.expose())?.get_connection_info().clone();
        // In protocol 3 messages of channels and replies share a connection.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, pushes })
    }

    pub(super) async fn put(&mut self, work: &Work) -> Result<Ticket, ProducerError> {
        let id = Uuid::new_v4().to_string();
        match &work.call {
            Call::Celery { args, kwargs } => self.delay(work, id, args, kwargs).await,
            Call::Rq { args, kwargs, result_ttl, failure_ttl } => {
                let now = clock::now().to_utc();
                let fields = Enqueue {
                    func_name: &work.function(),
                    args,
                    kwargs,
                    origin: work.queue,
                    created_at: now,
                    enqueued_at: now,
                    timeout: Lapse::After(DEFAULT_TIMEOUT),
                    result_ttl: Some(Lapse::After(*result_ttl)),
                    failure_ttl: Some(Lapse::After(*failure_ttl)),
                };
                self.enqueue(work, id, &fields.encode()).await
            }
        }
    }

    /// As `task.delay()`: listens for the result first, so that none can be missed.
    async fn delay(
        &mut self,
        work: &Work,
        id: String,
        args: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Ticket, ProducerError> {
        let element = Message {
            task: &work.function(),
            args,
            kwargs,
            id: &id,
            queue: work.queue,
            origin: &format!("gen{}@jobsd-demo", std::process::id()),
            reply_to: &Uuid::new_v4().to_string(),
            delivery_tag: &Uuid::new_v4().to_string(),
            options: CallOptions::default(),
        }
        .encode();
        let list = list(Wire::Celery, work.queue);
        self.connection.subscribe(result_key(&id)).await?;
        redis::cmd("LPUSH").arg(&list).arg(&element).exec_async(&mut self.connection).await?;
        let how = format!("LPUSH {list}, the Celery message {id}");
        Ok(Ticket { id, how, wire: Wire::Celery })
    }

    /// As `queue.enqueue()`.
    async fn enqueue(
        &mut self,
        work: &Work,
        id: String,
        fields: &[(&'static str, Vec<u8>)],
    ) -> Result<Ticket, ProducerError> {
        let (list, job) = (list(Wire::Rq, work.queue), keys::job(&id));
        redis::pipe().atomic().sadd(keys::QUEUES, &list).exec_async(&mut self.connection).await?;
        redis::pipe()
            .atomic()
            .hset(&job, "status", "queued")
            .hset_multiple(&job, fields)
            .rpush(&list, &id)
            .exec_async(&mut self.connection)
            .await?;
        Ok(Ticket { how: format!("HSET {job}, RPUSH {list}"), id, wire: Wire::Rq })
    }

    /// Waits until the job has ended.
    pub(super) async fn answer(&mut self, ticket: &Ticket) -> Result<Answer, ProducerError> {
        match ticket.wire {
            Wire::Celery => self.celery_answer(&ticket.id).await,
            Wire::Rq => self.rq_answer(&ticket.id).await,
        }
    }

    /// As `AsyncResult.get()`: one look at the stored document, then the published ones.
    async fn celery_answer(&mut self, id: &str) -> Result<Answer, ProducerError> {
        let key = result_key(id);
        let mut document: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query_async(&mut self.connection).await?;
        loop {
            if let Some(bytes) = document {
                let unreadable = |_| ProducerError::Result(key.clone());
                if let Some(answer) = celery_end(&serde_json::from_slice(&bytes).map_err(unreadable)?) {
                    self.connection.unsubscribe(&key).await?;
                    return Ok(answer);
                }
            }
            let push = self.pushes.recv().await.ok_or(ProducerError::Gone)?;
            document = published(&push, &key)?;
        }
    }

    /// As a client that polls `job.get_status()` and then reads `job.return_value()`.
    async fn rq_answer(&mut self, id: &str) -> Result<Answer, ProducerError> {
        let (job, results) = (keys::job(id), keys::results(id));
        let state = loop {
            let status: Option<String> =
                redis::cmd("HGET").arg(&job).arg("status").query_async(&mut self.connection).await?;
            match status.as_deref() {
                Some("queued" | "started" | "scheduled" | "deferred") | None => tokio::time::sleep(POLL).await,
                Some(ended) => break ended.to_owned(),
            }
        };
        let newest = redis::cmd("XREVRANGE")
            .arg(&results)
            .arg(&["+", "-", "COUNT", "1"])
            .query_async(&mut self.connection)
            .await?;
        let entries: Vec<(String, HashMap<String, String>)> = newest;
        let field = |name: &str| entries.first().and_then(|(_, fields)| fields.get(name));
        let unreadable = || ProducerError::Result(results.clone());
        if state == "finished" {
            let result = field("return_value").map(|text| read_return_value(text).ok_or_else(unreadable));
            return Ok(Answer::Done { state, result: result.transpose()?.unwrap_or_default() });
        }
        let traceback = field("exc_string").and_then(|text| read_exc_string(text));
        let reason = traceback.as_deref().and_then(|text| text.lines().last()).unwrap_or("without a reason").to_owned();
        Ok(Answer::Failed { state, reason })
    }
}

/// The list that a producer of this queue pushes to.
fn list(wire: Wire, queue: &str) -> String {
    let mut keys = ForeignList::new(wire, queue).keys;
    keys.swap_remove(0)
}

/// What a result document says of a task that has ended.
fn celery_end(document: &Value) -> Option<Answer> {
    let state = document["status"].as_str().unwrap_or_default().to_owned();
    match state.as_str() {
        "SUCCESS" => Some(Answer::Done { state, result: document["result"].clone() }),
        "FAILURE" | "REVOKED" => {
            let error = &document["result"];
            let class = error["exc_type"].as_str().unwrap_or("Exception");
            let reason = format!("{class}: {}", error["exc_message"][0].as_str().unwrap_or_default());
            Some(Answer::Failed { state, reason })
        }
        _ => None,
    }
}

/// The bytes of a message on this channel.
fn published(push: &PushInfo, channel: &str) -> Result<Option<Vec<u8>>, ProducerError> {
    match (&push.kind, push.data.as_slice()) {
        (PushKind::Disconnection, _) => Err(ProducerError::Gone),
        (PushKind::Message, [Reply::BulkString(name), Reply::BulkString(bytes)]) if name == channel.as_bytes() => {
            Ok(Some(bytes.clone()))
        }
        _ => Ok(None),
    }
}
