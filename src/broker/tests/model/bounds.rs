//! What limits promise, checked after every step: no bucket holds more than it may, what is in use is what the running
//! jobs have drawn, and in the end nobody is left behind.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::*;
use crate::config::{Key, Limit, Points, Rate, Template, ValueTemplate};
use crate::job::Bucket;

/// Of the whole queue, of a task, of each user, and of pairs of both by what they weigh.
pub(super) fn limits(fair: bool) -> Limits {
    let key = |source: &str| Some(Key { template: Template::parse(source).expect("a template"), is_secret: false });
    let limit = || Limit { task: None, key: None, concurrency: None, rates: Vec::new(), points: Points::Each(1) };
    let size = Points::By(ValueTemplate::parse(json!("{{ size }}")).expect("a template"));
    let rates = vec![Rate { points: 9, window: Duration::from_secs(20) }];
    Limits::new(
        fair.then(|| key("{{ tenant }}")).flatten(),
        vec![
            Limit { concurrency: Some(9), ..limit() },
            Limit { task: Some(TaskName::parse("other").expect("a name")), concurrency: Some(3), ..limit() },
            Limit { key: key("{{ user }}"), concurrency: Some(4), points: size, ..limit() },
            Limit { key: key("{{ user }}-{{ tenant }}"), concurrency: Some(3), rates, ..limit() },
        ],
    )
}

impl World {
    /// Gives a job arguments by which it is limited.
    pub(super) fn draw(&mut self, job: &mut Job) {
        if self.queue.limits.is_empty() {
            return;
        }
        let (user, tenant, size) = (self.random.below(4), self.random.below(3), 1 + self.random.below(3));
        // Some belong to nobody.
        let user = if user == 0 { json!("") } else { json!(user) };
        job.args = json!({"user": user, "tenant": tenant, "size": size}).as_object().cloned().expect("an object");
        job.buckets = self.queue.limits.buckets(&job.task, &job.args, &Map::new()).expect("it fits");
    }

    /// What a claim brought waited, and nothing has paused it.
    pub(super) fn may_all_run(&self, got: &[String]) {
        for id in got {
            let Known { job, place, .. } = &self.oracle.jobs[id];
            assert!(matches!(place, Place::Pending(_)), "{id} was claimed from {place:?}");
            assert!(!self.oracle.paused && !self.oracle.paused_tasks.contains(&job.task), "{id} is paused");
        }
    }

    /// What runs, by the limits of their tasks and the buckets of their records: never by what the scripts have noted.
    fn drawn(&self) -> BTreeMap<String, u64> {
        let mut drawn: BTreeMap<String, u64> = BTreeMap::new();
        let runs = |known: &&Known| matches!(known.place, Place::Active { .. });
        for Known { job, .. } in self.oracle.jobs.values().filter(runs) {
            for bucket in job.buckets.iter().filter(|bucket| !bucket.is_tenant()) {
                *drawn.entry(bucket.name().to_owned()).or_default() += bucket.points();
            }
            if job.task.as_str() == "other" {
                *drawn.entry("other".to_owned()).or_default() += 1;
            }
        }
        drawn
    }

    pub(super) async fn check_bounds(&mut self, context: &str) {
        if self.queue.limits.is_empty() {
            return;
        }
        let used = raw(&self.nodes[0], &["HGETALL", &self.nodes[0].store.keys.queue(&self.queue.name).used]).await;
        let used: BTreeMap<String, u64> = redis::FromRedisValue::from_redis_value(used).expect("numbers");
        let drawn = self.drawn();
        assert_eq!(used, drawn, "{context}: what is in use is what the running jobs have drawn");
        assert!(self.oracle.count(State::Active) <= 9, "{context}: too many run");
        for (bucket, points) in drawn {
            let name = Bucket::of_limit(&bucket, 1);
            let limit = self.queue.limits.all.iter().find(|limit| limit.name() == name.parts().0);
            let most = limit.and_then(|limit| limit.concurrency).expect("every limit here has one");
            assert!(points <= most, "{context}: {points} of {most} points of {bucket} are in use");
            if points == most {
                self.took("a full bucket");
            }
        }
    }

    /// Claims and settles until nothing waits any more.
    pub(super) async fn work_off(&mut self) {
        self.resume_all(0).await;
        while !self.purges.is_empty() {
            self.purge(0).await;
        }
        for round in 0.. {
            assert!(round < 5_000, "{} jobs wait for ever", self.oracle.count(State::Pending));
            self.now = self.now.after(Duration::from_secs(2));
            for n in 0..NODES {
                self.claim(n).await;
                while !self.held[n].is_empty() {
                    let claim = self.held[n].remove(0);
                    let holds = self.is_current(&claim).await;
                    self.settle_as(n, claim, Outcome::Success(Value::Null), holds).await;
                }
                self.sweep(n).await;
            }
            self.check_bounds("at the end").await;
            let left = [State::Pending, State::Active, State::Retry, State::Scheduled];
            if left.iter().all(|state| self.oracle.count(*state) == 0) {
                break;
            }
        }
        self.compare("at the end").await;
        let keys = self.nodes[0].store.keys.queue(&self.queue.name);
        let left = raw(&self.nodes[0], &["EXISTS", &keys.pending, &keys.held, &keys.active, &keys.used]).await;
        assert_eq!(left, redis::Value::Int(0), "nothing is left");
    }
}
