//! The largest flow there may be, a Redis that is full, and flows whose time is over.

use super::*;
use crate::job::flow::Shape;

/// Puts every job of the flow into its queue that may start; says how many that were.
async fn start_all(broker: &Broker, flow: &FlowId, now: Timestamp) -> usize {
    let mut started = 0;
    loop {
        let ready = broker.ready_flow(flow, 500).await.expect("Redis answers");
        if ready.jobs.is_empty() {
            assert!(broker.rest_flow(flow, false).await.expect("Redis answers"));
            return started;
        }
        let jobs: Vec<Job> = ready.jobs.iter().map(|ready| ready.draft.ready(now)).collect();
        let outcomes = broker.start_jobs(flow, &jobs).await.expect("Redis answers");
        started += outcomes.iter().filter(|one| **one == crate::broker::Enqueued::Added).count();
    }
}

/// Runs everything that waits, and tells the flows; says how many jobs that were.
async fn run_all(broker: &Broker, queue: &Queue, now: Timestamp) -> usize {
    let mut run = 0;
    loop {
        let claims = claim(broker, queue, 500, now).await;
        if claims.is_empty() {
            break;
        }
        run += claims.len();
        let ended = claims.into_iter().map(|claim| settlement(broker, queue, claim, ok(), now)).collect();
        settle(broker, queue, ended, now).await;
    }
    while let Some((name, heard)) =
        broker.words(std::slice::from_ref(&queue.name), 100).await.expect("Redis answers").pop()
    {
        broker.advance(&name, &heard, now).await.expect("Redis answers");
    }
    run
}

fn halves(count: usize) -> Shape {
    let group = |members: std::ops::Range<usize>| Shape::Group(members.map(Shape::Job).collect());
    Shape::Chain(vec![group(0..count / 2), group(count / 2..count)])
}

async fn state(broker: &Broker, flow: &FlowId) -> Option<FlowState> {
    let view = broker.store.flow(flow).await.expect("Redis answers")?;
    let links = view.outline.links();
    Some(Progress::new(&view.outline, &links, &view.stands, view.cancelled.as_ref()).state())
}

#[tokio::test]
async fn ten_thousand_jobs_pass_a_join() {
    const JOBS: usize = 10_000;
    let redis = RedisServer::start();
    let (broker, mut queue) = (node(&redis, "a"), queue());
    queue.keep_completed.count = JOBS;
    let id = FlowId::parse("large").expect("a valid id");
    let flow = shapes::of_shape(&id, JOBS, halves(JOBS), at(0));
    assert_eq!(broker.create_flow(&flow).await.expect("Redis answers"), FlowCreated::Added);
    for _ in 0..2 {
        assert_eq!(start_all(&broker, &id, at(1)).await, JOBS / 2);
        assert_eq!(run_all(&broker, &queue, at(2)).await, JOBS / 2);
    }
    assert_eq!((start_all(&broker, &id, at(3)).await, state(&broker, &id).await), (0, Some(FlowState::Completed)));
}

#[tokio::test]
async fn a_flow_goes_on_when_redis_is_full() {
    let redis = RedisServer::start();
    let (broker, queue) = (node(&redis, "a"), queue());
    let id = FlowId::parse("f").expect("a valid id");
    let flow = shapes::of_shape(&id, 6, halves(6), at(0));
    broker.create_flow(&flow).await.expect("Redis answers");
    raw(&broker, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let other = shapes::of_shape(&FlowId::parse("g").expect("a valid id"), 2, halves(2), at(0));
    let refused = broker.create_flow(&other).await.expect_err("new flows are refused").to_string();
    assert!(refused.contains("OOM"), "{refused}");
    for _ in 0..2 {
        assert_eq!(start_all(&broker, &id, at(1)).await, 3);
        assert_eq!(run_all(&broker, &queue, at(2)).await, 3);
    }
    assert_eq!(state(&broker, &id).await, Some(FlowState::Completed));
}

#[tokio::test]
async fn flows_are_deleted_after_their_time_and_not_before() {
    let redis = RedisServer::start();
    let (broker, queue) = (node(&redis, "a"), queue());
    let ids = ["done", "stuck", "going"].map(|id| FlowId::parse(id).expect("a valid id"));
    for id in &ids {
        let flow = shapes::of_shape(id, 2, halves(2), at(0));
        broker.create_flow(&flow).await.expect("Redis answers");
    }
    assert_eq!(start_all(&broker, &ids[0], at(1)).await, 1);
    for _ in 0..2 {
        run_all(&broker, &queue, at(1)).await;
        start_all(&broker, &ids[0], at(1)).await;
    }
    start_all(&broker, &ids[1], at(1)).await;
    let dead = claim(&broker, &queue, 1, at(2)).await.remove(0);
    let dead = settlement(&broker, &queue, dead, crate::job::Failure::never("E", "no").into(), at(2));
    settle(&broker, &queue, vec![dead], at(2)).await;
    run_all(&broker, &queue, at(2)).await;
    let states = |broker| async move {
        let mut states = Vec::new();
        for id in ["done", "stuck", "going"] {
            states.push(state(broker, &FlowId::parse(id).expect("a valid id")).await);
        }
        states
    };
    let all = [Some(FlowState::Completed), Some(FlowState::Blocked), Some(FlowState::Running)];
    assert_eq!(states(&broker).await, all);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    assert_eq!(broker.prune_flows(hour, day, at(3000)).await.expect("Redis answers"), 0);
    assert_eq!(broker.prune_flows(hour, day, at(4000)).await.expect("Redis answers"), 1);
    assert_eq!(states(&broker).await, [None, all[1], all[2]]);
    assert_eq!(broker.prune_flows(hour, day, at(90_000)).await.expect("Redis answers"), 1);
    assert_eq!(states(&broker).await, [None, None, all[2]], "what goes on is never too old");
    let lines = broker.store.flow_lines(None, 10).await.expect("Redis answers");
    assert_eq!(lines.len(), 1);
}
