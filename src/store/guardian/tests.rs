//! The guardian in front of real servers with the settings that it is there for.

use super::*;
use crate::config::Secret;
use crate::testing::redis::RedisServer;

fn store(redis: &RedisServer) -> Store {
    store_at(&redis.url())
}

fn store_at(url: &Secret) -> Store {
    Store::new(url, "jobsd", Duration::from_secs(5), &[]).expect("a store")
}

async fn call(redis: &RedisServer, command: &[&str]) {
    let client = redis::Client::open(redis.url().expose()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
    redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut connection).await.expect("it obeys");
}

async fn codes(store: &Store) -> Vec<(Code, Severity)> {
    let report = store.look(false).await.expect("it answers");
    report.findings.iter().map(|finding| (finding.code, finding.severity)).collect()
}

#[tokio::test]
async fn a_server_is_read_as_it_is_set() {
    let redis = RedisServer::start();
    let store = store(&redis);
    assert!(store.report().is_none(), "nobody has looked yet");
    assert_eq!(codes(&store).await, [(Code::NoPersistence, Severity::Warning)]);
    let report = store.report().expect("it was looked at");
    assert_eq!(report.facts.server.as_ref().expect("it says so").product, "Redis");
    assert_eq!(report.facts.role, Some(Role::Master { replicas: 0 }));
    assert_eq!((report.facts.memory.limit, report.facts.memory.policy.clone()), (Some(0), Some(Policy::NoEviction)));
    assert!(report.round_trip.expect("it was measured") < Duration::from_secs(1));
    assert!(report.facts.hidden.is_empty() && report.refusal().is_none());

    call(&redis, &["CONFIG", "SET", "appendonly", "yes", "appendfsync", "everysec"]).await;
    assert_eq!(codes(&store).await, [(Code::SyncEverySecond, Severity::Info)]);
    call(&redis, &["CONFIG", "SET", "appendonly", "no", "save", "60 1000"]).await;
    assert_eq!(codes(&store).await, [(Code::SnapshotsOnly, Severity::Warning)]);
}

#[tokio::test]
async fn a_server_that_deletes_jobs_is_refused_unless_told_so() {
    let redis = RedisServer::start();
    let store = store(&redis);
    call(&redis, &["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await;
    let report = store.look(false).await.expect("it answers");
    let refusal = report.refusal().expect("it is refused");
    assert!(refusal.sentence.contains("allkeys-lru") && refusal.sentence.contains("100.0 MiB"), "{refusal:?}");
    assert!(refusal.remedy.contains("noeviction") && refusal.remedy.contains("redis.accept_eviction"), "{refusal:?}");
    assert!(store.look(true).await.expect("it answers").refusal().is_none());
    call(&redis, &["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await;
    let codes = codes(&store).await;
    assert!(codes.contains(&(Code::EvictionDeletesResults, Severity::Warning)), "{codes:?}");
}

/// As a managed Redis has it: CONFIG is not there, INFO is.
#[tokio::test]
async fn what_a_server_hides_is_told_and_fails_nothing() {
    let redis = RedisServer::start();
    call(&redis, &["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await;
    let user = |name: &'static str, rules: &'static [&'static str]| {
        let redis = &redis;
        async move {
            let words = ["ACL", "SETUSER", name, "on", ">word", "~*", "&*", "+@all"];
            call(redis, &[&words[..], rules].concat()).await;
            let url = redis.url().expose().to_owned();
            store_at(&Secret::new(format!("{url}?user={name}&pass=word")))
        }
    };
    let store = user("without-config", &["-config"]).await;
    let report = store.look(false).await.expect("it answers");
    assert_eq!(report.findings.last().map(|finding| finding.code), Some(Code::NotChecked), "{report:?}");
    assert!(report.findings.last().expect("one").sentence.contains("appendfsync"), "{report:?}");
    assert!(report.refusal().is_some(), "INFO tells the policy all the same");

    let store = user("without-info", &["-config", "-info"]).await;
    assert_eq!(codes(&store).await, [(Code::NotChecked, Severity::Info)]);
}

#[tokio::test]
async fn a_replica_is_not_to_be_worked_with() {
    let replica = RedisServer::start();
    let store = store(&replica);
    // Where nobody listens: a replica without its master is one all the same.
    call(&replica, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let report = store.look(false).await.expect("it answers");
    let finding = report.findings.first().expect("one");
    assert_eq!((finding.code, finding.stops_work), (Code::Replica, true), "{report:?}");
    call(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(codes(&store).await, [(Code::NoPersistence, Severity::Warning)]);
}

/// Nobody waits a minute to hear that nothing can be enqueued.
#[tokio::test]
async fn a_refusal_brings_a_look() {
    let redis = RedisServer::start();
    let store = Arc::new(store(&redis));
    store.look(false).await.expect("it answers");
    let stop = CancellationToken::new();
    let guarding = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), stop.clone());
        async move { store.guard(false, stop).await }
    });
    call(&redis, &["CONFIG", "SET", "maxmemory", "100kb"]).await;
    let mut write = Pipeline::new();
    write.cmd("SET").arg("x").arg("y");
    let reply = store.link.send(&write).await.expect("it answers").remove(0);
    assert!(accepted(reply).expect_err("it is full").to_string().contains("OOM"));
    let told = async {
        let full = |report: &Report| report.findings.iter().any(|finding| finding.code == Code::MemoryFull);
        while !store.report().is_some_and(|report| full(&report)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(EVERY / 2, told).await.expect("it is told before the next regular look");
    stop.cancel();
    guarding.await.expect("it stops");
}
