//! RQ's workers as Redis holds them: the hash of each, and the sets that list them. [`super::roster`] knows who they are,
//! [`super::clerk`] when something is to be written.

use redis::Pipeline;

use super::front::Front;
use super::keys;
use super::roster::Badge;
use crate::broker::BrokerError;
use crate::clock;
use crate::intake::iso;
use crate::store::accepted;

/// How long workers are believed to live without a sign, in seconds; RQ's own are for 480.
const TTL: i64 = 540;
/// A dead worker stays readable for a minute, as RQ's own.
const REMEMBERED: i64 = 60;
/// By this RQ's clients, and nodes of ours, know a worker as one of ours.
const VERSION: &str = concat!("jobsd ", env!("CARGO_PKG_VERSION"));

/// Puts workers on the lists. What Redis refuses of that is told, and no reason to try again.
pub(super) async fn register(front: &Front, badges: &[Badge], suspended: bool) -> Result<(), BrokerError> {
    let address = address(front).await;
    let now = iso::rq(clock::now().to_utc());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut pipeline = Pipeline::new();
    for badge in badges {
        let key = keys::worker(&badge.name);
        pipeline.del(&key).del(keys::executions_of(&badge.name));
        pipeline.cmd("HSET").arg(&key).arg("birth").arg(&now).arg("last_heartbeat").arg(&now);
        pipeline
            .arg("queues")
            .arg(badge.queues.join(","))
            .arg("pid")
            .arg(std::process::id())
            .arg("hostname")
            .arg(&host);
        pipeline.arg("ip_address").arg(&address).arg("version").arg(VERSION).arg("python_version").arg("none");
        pipeline.arg("state").arg(waiting(suspended));
        pipeline.expire(&key, TTL);
        for set in badge.sets() {
            pipeline.sadd(set, &key);
        }
    }
    let replies = front.broker.store.link.send(&pipeline).await?;
    if let Some(error) = replies.into_iter().find_map(|reply| accepted(reply).err()) {
        tracing::warn!("RQ's clients do not see this node's workers: failed to {error}");
    }
    Ok(())
}

/// Our end of the connection to Redis, as RQ's workers name it.
async fn address(front: &Front) -> String {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLIENT").arg("INFO");
    let reply = front.broker.store.link.send(&pipeline).await.ok().and_then(|replies| replies.into_iter().next());
    let info: Option<String> =
        reply.and_then(|reply| accepted(reply).ok()).and_then(|reply| redis::from_redis_value(reply).ok());
    let found = info.as_deref().and_then(|info| info.split(' ').find_map(|field| field.strip_prefix("addr=")));
    found.unwrap_or("unknown").to_owned()
}

/// Signs of life of all workers. Returns those that Redis has lost meanwhile: its data is gone, or it was away for long.
pub(super) async fn beat(front: &Front) -> Result<Vec<Badge>, BrokerError> {
    let badges = front.roster.badges();
    let keys: Vec<String> = badges.iter().map(|badge| keys::worker(&badge.name)).collect();
    let alive = front.broker.rq_alive(&keys, TTL, clock::now()).await?;
    Ok(badges.into_iter().zip(alive).filter(|(_, alive)| !alive).map(|(badge, _)| badge).collect())
}

/// Shows of workers that run nothing whether they take jobs.
pub(super) async fn show_waiting(front: &Front, suspended: bool) -> Result<(), BrokerError> {
    let attempts = front.roster.shown().into_iter().flat_map(|(_, attempts)| attempts);
    let busy: Vec<String> = attempts.map(|attempt| attempt.worker).collect();
    let mut pipeline = Pipeline::new();
    for badge in front.roster.badges().iter().filter(|badge| !busy.contains(&badge.name)) {
        pipeline.hset(keys::worker(&badge.name), "state", waiting(suspended));
    }
    front.broker.store.link.send(&pipeline).await?;
    Ok(())
}

/// What RQ calls a worker that runs nothing.
fn waiting(suspended: bool) -> &'static str {
    if suspended { "suspended" } else { "idle" }
}

/// Workers that are gone: off the lists, and readable for a minute as dead.
pub(super) async fn say_goodbye(front: &Front, badges: &[Badge]) -> Result<(), BrokerError> {
    if badges.is_empty() {
        return Ok(());
    }
    let now = iso::rq(clock::now().to_utc());
    let mut pipeline = Pipeline::new();
    for badge in badges {
        let key = keys::worker(&badge.name);
        for set in badge.sets() {
            pipeline.srem(set, &key);
        }
        pipeline.del(keys::executions_of(&badge.name)).hset(&key, "death", &now).expire(&key, REMEMBERED);
    }
    front.broker.store.link.send(&pipeline).await?;
    Ok(())
}

/// Takes the workers of nodes that are gone off the lists.
pub(super) async fn dismiss_the_dead(front: &Front) -> Result<(), BrokerError> {
    if front.roster.queues().is_empty() {
        return Ok(());
    }
    let mut read = Pipeline::new();
    read.smembers(keys::WORKERS);
    let reply = front.broker.store.link.send(&read).await?.into_iter().next().unwrap_or(redis::Value::Nil);
    let workers: Vec<String> = redis::from_redis_value(accepted(reply)?).unwrap_or_default();
    let living = living_nodes(front).await?;
    let suspects: Vec<&str> = workers
        .iter()
        .filter_map(|key| key.strip_prefix(&keys::worker("")))
        .filter(|name| !living.iter().any(|node| belongs(name, node)))
        .collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    for name in &suspects {
        pipeline.cmd("HMGET").arg(keys::worker(name)).arg("version").arg("queues");
    }
    let mut dead = Vec::new();
    for (name, reply) in suspects.iter().zip(front.broker.store.link.send(&pipeline).await?) {
        let (version, queues): (Option<String>, Option<String>) = redis::from_redis_value(reply).unwrap_or_default();
        if version.is_some_and(|version| version.starts_with("jobsd ")) {
            let queues = queues.unwrap_or_default().split(',').map(str::to_owned).collect();
            dead.push(Badge { name: (*name).to_owned(), queues });
        }
    }
    say_goodbye(front, &dead).await
}

async fn living_nodes(front: &Front) -> Result<Vec<String>, BrokerError> {
    let (broker, now) = (&front.broker, clock::now());
    let nodes = broker.nodes(now).await?.into_iter();
    let living = nodes.filter(|(_, card)| now.since(card.lease_until) < broker.lease() * 2);
    Ok(living.map(|(node, _)| node.to_string()).collect())
}

/// Whether a worker is one of this node: `NODE.QUEUE.NUMBER`.
fn belongs(worker: &str, node: &str) -> bool {
    worker.strip_prefix(node).is_some_and(|rest| rest.starts_with('.'))
}
