//! Random flows with random fates, crashes between any two steps and answers that are lost, against a sequential oracle.
//!
//! `JOBSD_FLOW_CASES` sets the number of flows (default: a short form) and `JOBSD_FLOW_SEED` the seed of the first one; a
//! failure prints the seed of its own.

mod bounds;
mod fates;
mod oracle;
mod shapes;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::model::Random;
use super::*;
use crate::broker::flows::advance::Heard;
use crate::broker::{FlowCreated, ReadyFlow};
use crate::job::flow::{Callback, Flow, FlowState, Progress, Stand, Told, job_id};
use crate::job::{FlowId, JobId};
use oracle::Oracle;

const SHORT: u64 = 100;
const NODES: usize = 3;
/// Steps before everything is brought to its end.
const STEPS: usize = 100;
/// Rounds in which everything must have come to its end.
const ROUNDS: usize = 200;

/// One flow, on two queues, over three nodes.
struct World {
    random: Random,
    queues: Vec<Queue>,
    now: Timestamp,
    nodes: Vec<Broker>,
    held: Vec<Vec<Claim>>,
    /// What each node has read and not acted upon yet: it may be stale by then.
    heard: Vec<Option<(usize, Vec<Heard>)>>,
    ready: Vec<Option<ReadyFlow>>,
    flow: FlowId,
    oracle: Oracle,
    /// The words that must stand in each queue's list.
    words: Vec<VecDeque<(String, Told)>>,
    /// How often each job was put into its queue, and how often it was to start anew.
    starts: BTreeMap<String, usize>,
    reopened: BTreeMap<String, usize>,
    purges: Vec<(usize, String)>,
    seen: HashMap<&'static str, usize>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn flows_behave_as_the_oracle_says() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let cases = number("JOBSD_FLOW_CASES", SHORT);
    let first = number("JOBSD_FLOW_SEED", 20_261_123);
    let redis = RedisServer::start();
    let mut seen: HashMap<&'static str, usize> = HashMap::new();
    let mut nodes = 0;
    for number in 0..cases {
        let seed = first + number;
        let case = Case(seed);
        let mut world = World::new(&redis, seed, &mut nodes).await;
        for _ in 0..STEPS {
            let what = world.step(&redis, &mut nodes).await;
            *world.seen.entry(what).or_default() += 1;
        }
        world.come_to_rest().await;
        for (what, count) in world.seen {
            *seen.entry(what).or_default() += count;
        }
        case.done();
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_unstable();
    println!("{cases} flows, the first seed {first}: {seen:?}");
    let must = [
        "completed",
        "blocked",
        "cancelled",
        "ended with dead jobs",
        "a stale read of words",
        "a stale read of ready jobs",
        "a lost answer to a claim",
        "a settle sent twice",
        "crash",
        "taken over",
        "retried as a whole",
        "started anew",
        "purge",
        "deleted",
        "buried",
        "on_death called",
    ];
    for what in must {
        assert!(seen.iter().any(|(seen, _)| *seen == what), "the flows never came to: {what}");
    }
}

/// Says which seed it was when a case panics.
struct Case(u64);

impl Case {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        eprintln!("this was JOBSD_FLOW_SEED={} JOBSD_FLOW_CASES=1", self.0);
    }
}

impl World {
    async fn new(redis: &RedisServer, seed: u64, born: &mut usize) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let queues: Vec<Queue> = ["emails", "videos"].map(|name| Queue { name: queue_name(name), ..queue() }).into();
        let nodes: Vec<Broker> = (0..NODES).map(|n| node(redis, &format!("n{}", *born + n))).collect();
        *born += NODES;
        raw(&nodes[0], &["FLUSHALL"]).await;
        let flow = FlowId::parse(&format!("f{seed}")).expect("a valid id");
        let given = shapes::flow(&mut random, &flow, &queues, at(0));
        assert_eq!(nodes[0].create_flow(&given).await.expect("Redis answers"), FlowCreated::Added);
        assert_eq!(nodes[1].create_flow(&given).await.expect("Redis answers"), FlowCreated::Exists, "a repetition");
        let Flow { outline, .. } = given;
        Self {
            random,
            now: at(1),
            held: (0..NODES).map(|_| Vec::new()).collect(),
            heard: (0..NODES).map(|_| None).collect(),
            ready: (0..NODES).map(|_| None).collect(),
            oracle: Oracle::new(&outline),
            words: queues.iter().map(|_| VecDeque::new()).collect(),
            starts: BTreeMap::new(),
            reopened: BTreeMap::new(),
            purges: Vec::new(),
            seen: HashMap::new(),
            queues,
            nodes,
            flow,
        }
    }

    fn took(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// One random operation by one random node; says which.
    async fn step(&mut self, redis: &RedisServer, born: &mut usize) -> &'static str {
        self.now = self.now.after(Duration::from_millis(self.random.below(2_000)));
        let (n, q) = (self.random.index(NODES), self.random.index(2));
        match self.random.below(200) {
            0..34 => self.claim(n, q).await,
            34..84 => self.settle_one().await,
            84..100 => self.listen(n, q).await,
            100..134 => self.advance(self.one_with(n, |world, n| world.heard[n].is_some())).await,
            134..146 => self.look(n).await,
            146..174 => self.start(self.one_with(n, |world, n| world.ready[n].is_some())).await,
            174..177 => self.crash(redis, n, born),
            177..180 => self.sweep(n, q).await,
            180..190 => self.alter(n).await,
            190 => self.cancel_flow(n).await,
            191..195 => self.retry_flow(n).await,
            195..197 => self.purge(n, q).await,
            _ => self.rest(n).await,
        }
    }

    /// A node for which this holds, if there is one; else this one.
    fn one_with(&self, n: usize, holds: impl Fn(&Self, usize) -> bool) -> usize {
        (0..NODES).map(|more| (n + more) % NODES).find(|&n| holds(self, n)).unwrap_or(n)
    }

    async fn listen(&mut self, n: usize, q: usize) -> &'static str {
        let name = self.queues[q].name.clone();
        let mut words = self.nodes[n].words(std::slice::from_ref(&name), 5).await.expect("Redis answers");
        self.heard[n] = words.pop().map(|(_, heard)| (q, heard));
        "words read"
    }

    /// Acts upon what was read, however long ago; now and then twice, as after an answer that was lost.
    async fn advance(&mut self, n: usize) -> &'static str {
        if self.heard[n].is_none() {
            let q = self.random.index(2);
            self.listen(n, q).await;
        }
        let Some((q, heard)) = self.heard[n].take() else { return "nothing was said" };
        let name = self.queues[q].name.clone();
        let expected = self.at_the_head(q, &heard).await;
        let taken = self.nodes[n].advance(&name, &heard, self.now).await.expect("Redis answers");
        assert_eq!(taken, expected, "words are taken from the head, once");
        for heard in &heard[..taken] {
            let (job, told) = self.words[q].pop_front().expect("a word that is owed");
            let word = heard.word.as_ref().expect("it is readable");
            assert_eq!(
                (word.name.as_str(), word.what),
                (job.as_str(), told),
                "words come in the order of what they tell"
            );
            self.oracle.hear(&job, told);
        }
        self.compare().await;
        if taken < heard.len() {
            self.took("a stale read of words");
        }
        if self.random.below(6) == 0 {
            self.heard[n] = Some((q, heard));
        }
        "words taken"
    }

    /// How many of these words, which were read before, stand at the head of the list still.
    async fn at_the_head(&self, q: usize, heard: &[Heard]) -> usize {
        let name = self.queues[q].name.clone();
        let found = self.nodes[0].words(&[name], heard.len()).await.expect("Redis answers");
        let now = found.into_iter().next().map(|(_, now)| now).unwrap_or_default();
        heard.iter().zip(&now).take_while(|(heard, now)| heard == now).count()
    }

    async fn look(&mut self, n: usize) -> &'static str {
        self.ready[n] = Some(self.nodes[n].ready_flow(&self.flow, 5).await.expect("Redis answers"));
        "ready jobs read"
    }

    async fn start(&mut self, n: usize) -> &'static str {
        if self.ready[n].is_none() {
            self.look(n).await;
        }
        let Some(ready) = self.ready[n].take() else { return "nothing is ready" };
        for ready in &ready.jobs {
            let job = ready.draft.ready(self.now);
            let name = job.flow.as_ref().expect("it is of a flow").name.to_string();
            let is_ready = self.oracle.stand(&name) == Stand::Ready;
            let started = if self.random.below(30) == 0 {
                self.bury(n, &job).await
            } else {
                let answer = self.nodes[n].start_jobs(&self.flow, std::slice::from_ref(&job)).await;
                answer.expect("Redis answers") == [crate::broker::Enqueued::Added]
            };
            assert_eq!(started, is_ready, "{name} is started exactly while it is ready");
            if started {
                self.oracle.start(&name);
                *self.starts.entry(name).or_default() += 1;
            } else {
                self.took("a stale read of ready jobs");
            }
        }
        if self.random.below(4) == 0 {
            self.ready[n] = Some(ready);
        }
        "started"
    }

    async fn rest(&mut self, n: usize) -> &'static str {
        let cancelled = self.oracle.cancelled;
        let rests = self.nodes[n].rest_flow(&self.flow, cancelled).await.expect("Redis answers");
        let is_ready = self.oracle.stands().any(|(_, stand)| stand == Stand::Ready);
        assert_eq!(rests, !is_ready, "a flow is due while it has ready jobs");
        if rests && cancelled {
            // Whoever says so has cancelled what had started.
            self.cancel_started(n).await;
        }
        "rest"
    }

    /// The flow as Redis has it is the flow as the oracle has it.
    async fn compare(&self) {
        let view = self.nodes[0].store.flow(&self.flow).await.expect("Redis answers").expect("it is kept");
        let found: Vec<(&str, Stand)> = view.jobs().map(|(listed, stand)| (listed.name.as_str(), stand)).collect();
        let expected: Vec<(&str, Stand)> = self.oracle.stands().collect();
        assert_eq!(found, expected);
        let lines = self.nodes[0].store.flow_lines(None, 10).await.expect("Redis answers");
        let links = view.outline.links();
        let progress = Progress::new(&view.outline, &links, &view.stands, view.cancelled.as_ref());
        let line = lines[0].1.as_ref().expect("it is listed");
        assert_eq!((line.counts, line.state), (progress.counts, progress.state()), "the counts are kept right");
    }

    /// Everything that still can go on does, without further mishaps; then the flow is completed, or says why not.
    async fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS, "the flow does not come to rest");
            self.now = self.now.after(Duration::from_secs(120));
            let mut moved = self.give_up_purges().await;
            for q in 0..2 {
                self.sweep(0, q).await;
                self.claim_all(q).await;
                moved |= self.settle_all().await;
                self.listen(0, q).await;
                moved |= self.heard[0].is_some();
                self.advance(0).await;
            }
            self.look(0).await;
            moved |= self.ready[0].as_ref().is_some_and(|ready| !ready.jobs.is_empty());
            self.start(0).await;
            if self.oracle.cancelled {
                self.cancel_started(0).await;
            }
            if !moved && self.words.iter().all(VecDeque::is_empty) {
                break;
            }
        }
        self.compare().await;
        self.rest(0).await;
        assert!(!self.nodes[0].flows_wait(&self.names()).await.expect("Redis answers"), "nothing is left to do");
        self.judge().await;
    }

    fn names(&self) -> Vec<crate::job::QueueName> {
        self.queues.iter().map(|queue| queue.name.clone()).collect()
    }

    async fn judge(&mut self) {
        let view = self.nodes[0].store.flow(&self.flow).await.expect("Redis answers").expect("it is kept");
        let links = view.outline.links();
        let progress = Progress::new(&view.outline, &links, &view.stands, view.cancelled.as_ref());
        assert_eq!(progress.counts.started, 0, "nothing runs any more");
        let culprits: Vec<&str> =
            progress.culprits().into_iter().map(|one| view.outline.members[one].name.as_str()).collect();
        let sentence = progress.sentence(&|_| None);
        let state = progress.state();
        match state {
            FlowState::Completed => assert!(culprits.is_empty(), "{sentence}"),
            FlowState::Blocked => {
                assert!(culprits.iter().any(|name| sentence.contains(&format!("{name:?}"))), "{sentence}");
                for (member, stand) in view.stands.iter().enumerate() {
                    let why = progress.hold(member).words();
                    let named = || culprits.iter().any(|name| why.contains(&format!("{name:?}, which")));
                    assert!(*stand != Stand::Blocked || named(), "each blocked job names a culprit: {why}");
                }
            }
            FlowState::Dead => assert!(!culprits.is_empty() && progress.counts.blocked == 0, "{sentence}"),
            FlowState::Cancelled => assert!(self.oracle.cancelled),
            FlowState::Running => panic!("nothing of it runs: {sentence}"),
        }
        for (callback, _, stand) in view.callbacks() {
            self.judge_callback(callback, stand, state);
        }
        for (name, starts) in &self.starts {
            let most = 1 + self.reopened.get(name).copied().unwrap_or(0);
            assert!(*starts <= most, "{name} was put into its queue {starts} times, {most} at most");
        }
        let what = match state {
            FlowState::Completed => "completed",
            FlowState::Blocked => "blocked",
            FlowState::Dead => "ended with dead jobs",
            FlowState::Cancelled | FlowState::Running => "cancelled",
        };
        self.took(what);
    }

    /// Exactly once where its time has come; where the flow was cancelled, at most once.
    fn judge_callback(&mut self, callback: Callback, stand: Stand, state: FlowState) {
        let was_started = self.starts.get(callback.as_str()).copied().unwrap_or(0);
        let is_due = match callback {
            Callback::Success => state == FlowState::Completed,
            Callback::Complete => true,
            Callback::Death => self.oracle.died,
        };
        let reopened = self.reopened.get(callback.as_str()).copied().unwrap_or(0);
        assert!(was_started <= 1 + reopened, "{callback:?} was started {was_started} times");
        if !self.oracle.cancelled {
            assert_eq!(was_started > 0, is_due, "{callback:?} of a flow that is {state:?}, and stands {stand:?}");
        }
        if callback == Callback::Death && was_started > 0 {
            self.took("on_death called");
        }
    }

    fn id(&self, name: &str) -> JobId {
        job_id(&self.flow, &crate::job::MemberName::parse(name).expect("a valid name"))
    }
}

fn queue_name(name: &str) -> crate::job::QueueName {
    crate::job::QueueName::parse(name).expect("a valid name")
}
