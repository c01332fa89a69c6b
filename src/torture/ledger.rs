//! Our own books: what was asked for, what the jobs have really done, and what was done to the nodes. Kept in this
//! process, from what it sees itself; nothing in it comes from jobsd or from Redis, but who held what when a node died.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::load::Number;

/// One life of a node, from its start to its end. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Life(pub(super) u32);

/// An attempt's place in the books; also what its handler answers, so that a job's record tells whose result it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) usize);

/// Everything, as it is at the end.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) jobs: Vec<Job>,
    /// In the order in which they began.
    pub(super) attempts: Vec<Attempt>,
    pub(super) lives: Vec<Lived>,
    pub(super) strikes: Vec<Strike>,
    /// From the death of a job's holder to the begin of its next attempt.
    pub(super) recoveries: Vec<Duration>,
    /// Jobs that were seen to be held although their holder had made their effect.
    pub(super) sightings: Vec<Sighting>,
    /// From when to when Redis did not answer us, although nobody had struck it: a busy disk or machine.
    pub(super) silences: Vec<(Instant, Instant)>,
    done: usize,
    accepted: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Before the first try to put it in.
    pub(super) sent: Instant,
    /// When jobsd said that it has it.
    pub(super) accepted: Option<Instant>,
    pub(super) attempts: Vec<Ticket>,
    /// Its holder died then, and it has not begun again since.
    orphaned: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) job: Number,
    pub(super) life: Life,
    pub(super) begun: Instant,
    /// `None`: it runs.
    pub(super) ended: Option<(Instant, Ending)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its effect is made.
    Done,
    /// It was told that it has failed.
    Failed,
    /// Its node went away from it.
    Cut,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Lived {
    attempts: Vec<Ticket>,
}

/// A fault that was made.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    pub(super) fault: Fault,
    pub(super) at: Instant,
    /// When it was over: the node went on, or Redis answered again.
    pub(super) over: Instant,
    /// `None`: it was everybody's.
    pub(super) life: Option<Life>,
    /// The jobs that Redis said the node held.
    pub(super) held: Vec<Number>,
    /// For each node that it hit, how long until jobs began on it again; `None` when they did not in time.
    pub(super) resumed: Vec<Option<Duration>>,
    /// Jobs that a node left active although it ended in order.
    pub(super) left_active: usize,
}

impl Job {
    pub(super) fn sent(at: Instant) -> Self {
        Self { sent: at, accepted: None, attempts: Vec::new(), orphaned: None }
    }
}

impl Strike {
    pub(super) fn new(fault: Fault, life: Option<Life>) -> Self {
        let now = Instant::now();
        Self { fault, at: now, over: now, life, held: Vec::new(), resumed: Vec::new(), left_active: 0 }
    }
}

/// At this time Redis said that this life of a node held this job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) at: Instant,
    pub(super) job: Number,
    pub(super) life: Life,
}

/// The books, open to everybody who has something to write.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Books>);

impl Ledger {
    /// Numbers for so many new jobs, which are sent now; the first of them.
    pub(super) fn reserve(&self, count: u32) -> Number {
        let mut books = self.lock();
        let first = Number::try_from(books.jobs.len()).expect("fewer jobs than 2^32");
        let job = Job::sent(Instant::now());
        books.jobs.extend(std::iter::repeat_n(job, count as usize));
        first
    }

    pub(super) fn accept(&self, first: Number, count: u32) {
        let (mut books, now) = (self.lock(), Instant::now());
        let range = first as usize..(first + count) as usize;
        books.accepted += range.len();
        books.jobs[range].iter_mut().for_each(|job| job.accepted = Some(now));
    }

    /// A handler has come with this job. `None`: there is no such job or life.
    pub(super) fn begin(&self, job: Number, life: Life) -> Option<Ticket> {
        let (mut books, now) = (self.lock(), Instant::now());
        let ticket = Ticket(books.attempts.len());
        let entry = books.jobs.get_mut(job as usize)?;
        entry.attempts.push(ticket);
        let orphaned = entry.orphaned.take();
        books.lives.get_mut(life.0 as usize)?.attempts.push(ticket);
        books.recoveries.extend(orphaned.map(|since| now - since));
        books.attempts.push(Attempt { job, life, begun: now, ended: None });
        Some(ticket)
    }

    pub(super) fn end(&self, ticket: Ticket, ending: Ending) {
        let mut books = self.lock();
        let attempt = &mut books.attempts[ticket.0];
        if attempt.ended.is_none() {
            attempt.ended = Some((Instant::now(), ending));
            books.done += usize::from(ending == Ending::Done);
        }
    }

    /// How many attempts of the job have been told so far that they failed.
    pub(super) fn failures(&self, job: Number) -> u32 {
        let books = self.lock();
        let tickets = &books.jobs[job as usize].attempts;
        let failed = |ticket: &&Ticket| matches!(books.attempts[ticket.0].ended, Some((_, Ending::Failed)));
        u32::try_from(tickets.iter().filter(failed).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn live(&self) -> Life {
        let mut books = self.lock();
        let life = Life(u32::try_from(books.lives.len()).expect("fewer lives than 2^32"));
        books.lives.push(Lived::default());
        life
    }

    /// The process is gone, for sure. What it ran is cut off, even where its connections have not told so yet.
    pub(super) fn die(&self, life: Life) {
        let (mut books, now) = (self.lock(), Instant::now());
        for ticket in books.lives[life.0 as usize].attempts.clone() {
            books.attempts[ticket.0].ended.get_or_insert((now, Ending::Cut));
        }
    }

    /// Jobs of which this life has an attempt that runs, or that ended less than `before` ago: what it may hold, when
    /// Redis cannot be asked.
    pub(super) fn may_hold(&self, life: Life, before: Duration) -> Vec<Number> {
        let (books, now) = (self.lock(), Instant::now());
        let recent = |attempt: &&Attempt| attempt.ended.is_none_or(|(at, _)| now - at < before);
        let own = books.lives[life.0 as usize].attempts.iter().map(|ticket| &books.attempts[ticket.0]);
        own.filter(recent).map(|attempt| attempt.job).collect()
    }

    pub(super) fn running(&self, life: Life) -> Vec<Number> {
        self.may_hold(life, Duration::ZERO)
    }

    pub(super) fn last_begin(&self, life: Life) -> Option<Instant> {
        let books = self.lock();
        books.lives[life.0 as usize].attempts.last().map(|ticket| books.attempts[ticket.0].begun)
    }

    /// These jobs have lost their holder at this time.
    pub(super) fn orphan(&self, jobs: &[Number], at: Instant) {
        let mut books = self.lock();
        for &number in jobs {
            // Who has begun again meanwhile, or ended without our knowing, is nobody's orphan.
            let begun = |books: &Books| {
                let last = books.jobs[number as usize].attempts.last();
                last.is_some_and(|ticket| books.attempts[ticket.0].begun > at)
            };
            if (number as usize) < books.jobs.len() && !begun(&books) {
                books.jobs[number as usize].orphaned = Some(at);
            }
        }
    }

    /// Writes down who holds a job that he has done already. For a moment that is as it should be.
    pub(super) fn see(&self, held: Vec<(Number, Life)>) {
        let (mut books, at) = (self.lock(), Instant::now());
        for (job, life) in held {
            let Some(entry) = books.jobs.get(job as usize) else { continue };
            let mut attempts = entry.attempts.iter().map(|ticket| &books.attempts[ticket.0]);
            if attempts.any(|attempt| attempt.life == life && matches!(attempt.ended, Some((_, Ending::Done)))) {
                books.sightings.push(Sighting { at, job, life });
            }
        }
    }

    /// Redis was asked at `from` and has only answered now, if at all.
    pub(super) fn silent_since(&self, from: Instant) {
        self.lock().silences.push((from, Instant::now()));
    }

    pub(super) fn note(&self, strike: Strike) {
        self.lock().strikes.push(strike);
    }

    /// Jobs put in, and those that are done at least once. Their difference is the backlog, but for what failed.
    pub(super) fn progress(&self) -> Progress {
        let books = self.lock();
        Progress {
            sent: books.jobs.len(),
            accepted: books.accepted,
            done: books.done,
            begun: books.attempts.len(),
            strikes: books.strikes.len(),
        }
    }

    pub(super) fn close(&self) -> Books {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic in the middle of an entry is a bug that must show, but not as a hundred others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) sent: usize,
    pub(super) accepted: usize,
    pub(super) done: usize,
    pub(super) begun: usize,
    pub(super) strikes: usize,
}
