//! What happens to the jobs of a flow, by workers, crashes and people; and the word that each of it owes the flow.

use super::*;
use crate::broker::{Altered, Change, FlowCancelled, FlowRetried};
use crate::job::flow::UNBOUND;
use crate::job::{Cause, End, Failure, History, Mishap, MishapKind, Next, Request};
use crate::store::Place;

impl World {
    fn owe(&mut self, q: usize, name: &str, told: Told) {
        self.words[q].push_back((name.to_owned(), told));
    }

    fn request(&self) -> Request {
        Request { at: self.now, by: "ann".to_owned(), reason: None }
    }

    pub(super) async fn claim(&mut self, n: usize, q: usize) -> &'static str {
        let claims = claim(&self.nodes[n], &self.queues[q], 1 + self.random.index(3), self.now).await;
        if self.random.below(15) == 0 && !claims.is_empty() {
            // The node never hears of them.
            drop(claims);
            return "a lost answer to a claim";
        }
        self.held[n].extend(claims);
        "claim"
    }

    pub(super) async fn claim_all(&mut self, q: usize) {
        let claims = claim(&self.nodes[0], &self.queues[q], 100, self.now).await;
        self.held[0].extend(claims);
    }

    pub(super) async fn settle_all(&mut self) -> bool {
        let mut any = false;
        for n in 0..NODES {
            while let Some(claim) = self.held[n].pop() {
                any = true;
                self.settle(n, claim, ok()).await;
            }
        }
        any
    }

    pub(super) async fn settle_one(&mut self) -> &'static str {
        let n = self.random.index(NODES);
        let n = self.one_with(n, |world, n| !world.held[n].is_empty());
        if self.held[n].is_empty() {
            return "nothing to settle";
        }
        let index = self.random.index(self.held[n].len());
        let claim = self.held[n].swap_remove(index);
        let outcome = match self.random.below(12) {
            0..8 => ok(),
            8 => Failure::new("E", "no").into(),
            9 | 10 => Failure::never("E", "never").into(),
            _ => Outcome::Interrupted { reason: "stopping".into() },
        };
        self.settle(n, claim, outcome).await;
        "settle"
    }

    fn queue_of(&self, job: &Job) -> usize {
        self.queues.iter().position(|queue| queue.name == job.queue).expect("one of the two")
    }

    /// Settles a claim, which applies only if nobody has taken the job over; now and then the answer is lost and the settle
    /// is sent once more.
    async fn settle(&mut self, n: usize, claim: Claim, outcome: Outcome) {
        let q = self.queue_of(&claim.job);
        let queue = self.queues[q].clone();
        let name = name_of(&claim);
        let twin = (self.random.below(8) == 0).then(|| self.twin(n, &claim));
        let ours = settlement(&self.nodes[n], &queue, claim, outcome.clone(), self.now);
        let next = ours.decision.next;
        let mut exchange = self.nodes[n].exchange(&queue, vec![ours], false, 0, self.now).await;
        match exchange.settled.expect("Redis answers")[0] {
            Settled::Refused => return self.took("refused"),
            Settled::ToBeCancelled => {
                let claim = exchange.to_cancel.remove(0);
                let cancelled = Outcome::Cancelled(self.request());
                let ours = settlement(&self.nodes[n], &queue, claim, cancelled, self.now);
                assert_eq!(settle(&self.nodes[n], &queue, vec![ours], self.now).await, [Settled::Applied]);
                return self.owe(q, &name, Told::Cancelled);
            }
            Settled::Applied => {}
        }
        if let Next::End(state) = next {
            self.owe(q, &name, Told::of(state).expect("it has ended"));
            if let Some(twin) = twin {
                let again = settlement(&self.nodes[n], &queue, twin, outcome, self.now);
                assert_eq!(settle(&self.nodes[n], &queue, vec![again], self.now).await, [Settled::Applied]);
                self.took("a settle sent twice");
            }
        }
        self.count_words(q).await;
    }

    /// The same claim once more, as one who has not heard the answer still holds it.
    fn twin(&self, n: usize, claim: &Claim) -> Claim {
        let record = serde_json::to_vec(&*claim.job).expect("it is JSON");
        let history = serde_json::to_vec(&claim.history).expect("it is JSON");
        let token = claim.token.to_string();
        let node = &self.nodes[n];
        node.read_claim(&claim.job.queue, token.as_bytes(), &record, &history, claim.started).expect("it was readable")
    }

    /// As many words stand in the list as are owed.
    async fn count_words(&self, q: usize) {
        let key = self.nodes[0].store.keys.queue(&self.queues[q].name).words;
        let length = raw(&self.nodes[0], &["LLEN", &key]).await;
        let owed = i64::try_from(self.words[q].len()).expect("a few");
        assert_eq!(length, redis::Value::Int(owed), "{:?}", self.words[q]);
    }

    pub(super) fn crash(&mut self, redis: &RedisServer, n: usize, born: &mut usize) -> &'static str {
        *born += 1;
        self.nodes[n] = node(redis, &format!("n{born}"));
        self.held[n].clear();
        self.heard[n] = None;
        self.ready[n] = None;
        "crash"
    }

    /// Long after: whoever has not renewed its lease is dead, and whatever was claimed in vain is found.
    pub(super) async fn sweep(&mut self, n: usize, q: usize) -> &'static str {
        self.now = self.now.after(LEASE * 3);
        let queue = self.queues[q].clone();
        let swept = self.nodes[n].sweep(&queue.name, self.now, self.now, 100).await.expect("Redis answers");
        for swept in swept {
            let outcome = if swept.crashed {
                Outcome::Crashed { reason: swept.reason }
            } else {
                Outcome::Interrupted { reason: swept.reason }
            };
            self.settle(n, swept.claim, outcome).await;
            self.took("taken over");
        }
        "sweep"
    }

    /// Ends a ready job as one that cannot start.
    pub(super) async fn bury(&mut self, n: usize, job: &Job) -> bool {
        let mut history = History::default();
        let (at, node) = (self.now, self.nodes[n].node.clone());
        let (name, message) = (UNBOUND.to_owned(), "no such result".to_owned());
        history.note(Mishap {
            at,
            attempt: 1,
            node,
            kind: MishapKind::Failed,
            name,
            message,
            args: None,
            detail: None,
        });
        let (state, result, cause) = (State::Dead, serde_json::Value::Null, Some(Cause::BadArguments));
        history.end = Some(End { state, at, started: None, node: None, result, cause, reason: None });
        let buried = self.nodes[n].bury_ready(&self.flow, job, &history, at).await.expect("Redis answers");
        if buried {
            let name = job.flow.as_ref().expect("it is of a flow").name.to_string();
            self.owe(self.queue_of(job), &name, Told::Dead);
            self.took("buried");
        }
        buried
    }

    /// Somebody does something to one of the jobs, wherever it is.
    pub(super) async fn alter(&mut self, n: usize) -> &'static str {
        let names: Vec<String> = self.oracle.stands().map(|(name, _)| name.to_owned()).collect();
        let name = names[self.random.index(names.len())].clone();
        let id = self.id(&name);
        let standing = self.nodes[n].store.job(&id, &self.names()).await.expect("Redis answers");
        let Some(standing) = standing else { return "not started yet" };
        let (q, had_ended) = (self.queue_of(&standing.job), standing.state().has_ended());
        let change = match self.random.below(8) {
            0 => Change::Cancel(self.request()),
            1 => Change::Delete,
            2 => Change::Promote,
            _ => Change::Retry(None),
        };
        let queue = self.queues[q].name.clone();
        let altered = self.nodes[n].alter(&queue, &[id], &change, self.now).await.expect("Redis answers");
        match (&altered[0], change) {
            (Altered::Done(_), Change::Cancel(_)) => self.owe(q, &name, Told::Cancelled),
            (Altered::Done(_), Change::Retry { .. }) if had_ended => self.owe(q, &name, Told::Again),
            (Altered::Done(_), Change::Delete) => {
                if !had_ended {
                    self.owe(q, &name, Told::Cancelled);
                }
                self.took("deleted");
            }
            _ => {}
        }
        self.count_words(q).await;
        "altered"
    }

    pub(super) async fn cancel_flow(&mut self, n: usize) -> &'static str {
        let request = self.request();
        let cancelled = self.nodes[n].cancel_flow(&self.flow, &request, self.now).await.expect("Redis answers");
        let members = self.oracle.stands().filter(|(name, _)| Callback::ALL.iter().all(|one| one.as_str() != *name));
        let all_completed = members.map(|(_, stand)| stand).all(|stand| stand == Stand::Completed);
        let expected = match (self.oracle.cancelled, all_completed) {
            (true, _) => FlowCancelled::Before,
            (false, true) => FlowCancelled::Completed,
            (false, false) => FlowCancelled::Done,
        };
        assert_eq!(cancelled, expected);
        if cancelled == FlowCancelled::Done {
            self.oracle.cancel();
            self.compare().await;
            // Whoever did it may die here; another goes on.
            if self.random.below(2) == 0 {
                self.cancel_started(n).await;
            }
        }
        "flow cancelled"
    }

    pub(super) async fn cancel_started(&mut self, n: usize) {
        let started: Vec<String> = self
            .oracle
            .stands()
            .filter(|(_, stand)| *stand == Stand::Started)
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut owed = Vec::new();
        for name in started {
            let id = self.id(&name);
            let standing = self.nodes[n].store.job(&id, &self.names()).await.expect("Redis answers");
            match standing {
                // It will be cancelled, now.
                Some(standing) if !standing.state().has_ended() && standing.state() != State::Active => {
                    owed.push((self.queue_of(&standing.job), name));
                }
                Some(_) => {}
                None => owed.push((self.listed_queue(&name), name)),
            }
        }
        let request = self.request();
        self.nodes[n].cancel_started(&self.flow, &request, self.now).await.expect("Redis answers");
        self.match_words(owed.into_iter().map(|(q, name)| (q, name, Told::Cancelled)).collect()).await;
    }

    fn listed_queue(&self, name: &str) -> usize {
        self.oracle
            .queue_of(name)
            .and_then(|queue| self.queues.iter().position(|one| one.name == *queue))
            .expect("one of the two")
    }

    /// Several words came at once: each must have come, in whatever order.
    async fn match_words(&mut self, mut owed: Vec<(usize, String, Told)>) {
        for q in 0..2 {
            let name = self.queues[q].name.clone();
            let found = self.nodes[0].words(&[name], 1000).await.expect("Redis answers");
            let heard = found.into_iter().next().map(|(_, heard)| heard).unwrap_or_default();
            for heard in heard.iter().skip(self.words[q].len()) {
                let word = heard.word.as_ref().expect("it is readable");
                let at = owed
                    .iter()
                    .position(|(of, name, told)| *of == q && word.name.as_str() == name && word.what == *told);
                let (_, name, told) = owed.swap_remove(at.unwrap_or_else(|| panic!("{word:?} is not owed: {owed:?}")));
                self.owe(q, &name, told);
            }
        }
        assert!(owed.is_empty(), "these words are missing: {owed:?}");
    }

    pub(super) async fn retry_flow(&mut self, n: usize) -> &'static str {
        let (mut again, mut anew) = (Vec::new(), Vec::new());
        let culprits: Vec<String> = self
            .oracle
            .stands()
            .filter(|(_, stand)| matches!(stand, Stand::Dead | Stand::Cancelled))
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in culprits {
            let standing = self.nodes[n].store.job(&self.id(&name), &self.names()).await.expect("Redis answers");
            match standing {
                None => anew.push(name),
                Some(standing) if !matches!(standing.place, Place::Dead | Place::Cancelled) => {}
                Some(standing) if standing.history.mishaps.last().is_some_and(|last| last.name == UNBOUND) => {
                    anew.push(name)
                }
                Some(standing) => again.push((self.queue_of(&standing.job), name, Told::Again)),
            }
        }
        let retried = self.nodes[n].retry_flow(&self.flow, self.now).await.expect("Redis answers");
        if self.oracle.cancelled {
            assert!(matches!(retried, FlowRetried::Cancelled(_)));
            return "asked in vain";
        }
        let mut expected: Vec<JobId> =
            again.iter().map(|(_, name, _)| name).chain(&anew).map(|name| self.id(name)).collect();
        let mut done = match retried {
            FlowRetried::Done(ids) => ids,
            other => {
                assert_eq!(other, FlowRetried::Nothing);
                Vec::new()
            }
        };
        expected.sort_unstable();
        done.sort_unstable();
        assert_eq!(done, expected);
        for name in anew {
            self.oracle.reopen(&name);
            *self.reopened.entry(name).or_default() += 1;
            self.took("started anew");
        }
        if !again.is_empty() {
            self.took("retried as a whole");
        }
        self.match_words(again).await;
        self.compare().await;
        "retry of the flow"
    }

    /// Takes everything that waits out of a queue, or puts it back.
    pub(super) async fn purge(&mut self, n: usize, q: usize) -> &'static str {
        if let Some((q, purge)) = self.purges.pop() {
            self.nodes[n].restore(&self.queues[q].name, &purge).await.expect("Redis answers");
            return "purge taken back";
        }
        let purge = self.nodes[n].purge(&self.queues[q].name, &[], self.now).await.expect("Redis answers");
        self.purges.push((q, purge.id));
        "purge"
    }

    /// Nobody takes the purges back: what they took is deleted for good, and the flow is told.
    pub(super) async fn give_up_purges(&mut self) -> bool {
        if self.purges.is_empty() {
            return false;
        }
        let mut owed = Vec::new();
        let names: Vec<String> = self.oracle.stands().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let standing = self.nodes[0].store.job(&self.id(&name), &self.names()).await.expect("Redis answers");
            if let Some(standing) = standing.filter(|standing| standing.place == Place::Purged) {
                owed.push((self.queue_of(&standing.job), name, Told::Cancelled));
            }
        }
        self.purges.clear();
        self.now = self.now.after(Duration::from_secs(31 * 60));
        for queue in &self.queues.clone() {
            self.nodes[0].prune(queue, self.now).await.expect("Redis answers");
        }
        self.match_words(owed).await;
        true
    }
}

fn name_of(claim: &Claim) -> String {
    claim.job.flow.as_ref().expect("every job is of the flow").name.to_string()
}
