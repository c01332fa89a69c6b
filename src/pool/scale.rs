//! How many slots a queue has whose concurrency lies between two bounds: it grows with the backlog, and shrinks when
//! slots are unused, when a service asks for patience and when the machine is short of something.
//!
//! Pure: once a tick it is told how the queue stands and answers with a size and the reason for it. It grows at once and
//! by half, and shrinks by an eighth and only after many ticks without need, so that a load that comes and goes does not
//! move it. After a pushback it grows by one slot at a time, and later with each pushback that follows.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;

use crate::config::Concurrency;

/// How often it is asked while there is anything to do.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Ticks with slots unused before it shrinks, and between two steps down for want of CPU or memory: 10 s.
const CALM: u32 = 20;
/// Ticks for which fewer jobs must wait than there are slots before it grows for them: 3 s.
const PATIENCE: u32 = 6;
/// Ticks after a pushback in which further ones say nothing new, because what they hit had started before: 2 s.
const ECHO: u32 = 4;
/// Ticks without growth after a pushback: 10 s, doubled up to 80 s while they follow each other.
const HOLD: (u32, u32) = (20, 160);
/// Ticks without a pushback after which all is forgotten: 2 min.
const FORGET: u32 = 240;
/// Shares of time, in percent, in which something waited for the CPU: no growth from the first, shrinking from the second.
const CPU: (f64, f64) = (80.0, 95.0);
/// The same for memory, of which even a little is much.
const MEMORY: (f64, f64) = (10.0, 25.0);

/// The size of one queue, and what it remembers of the last ticks.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    bounds: Concurrency,
    size: usize,
    /// Why it does not grow though jobs wait.
    held: Option<Reason>,
    /// Ticks in a row in which slots were unused, and the most that were used in them.
    calm: (u32, usize),
    /// Ticks in a row in which jobs waited and all slots were in use.
    crowded: u32,
    /// Ticks since the last step down for want of CPU or memory.
    pressed: u32,
    pushed: Pushed,
}

/// What it remembers of pushbacks.
#[derive(Debug, Clone, Default)]
struct Pushed {
    /// Ticks since the last one that counted; `None`: none that is not forgotten.
    since: Option<u32>,
    hold: u32,
}

/// How a queue stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Load {
    /// The most slots in use at one time since the last tick.
    pub(super) busy: usize,
    /// Jobs and foreign messages that wait.
    pub(super) backlog: u64,
    /// Why a noticeable part of the attempts that have ended since the last tick ended so.
    pub(super) pushback: Option<String>,
    /// The queue could not use its slots because the node has none left.
    pub(super) crowded_out: bool,
    /// Shares of time in percent; `None` where the kernel does not tell.
    pub(super) cpu: Option<f64>,
    pub(super) memory: Option<f64>,
}

/// Another size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reason {
    Bounds {
        bounds: Concurrency,
        /// By whom and why, where it is not the configuration that says so.
        set: Option<String>,
    },
    Backlog(u64),
    Unused {
        most: usize,
    },
    Pushback(String),
    Cpu(f64),
    Memory(f64),
}

impl Scale {
    pub(super) fn new(bounds: Concurrency) -> Self {
        Self {
            bounds,
            size: bounds.min,
            held: None,
            calm: (0, 0),
            crowded: 0,
            pressed: CALM,
            pushed: Pushed::default(),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Why it does not grow though jobs wait.
    pub(super) fn held(&self) -> Option<&Reason> {
        self.held.as_ref()
    }

    /// Whether it has nothing to do until something runs.
    pub(super) fn is_at_rest(&self) -> bool {
        self.size == self.bounds.min
    }

    /// The same between other bounds: the nearest size within them.
    pub(super) fn within(self, bounds: Concurrency) -> Self {
        Self { bounds, size: self.size.clamp(bounds.min, bounds.max), calm: (0, 0), ..self }
    }

    /// A tick has passed, in which the queue stood so.
    pub(super) fn tick(&mut self, load: &Load) -> Option<Step> {
        self.held = None;
        self.pressed = self.pressed.saturating_add(1);
        self.pushed.tick();
        if let Some(words) = &load.pushback
            && self.pushed.counts()
        {
            self.pushed.again();
            return self.step(self.size - (self.size / 4).max(1), Reason::Pushback(words.clone()));
        }
        let (scarce, much) = scarcity(load);
        if let Some(reason) = much
            && self.pressed >= CALM
        {
            self.pressed = 0;
            return self.step(self.size - (self.size / 8).max(1), reason);
        }
        if load.busy < self.size {
            self.crowded = 0;
            return if load.crowded_out { None } else { self.rest(load.busy) };
        }
        self.calm = (0, 0);
        self.crowded = if load.backlog > 0 { self.crowded.saturating_add(1) } else { 0 };
        let careful = self.pushed.since.is_some();
        let needs = !careful && load.backlog >= self.size as u64 || self.crowded >= PATIENCE;
        if self.crowded == 0 || !needs || self.size >= self.bounds.max {
            return None;
        }
        self.held = scarce.or_else(|| self.pushed.holds());
        if self.held.is_some() {
            return None;
        }
        let by = if careful { 1 } else { self.size.div_ceil(2) };
        self.crowded = 0;
        self.step(self.size + by, Reason::Backlog(load.backlog))
    }

    /// Slots were unused, and no more than so many in use. One more than those is kept: where all are in use, it grows.
    fn rest(&mut self, busy: usize) -> Option<Step> {
        let (ticks, most) = self.calm;
        self.calm = (ticks + 1, most.max(busy));
        if self.calm.0 < CALM {
            return None;
        }
        let most = self.calm.1;
        self.calm = (0, 0);
        self.step((self.size - (self.size / 8).max(1)).max((most + 1).min(self.size)), Reason::Unused { most })
    }

    fn step(&mut self, to: usize, reason: Reason) -> Option<Step> {
        let from = self.size;
        self.size = to.clamp(self.bounds.min, self.bounds.max);
        self.calm = (0, 0);
        (self.size != from).then_some(Step { from, to: self.size, reason })
    }
}

impl Pushed {
    fn tick(&mut self) {
        self.since = self.since.map(|since| since + 1).filter(|since| *since < FORGET);
        if self.since.is_none() {
            self.hold = 0;
        }
    }

    fn counts(&self) -> bool {
        self.since.is_none_or(|since| since > ECHO)
    }

    fn again(&mut self) {
        self.since = Some(0);
        self.hold = (self.hold * 2).clamp(HOLD.0, HOLD.1);
    }

    fn holds(&self) -> Option<Reason> {
        let since = self.since.filter(|since| *since < self.hold)?;
        Some(Reason::Pushback(format!("{} ago", format_duration(TICK * since))))
    }
}

/// What the machine has too little of to grow, and to stay.
fn scarcity(load: &Load) -> (Option<Reason>, Option<Reason>) {
    let beyond = |share: Option<f64>, limit: f64| share.filter(|share| *share >= limit);
    let of = |cpu: f64, memory: f64| {
        let memory = beyond(load.memory, memory).map(Reason::Memory);
        memory.or_else(|| beyond(load.cpu, cpu).map(Reason::Cpu))
    };
    (of(CPU.0, MEMORY.0), of(CPU.1, MEMORY.1))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounds { bounds, set: Some(words) } => write!(f, "set to {bounds} {words}"),
            Self::Bounds { bounds, set: None } => write!(f, "the configuration says {bounds}"),
            Self::Backlog(1) => write!(f, "1 job waits and all slots are in use"),
            Self::Backlog(jobs) => write!(f, "{jobs} jobs wait and all slots are in use"),
            Self::Unused { most: 0 } => write!(f, "none was in use for {}", format_duration(TICK * CALM)),
            Self::Unused { most } => write!(f, "no more than {most} were in use for {}", format_duration(TICK * CALM)),
            Self::Pushback(words) => write!(f, "pushback: {words}"),
            Self::Cpu(share) => write!(f, "something waits for the CPU {share:.0} % of the time"),
            Self::Memory(share) => write!(f, "something waits for memory {share:.0} % of the time"),
        }
    }
}

#[cfg(test)]
mod tests;
