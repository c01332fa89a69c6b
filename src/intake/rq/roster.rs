//! Who runs what, as RQ's clients see it: a worker of RQ runs one job at a time, so each slot of a queue is one worker.
//!
//! A table and nothing else: who shows it in Redis is [`super::clerk`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::keys;
use crate::broker::{Begun, RqAttempt};
use crate::config::Queue;
use crate::job::{JobId, NodeId, Origin, QueueName, Timestamp, Wire};

/// More workers than this are not shown of one queue; its further slots share them.
const WORKERS: usize = 200;

/// The workers of one node and their jobs.
#[derive(Debug)]
pub(crate) struct Roster {
    node: NodeId,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    teams: BTreeMap<QueueName, Team>,
    runs: HashMap<JobId, Run>,
    /// Begun and not shown yet.
    fresh: Vec<JobId>,
    /// RQ's queues whose scheduler we are.
    scheduled: HashSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Team {
    /// RQ's queues that they serve.
    queues: Vec<String>,
    workers: Vec<Worker>,
}

#[derive(Debug, Clone, PartialEq)]
struct Worker {
    name: String,
    jobs: usize,
    /// It was told to take no more jobs.
    retired: bool,
}

#[derive(Debug)]
struct Run {
    attempt: RqAttempt,
    ours: QueueName,
    worker: usize,
    shown: bool,
}

/// A worker that is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) name: String,
    /// RQ's queues that it serves.
    pub(crate) queues: Vec<String>,
}

/// Who has come and who has gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Staffing {
    pub(crate) come: Vec<Badge>,
    pub(crate) gone: Vec<Badge>,
}

/// What is known of an attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) worker: String,
    pub(crate) began: Timestamp,
    pub(crate) shown: bool,
}

impl Roster {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, table: Mutex::default() }
    }

    /// Hires and lets go until there is one worker for each slot of each queue that reads lists of RQ.
    pub(crate) fn staff(&self, queues: &BTreeMap<QueueName, Arc<Queue>>, slots: &dyn Fn(&Queue) -> usize) -> Staffing {
        let mut table = self.table();
        let wanted: BTreeMap<&QueueName, (Vec<String>, usize)> = queues
            .iter()
            .map(|(name, queue)| (name, (rq_queues(queue), slots(queue).min(WORKERS))))
            .filter(|(_, (lists, _))| !lists.is_empty())
            .collect();
        let mut staffing = Staffing::default();
        table.teams.retain(|name, team| {
            let stays = wanted.get(name).is_some_and(|(lists, _)| *lists == team.queues);
            if !stays {
                staffing.gone.extend(team.badges());
            }
            stays
        });
        for (name, (lists, size)) in wanted {
            let team = table.teams.entry(name.clone()).or_insert(Team { queues: lists, workers: Vec::new() });
            while team.workers.len() > size {
                staffing.gone.extend(team.badges().pop());
                team.workers.pop();
            }
            while team.workers.len() < size {
                let name = format!("{}.{name}.{}", self.node, team.workers.len() + 1);
                staffing.come.push(Badge { name: name.clone(), queues: team.queues.clone() });
                team.workers.push(Worker { name, jobs: 0, retired: false });
            }
        }
        staffing
    }

    /// All workers.
    pub(crate) fn badges(&self) -> Vec<Badge> {
        self.table().teams.values().flat_map(Team::badges).collect()
    }

    /// RQ's queues that are served, each with the queue of ours that reads it.
    pub(crate) fn queues(&self) -> Vec<(String, QueueName)> {
        let table = self.table();
        table.teams.iter().flat_map(|(ours, team)| team.queues.iter().map(|rq| (rq.clone(), ours.clone()))).collect()
    }

    /// Gives the attempts to workers: to free ones, as long as there are any. A job that is tried again at once, before
    /// the end of its last attempt was told, stays with its worker: of that attempt nothing is told any more, and
    /// somebody else's job would leave the worker busy.
    pub(crate) fn begin(&self, begun: Vec<Begun>) {
        let mut table = self.table();
        for Begun { job, token, at } in begun {
            let Origin::Wire { wire: Wire::Rq, reply: note, .. } = &job.origin else { continue };
            let queue = note.get("origin").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(run) = table.runs.get_mut(&job.id).filter(|run| run.ours == job.queue) {
                (run.attempt.token, run.attempt.began) = (token, at);
            } else {
                table.forget(&job.id);
                let (worker, name) = table.teams.get_mut(&job.queue).map_or((0, self.node.to_string()), Team::hire);
                let attempt = RqAttempt { id: job.id.clone(), token, queue, worker: name, began: at };
                let run = Run { attempt, ours: job.queue.clone(), worker, shown: false };
                table.runs.insert(job.id.clone(), run);
            }
            table.fresh.push(job.id.clone());
        }
    }

    /// Attempts that are to be shown, by our queues.
    pub(crate) fn to_show(&self) -> Vec<(QueueName, Vec<RqAttempt>)> {
        let mut table = self.table();
        let mut found: BTreeMap<QueueName, Vec<RqAttempt>> = BTreeMap::new();
        for id in std::mem::take(&mut table.fresh) {
            if let Some(run) = table.runs.get_mut(&id) {
                run.shown = true;
                found.entry(run.ours.clone()).or_default().push(run.attempt.clone());
            }
        }
        found.into_iter().collect()
    }

    /// It is not known whether these were shown.
    pub(crate) fn show_later(&self, attempts: &[RqAttempt]) {
        let mut table = self.table();
        for attempt in attempts {
            if table.runs.get(&attempt.id).is_some_and(|run| run.attempt.token == attempt.token) {
                table.fresh.push(attempt.id.clone());
            }
        }
    }

    /// Attempts that are shown, by our queues.
    pub(crate) fn shown(&self) -> Vec<(QueueName, Vec<RqAttempt>)> {
        let mut found: BTreeMap<QueueName, Vec<RqAttempt>> = BTreeMap::new();
        for run in self.table().runs.values().filter(|run| run.shown) {
            found.entry(run.ours.clone()).or_default().push(run.attempt.clone());
        }
        found.into_iter().collect()
    }

    /// This attempt has ended; `None` when it did not begin here, or another one of its job has begun since.
    pub(crate) fn end(&self, id: &JobId, token: u64) -> Option<Ended> {
        let mut table = self.table();
        let run = table.runs.get(id).filter(|run| run.attempt.token == token)?;
        let ended = Ended { worker: run.attempt.worker.clone(), began: run.attempt.began, shown: run.shown };
        table.forget(id);
        Some(ended)
    }

    /// Our queue of a job that runs here.
    pub(crate) fn queue_of(&self, id: &str) -> Option<(QueueName, JobId)> {
        let table = self.table();
        table.runs.get_key_value(id).map(|(id, run)| (run.ours.clone(), id.clone()))
    }

    /// The jobs that this worker runs.
    pub(crate) fn jobs_of(&self, worker: &str) -> Vec<(QueueName, JobId)> {
        let table = self.table();
        let its = table.runs.iter().filter(|(_, run)| run.attempt.worker == worker);
        its.map(|(id, run)| (run.ours.clone(), id.clone())).collect()
    }

    /// This worker takes no more jobs. `None` when there is no such worker, or it had been told before.
    pub(crate) fn retire(&self, worker: &str) -> Option<Badge> {
        let mut table = self.table();
        let team = table.teams.values_mut().find(|team| team.workers.iter().any(|w| w.name == worker))?;
        let queues = team.queues.clone();
        let found = team.workers.iter_mut().find(|w| w.name == worker && !w.retired)?;
        found.retired = true;
        Some(Badge { name: worker.to_owned(), queues })
    }

    /// How many more messages of RQ a queue may take, where clients have told workers to stop; `None`: as many as it can.
    pub(crate) fn places(&self, queue: &QueueName) -> Option<usize> {
        let table = self.table();
        let team = table.teams.get(queue).filter(|team| team.workers.iter().any(|worker| worker.retired))?;
        let (left, busy) = team
            .workers
            .iter()
            .fold((0, 0), |(left, busy), worker| (left + usize::from(!worker.retired), busy + worker.jobs));
        Some(left.saturating_sub(busy))
    }

    /// We are the scheduler of this queue of RQ, or are not any more.
    pub(crate) fn schedule(&self, queue: &str, ours: bool) {
        let mut table = self.table();
        if ours {
            table.scheduled.insert(queue.to_owned());
        } else {
            table.scheduled.remove(queue);
        }
    }

    pub(crate) fn schedules(&self, queue: &str) -> bool {
        self.table().scheduled.contains(queue)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics between two changes that belong together.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget(&mut self, id: &JobId) {
        let Some(run) = self.runs.remove(id) else { return };
        if let Some(worker) = self.teams.get_mut(&run.ours).and_then(|team| team.workers.get_mut(run.worker)) {
            worker.jobs = worker.jobs.saturating_sub(1);
        }
    }
}

impl Team {
    fn badges(&self) -> Vec<Badge> {
        let shown = self.workers.iter().filter(|worker| !worker.retired);
        shown.map(|worker| Badge { name: worker.name.clone(), queues: self.queues.clone() }).collect()
    }

    /// The worker with the least to do, the first of them.
    fn hire(&mut self) -> (usize, String) {
        let least = self.workers.iter_mut().enumerate().min_by_key(|(_, worker)| (worker.retired, worker.jobs));
        let (index, worker) = least.expect("a team has a worker for each slot, and a queue has at least one");
        worker.jobs += 1;
        (index, worker.name.clone())
    }
}

/// The names of RQ's queues that this queue of ours reads.
fn rq_queues(queue: &Queue) -> Vec<String> {
    let rq = queue.lists.iter().filter(|(wire, _)| *wire == Wire::Rq);
    rq.map(|(_, name)| name.clone()).collect()
}

impl Badge {
    /// The keys of the sets that it stands in.
    pub(crate) fn sets(&self) -> Vec<String> {
        std::iter::once(keys::WORKERS.to_owned())
            .chain(self.queues.iter().map(|queue| keys::workers_of(queue)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Concurrency;
    use crate::testing::fixture;

    fn queues(concurrency: usize) -> BTreeMap<QueueName, Arc<Queue>> {
        let concurrency = Concurrency::fixed(concurrency);
        let queue = Queue { lists: vec![(Wire::Rq, "low".to_owned())], concurrency, ..fixture::queue() };
        BTreeMap::from([(queue.name.clone(), Arc::new(queue))])
    }

    fn begun(queue: &QueueName, id: &str, token: u64) -> Begun {
        let origin = Origin::Wire {
            wire: Wire::Rq,
            list: "rq:queue:low".to_owned(),
            reply: serde_json::json!({"id": id, "origin": "low"}),
        };
        let at = Timestamp::from_millis(1000);
        let job = crate::job::Job {
            id: JobId::parse(id).expect("an id"),
            queue: queue.clone(),
            origin,
            ..fixture::job(Value::Null)
        };
        Begun { job: Arc::new(job), token, at }
    }

    #[test]
    fn a_slot_is_a_worker_and_jobs_go_to_free_ones() {
        let roster = Roster::new(NodeId::parse("vps-1").expect("a name"));
        let (two, slots) = (queues(2), |queue: &Queue| queue.concurrency.max);
        let queue = two.keys().next().expect("one").clone();
        let names = |badges: Vec<Badge>| badges.into_iter().map(|badge| badge.name).collect::<Vec<_>>();
        let first = format!("vps-1.{queue}.1");
        let second = format!("vps-1.{queue}.2");
        assert_eq!(names(roster.staff(&two, &slots).come), [first.as_str(), &second]);
        assert_eq!(roster.staff(&two, &slots), Staffing::default(), "nothing has changed");
        roster.begin(vec![begun(&queue, "a", 1), begun(&queue, "b", 2), begun(&queue, "c", 3)]);
        let workers = |roster: &Roster| {
            let mut found: Vec<_> = roster.shown().remove(0).1;
            found.sort_by(|a, b| a.id.cmp(&b.id));
            found.into_iter().map(|attempt| attempt.worker).collect::<Vec<_>>()
        };
        assert_eq!(roster.to_show().remove(0).1.len(), 3);
        assert!(roster.to_show().is_empty(), "each is shown once");
        assert_eq!(workers(&roster), [first.as_str(), &second, &first], "a third one shares");
        assert_eq!(roster.end(&JobId::parse("b").expect("an id"), 9), None, "another attempt");
        let ended = Ended { worker: second.clone(), began: Timestamp::from_millis(1000), shown: true };
        assert_eq!(roster.end(&JobId::parse("b").expect("an id"), 2), Some(ended));
        roster.begin(vec![begun(&queue, "d", 4)]);
        roster.begin(vec![begun(&queue, "d", 5)]);
        assert_eq!(roster.end(&JobId::parse("d").expect("an id"), 4), None, "it has begun again");
        assert_eq!(roster.jobs_of(&second).len(), 1, "the free one gets it");
        assert_eq!(roster.places(&queue), None);
        assert_eq!(roster.retire(&first).map(|badge| badge.name), Some(first.clone()));
        assert_eq!(roster.places(&queue), Some(0));
        assert_eq!(names(roster.staff(&queues(1), &slots).gone), [second.as_str()]);
    }
}
