//! Cancelling jobs while no daemon runs: straight in Redis, by the daemon's own steps.
//!
//! A job that waits is cancelled there and then. One that a dead node was running gets a request, which whoever takes it
//! over finds before it could run again. The private Redis of `redis.url = "embedded"` is down when its daemon is; it is
//! started for the moment.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CliError, Common, alter, client, output};
use crate::broker::{Altered, Broker, Change, scripts};
use crate::clock;
use crate::config::{self, Config, RedisUrl};
use crate::job::{JobId, NodeId, QueueName, Request};
use crate::store::{Embedded, Endpoint, Store};

/// What stands for a node in the history of a job that was cancelled so.
const NODE: &str = "command-line";

/// Redis for a moment, and the private server if it had to be started.
struct Visit {
    broker: Broker,
    server: Option<Embedded>,
}

pub(super) async fn cancel(common: &Common, ids: &[String], reason: Option<String>) -> Result<(), CliError> {
    let file = common.at.file().unwrap_or(Path::new("jobsd.toml"));
    let config = client::load(file)?;
    let visit = Visit::begin(&config).await?;
    let request = Request { at: clock::now(), by: client::user(), reason };
    let done = cancel_all(&visit.broker, &config, ids, &request).await;
    visit.end().await;
    let (answers, failed) = done?;
    for answer in &answers {
        if !common.json {
            output::line(&alter::told(answer["id"].as_str().unwrap_or_default(), answer));
        }
    }
    if common.json {
        output::json(&Value::Array(answers));
    }
    if failed { Err(CliError::Told) } else { Ok(()) }
}

/// What became of those that could be cancelled, and whether there were others.
async fn cancel_all(
    broker: &Broker,
    config: &Config,
    ids: &[String],
    request: &Request,
) -> Result<(Vec<Value>, bool), CliError> {
    let queues: Vec<QueueName> = config.queues.keys().cloned().collect();
    let (mut answers, mut failed) = (Vec::new(), false);
    for id in ids {
        match cancel_one(broker, &queues, id, request).await? {
            Ok(answer) => answers.push(answer),
            Err(words) => {
                eprintln!("jobsd: {id}: {words}");
                failed = true;
            }
        }
    }
    Ok((answers, failed))
}

async fn cancel_one(
    broker: &Broker,
    queues: &[QueueName],
    id: &str,
    request: &Request,
) -> Result<Result<Value, String>, CliError> {
    let unknown = || Ok(Err("no job has this id; ended jobs are deleted after a while".to_owned()));
    let Ok(id) = JobId::parse(id) else { return unknown() };
    let failed = |error: String| CliError::Unreachable(format!("failed to {error}"));
    let standing = broker.store.job(&id, queues).await.map_err(|error| failed(error.to_string()))?;
    let Some(standing) = standing else { return unknown() };
    let queue = &standing.job.queue;
    let change = Change::Cancel(request.clone());
    let altered = broker.alter(queue, std::slice::from_ref(&id), &change, clock::now()).await;
    let altered = altered.map_err(|error| failed(error.to_string()))?;
    let done = |outcome: &str| Ok(Ok(json!({"id": id.as_str(), "queue": queue.as_str(), "outcome": outcome})));
    match altered.first() {
        Some(Altered::Done(_)) => done("cancelled"),
        Some(Altered::Requested) => done("cancel-requested"),
        Some(Altered::Unfit(state)) => Ok(Err(format!("a job that is {} cannot be cancelled", state.as_str()))),
        Some(Altered::Restless) => Ok(Err("the job changed each time it was looked at".to_owned())),
        Some(Altered::Held(holder)) => Ok(Err(format!("its unique key is held by {holder}"))),
        Some(Altered::Unknown) | None => unknown(),
    }
}

impl Visit {
    async fn begin(config: &Config) -> Result<Self, CliError> {
        let config::Redis { url, tls, prefix, timeout, .. } = &config.redis;
        let of_config = |error: String| CliError::Config(format!("failed to {error}"));
        let endpoint = match url {
            RedisUrl::Url(url) => Endpoint::at_url(url, tls),
            RedisUrl::Sentinels(sentinels) => Endpoint::behind(sentinels, tls, *timeout),
            RedisUrl::Embedded { .. } => Endpoint::at_url(&Embedded::url(&config.node.state_dir), tls),
        };
        let endpoint = endpoint.map_err(|error| of_config(error.to_string()))?;
        let store = Arc::new(Store::at(endpoint, prefix, *timeout, scripts()));
        let node = NodeId::parse(NODE).expect("a valid name");
        let (broker, _) = Broker::new(store, node, config.node.lease);
        let mut visit = Self { broker, server: None };
        match (visit.broker.set_clock().await, url) {
            (Ok(_), _) => Ok(visit),
            (Err(_), RedisUrl::Embedded { .. }) => {
                let server = Embedded::start(&config.node.state_dir, None).await;
                visit.server = Some(server.map_err(|error| CliError::Failed(format!("failed to {error}")))?);
                let clock = visit.broker.set_clock().await;
                clock.map_err(|error| CliError::Unreachable(format!("failed to {error}")))?;
                Ok(visit)
            }
            (Err(error), _) => Err(CliError::Unreachable(format!("failed to {error}"))),
        }
    }

    /// The private server writes everything out.
    async fn end(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}
