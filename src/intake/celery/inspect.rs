//! What a client of Celery can ask a worker: the answers of `celery inspect …` and of Flower's pages.
//!
//! A job that waits or has its time to come stands in Redis and belongs to every node that serves its queue; each of them
//! tells of it. What runs is told by the node that runs it.

use serde_json::{Map, Value, json};

use super::front::{Front, is_celery};
use super::rate;
use super::request::Request;
use super::shown::{Shown, usual_name};
use super::usage;
use crate::broker::BrokerError;
use crate::clock;
use crate::config::Task;
use crate::intake::iso;
use crate::job::{JobId, QueueName, State};
use crate::store::{Listed, Order, Span};

/// Jobs that one answer shows at most.
const SHOWN: usize = 1000;
/// Ids that one question may be about.
const ASKED: usize = 1000;

/// The answer to a question; `None` when the method is none.
pub(super) async fn inspect(front: &Front, request: &Request) -> Result<Option<Value>, BrokerError> {
    Ok(Some(match request.method.as_str() {
        "ping" => json!({"ok": "pong"}),
        "clock" => json!({"clock": front.events.clock.now()}),
        "hello" => hello(front, request).await,
        "stats" => stats(front),
        "active" | "dump_active" => active(front, request.flag("safe")).await?,
        "reserved" | "dump_reserved" => reserved(front).await?,
        "scheduled" | "dump_schedule" => scheduled(front).await?,
        "registered" | "dump_tasks" => registered(front),
        "revoked" | "dump_revoked" => front.revoked.ids(clock::now()).into(),
        "active_queues" => active_queues(front),
        "conf" | "dump_conf" => conf(front),
        "report" => json!({"ok": report(front)}),
        "query_task" => query_task(front, request).await?,
        _ => return Ok(None),
    }))
}

/// A worker of Celery that starts asks what it has missed.
async fn hello(front: &Front, request: &Request) -> Value {
    if request.text("from_node") == Some(&front.events.worker) {
        return Value::Null;
    }
    if let Some(Value::Object(revoked)) = request.arguments.get("revoked") {
        let ids: Vec<String> = revoked.keys().take(ASKED).cloned().collect();
        if !ids.is_empty() {
            front.revoked.add(&front.broker.store, &ids, clock::now()).await;
        }
    }
    // Not what we know: it would be stamped by a clock that only this machine has.
    json!({"revoked": {}, "clock": front.events.clock.tick()})
}

fn stats(front: &Front) -> Value {
    let config = front.config.load();
    let tally = front.tally();
    let name = |task| config.tasks.get(task).and_then(|task| usual_name(task)).map(str::to_owned);
    let total: Map<String, Value> =
        tally.iter().map(|(task, count)| (name(task).unwrap_or_else(|| task.to_string()), (*count).into())).collect();
    let slots = front.slots();
    json!({
        "total": total,
        "pid": std::process::id(),
        "clock": front.events.clock.now().to_string(),
        "uptime": front.born.elapsed().as_secs(),
        "pool": {
            "implementation": concat!("jobsd ", env!("CARGO_PKG_VERSION")),
            "max-concurrency": slots,
            "processes": [std::process::id()],
            "max-tasks-per-child": "N/A",
            "put-guarded-by-semaphore": false,
            "timeouts": [0, 0],
            "writes": "N/A",
        },
        "broker": broker(front),
        "prefetch_count": slots,
        "rusage": usage::usage(),
    })
}

/// Where Redis is, as kombu describes a connection.
fn broker(front: &Front) -> Value {
    let shown = front.broker.store.endpoint.shown();
    let rest = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address).split('/').next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    json!({
        "hostname": host,
        "userid": null,
        "virtual_host": front.broker.store.endpoint.database().to_string(),
        "port": port.parse::<u16>().ok(),
        "insist": false,
        "ssl": shown.starts_with("rediss"),
        "transport": "redis",
        "connect_timeout": front.broker.store.link.timeout().as_secs(),
        "transport_options": {},
        "login_method": null,
        "uri_prefix": null,
        "heartbeat": 0,
        "failover_strategy": "round-robin",
        "alternates": [],
    })
}

async fn active(front: &Front, safe: bool) -> Result<Value, BrokerError> {
    let listed = listed(front, &[State::Active]).await?;
    let config = front.config.load();
    let ours = |listed: &Listed| {
        let standing = listed.standing.as_ref()?;
        let began = standing.active.as_ref().filter(|active| active.node == front.broker.node)?.started;
        Some(Shown::of(&standing.job, &config)?.info(&front.events.worker, Some(began), safe))
    };
    Ok(listed.iter().filter_map(ours).collect::<Vec<_>>().into())
}

async fn reserved(front: &Front) -> Result<Value, BrokerError> {
    let listed = listed(front, &[State::Pending]).await?;
    let config = front.config.load();
    let info = |listed: &Listed| {
        let job = &listed.standing.as_ref()?.job;
        Some(Shown::of(job, &config)?.info(&front.events.worker, None, false))
    };
    Ok(listed.iter().filter_map(info).collect::<Vec<_>>().into())
}

async fn scheduled(front: &Front) -> Result<Value, BrokerError> {
    let listed = listed(front, &[State::Scheduled, State::Retry]).await?;
    let config = front.config.load();
    let entry = |listed: &Listed| {
        let standing = listed.standing.as_ref()?;
        let request = Shown::of(&standing.job, &config)?.info(&front.events.worker, None, false);
        let eta = standing.due.map(|due| iso::celery(due.to_utc()));
        Some(json!({"eta": eta, "priority": 6, "request": request}))
    };
    Ok(listed.iter().filter_map(entry).collect::<Vec<_>>().into())
}

/// Jobs of Celery in these states, those first that come first.
async fn listed(front: &Front, states: &[State]) -> Result<Vec<Listed>, BrokerError> {
    let queues: Vec<QueueName> = front.queues().iter().map(|queue| queue.name.clone()).collect();
    let store = &front.broker.store;
    let sources = store.sources(&queues, states);
    let entries = store.entries(&sources, Order::Rising, Span::default(), None, SHOWN).await?;
    let mut listed = store.listed(entries).await?;
    listed.retain(|listed| listed.standing.as_ref().is_some_and(|standing| is_celery(&standing.job)));
    Ok(listed)
}

/// The names that producers may use, with the rate of those whose starts are limited.
fn registered(front: &Front) -> Value {
    let config = front.config.load();
    let shown = |task: &Task| {
        let of_all = task.limits.iter().find(|limit| limit.key.is_none());
        let rate = of_all.and_then(|limit| limit.rates.first()).map(rate::write);
        let shown = |name: &String| rate.as_ref().map_or(name.clone(), |rate| format!("{name} [rate_limit={rate}]"));
        task.names.iter().map(|pattern| shown(&pattern.0)).collect::<Vec<String>>()
    };
    let mut names: Vec<String> = config.tasks.values().flat_map(|task| shown(task)).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

fn active_queues(front: &Front) -> Value {
    let queue = |name: &String| {
        json!({
            "name": name,
            "exchange": {
                "name": name,
                "type": "direct",
                "arguments": null,
                "durable": true,
                "passive": false,
                "auto_delete": false,
                "delivery_mode": null,
                "no_declare": false,
            },
            "routing_key": name,
            "queue_arguments": null,
            "binding_arguments": null,
            "consumer_arguments": null,
            "durable": true,
            "exclusive": false,
            "auto_delete": false,
            "no_ack": false,
            "alias": null,
            "bindings": [],
            "no_declare": null,
            "expires": null,
            "message_ttl": null,
            "max_length": null,
            "max_length_bytes": null,
            "max_priority": null,
        })
    };
    front.lists().iter().filter(|name| !front.leaves(name)).map(queue).collect::<Vec<_>>().into()
}

/// What of the configuration a client of Celery has a name for. Secrets have no place in it.
fn conf(front: &Front) -> Value {
    let config = front.config.load();
    let url = front.broker.store.endpoint.shown();
    json!({
        "broker_url": url,
        "result_backend": url,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_serializer": "json",
        "result_expires": config.celery.result_expires.map(|expires| expires.as_secs()),
        "timezone": "UTC",
        "enable_utc": true,
        "task_default_queue": front.lists().first(),
        "task_queues": front.lists(),
        "task_acks_late": true,
        "task_track_started": config.celery.track_started,
        "worker_send_task_events": config.celery.events,
        "worker_concurrency": front.slots(),
    })
}

fn report(front: &Front) -> String {
    let system = rustix::system::uname();
    let (name, release) = (system.sysname().to_string_lossy(), system.release().to_string_lossy());
    let settings: Vec<String> = match conf(front) {
        Value::Object(conf) => conf.iter().map(|(key, value)| format!("{key}: {value}")).collect(),
        _ => Vec::new(),
    };
    format!(
        "\nsoftware -> jobsd:{}\nplatform -> system:{name} arch:{}\n            kernel version:{release}\n\
         settings -> transport:redis\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        settings.join("\n")
    )
}

async fn query_task(front: &Front, request: &Request) -> Result<Value, BrokerError> {
    let ids: Vec<JobId> = request.texts("ids").iter().take(ASKED).filter_map(|id| JobId::parse(id).ok()).collect();
    let queues = front.queues();
    let wanted: Vec<_> = queues.iter().flat_map(|queue| ids.iter().map(|id| (&queue.name, id))).collect();
    let standings = front.broker.store.standings(&wanted).await?;
    let config = front.config.load();
    let mut found = Map::new();
    for standing in standings.into_iter().flatten() {
        let state = match standing.state() {
            State::Active => "active",
            State::Pending | State::Scheduled | State::Retry => "reserved",
            State::Completed | State::Dead | State::Cancelled => "ready",
        };
        let began = standing.active.as_ref().map(|active| active.started);
        let here = standing.active.as_ref().is_none_or(|active| active.node == front.broker.node);
        if let Some(shown) = Shown::of(&standing.job, &config).filter(|_| here) {
            let info = shown.info(&front.events.worker, began, false);
            found.insert(standing.job.id.to_string(), json!([state, info]));
        }
    }
    Ok(Value::Object(found))
}
