//! Who gets the next slot of the node: seats say what they hold and what more they could use, the arbiter divides.
//!
//! Pure: it is told the time, wakes nobody and waits for nothing. A slot that is free goes at once to whoever can use
//! it; only where several can, the order decides. Seats speak in levels ("I run three and could run two more"), not in
//! steps, so nothing that is said late, twice or never again can leave the sum wrong.
//!
//! By weight it is start-time fair queueing: each slot that a seat gets moves it back in line by the inverse of its
//! weight, and whoever joins the line starts at its head, so that being idle earns nothing and costs nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::{SlotOrder, SlotRules};

/// By how much one slot moves a seat of weight 1 back in line. Large against the largest weight, so that rounding does
/// not show, and small enough for 2⁴⁴ slots.
const LENGTH: u64 = 1 << 20;

/// One pool, as the arbiter knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SeatId(u64);

/// What a pool says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Of its queue: 1 to 100.
    pub(super) weight: u64,
    /// Slots it uses: for jobs that run, and for claims that are on their way.
    pub(super) busy: usize,
    /// How many more it could use now.
    pub(super) more: usize,
    /// Slots it got and found no job for, since it last spoke: they do not count against it.
    pub(super) unused: usize,
    /// What its last claim brought.
    pub(super) came: usize,
    /// Whether it can use them at once; if not, what it is given stays reserved for it.
    pub(super) collect: bool,
}

/// What it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// Claims that it may make now. They count as busy from here on.
    pub(super) start: usize,
    /// Foreign messages that may wait as pending jobs until there are slots for them.
    pub(super) ahead: usize,
}

/// The slots of one node.
#[derive(Debug)]
pub(super) struct Arbiter {
    rules: SlotRules,
    seats: BTreeMap<SeatId, Seated>,
    /// Where the head of the line is: the place of the seat that got the last slot.
    head: u64,
    next: u64,
}

#[derive(Debug)]
struct Seated {
    weight: u64,
    /// `None`: it has not spoken since there is a bound, so it may use any number.
    busy: Option<usize>,
    /// Given to it, not collected yet.
    reserved: usize,
    /// What it could use besides.
    wish: usize,
    /// Since when it has been wishing without getting one.
    since: Option<Instant>,
    /// Its place in line: the smallest is first.
    place: u64,
}

impl Arbiter {
    pub(super) fn new() -> Self {
        let rules = SlotRules { bound: None, order: SlotOrder::Weighted };
        Self { rules, seats: BTreeMap::new(), head: 0, next: 0 }
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.rules.bound.is_some()
    }

    pub(super) fn enter(&mut self) -> SeatId {
        let seat = SeatId(self.next);
        self.next += 1;
        let place = self.head;
        self.seats.insert(seat, Seated { weight: 1, busy: Some(0), reserved: 0, wish: 0, since: None, place });
        seat
    }

    /// The seat is gone, and with it what it held. Returns who is to be woken, here and below.
    pub(super) fn leave(&mut self, seat: SeatId, now: Instant) -> Vec<SeatId> {
        self.seats.remove(&seat);
        self.divide(now)
    }

    /// Other rules. A lower bound takes nothing from anybody: the surplus ends by itself.
    pub(super) fn configure(&mut self, rules: SlotRules, now: Instant) -> Vec<SeatId> {
        let appears = !self.is_bounded();
        if self.rules.order != rules.order {
            // What one order has made of the line means nothing in the other.
            self.head = 0;
            self.seats.values_mut().for_each(|seated| seated.place = 0);
        }
        self.rules = rules;
        if appears {
            self.seats.values_mut().for_each(Seated::forget);
        }
        self.divide(now)
    }

    /// A seat speaks. Whatever it gives up by that goes to those who wait.
    pub(super) fn ask(&mut self, seat: SeatId, need: &Need, now: Instant) -> (Grant, Vec<SeatId>) {
        let head = self.head;
        self.seated(seat).hear(need, head, now);
        let mut woken = self.divide(now);
        woken.retain(|&other| other != seat);
        let ahead = self.ahead(need);
        let start = if need.collect { self.seated(seat).collect() } else { 0 };
        (Grant { start, ahead }, woken)
    }

    /// Gives out what is free.
    fn divide(&mut self, now: Instant) -> Vec<SeatId> {
        let mut given = Vec::new();
        for _ in 0..self.free() {
            let Some(seat) = self.first(now) else { break };
            let seated = self.seated(seat);
            let place = seated.place;
            seated.give(now);
            self.head = self.head.max(place);
            if !given.contains(&seat) {
                given.push(seat);
            }
        }
        given
    }

    /// None, as long as somebody uses an unknown number of them.
    fn free(&self) -> usize {
        let used: Option<usize> = self.seats.values().map(|seated| Some(seated.busy? + seated.reserved)).sum();
        match (self.rules.bound, used) {
            (Some(bound), Some(used)) => bound.saturating_sub(used),
            _ => 0,
        }
    }

    /// Whose turn it is.
    fn first(&self, now: Instant) -> Option<SeatId> {
        let waiting = || self.seats.iter().filter(|(_, seated)| seated.wish > 0);
        let first = match self.rules.order {
            SlotOrder::Weighted => waiting().min_by_key(|(_, seated)| seated.place),
            SlotOrder::Strict { starve_after } => {
                let starves = |since: Instant| now.saturating_duration_since(since) >= starve_after;
                let starving = waiting().filter(|(_, seated)| seated.since.is_some_and(starves));
                let by_weight = || waiting().min_by_key(|(_, seated)| (Reverse(seated.weight), seated.place));
                starving.min_by_key(|(_, seated)| seated.since).or_else(by_weight)
            }
        };
        first.map(|(seat, _)| *seat)
    }

    /// As much as the queue's part of the node, and one more, so that it has a job to compete with while the next ones
    /// travel; strictly lighter queues need one, to wait with. Where slots are idle, also twice what it used last: a queue
    /// that is alone takes the whole node in a few rounds, and several that start together do not each draw what only
    /// one of them can run.
    fn ahead(&self, need: &Need) -> usize {
        let bound = self.rules.bound.unwrap_or(usize::MAX);
        let share = match self.rules.order {
            SlotOrder::Weighted => {
                let all: u64 = self.seats.values().map(|seated| seated.weight).sum();
                let weight = usize::try_from(need.weight).unwrap_or(usize::MAX);
                bound
                    .saturating_mul(weight)
                    .div_ceil(usize::try_from(all).unwrap_or(usize::MAX).max(1))
                    .saturating_add(1)
            }
            SlotOrder::Strict { .. } if self.seats.values().all(|seated| seated.weight <= need.weight) => bound,
            SlotOrder::Strict { .. } => 1,
        };
        share.max(self.free().min(need.came * 2))
    }

    fn seated(&mut self, seat: SeatId) -> &mut Seated {
        self.seats.get_mut(&seat).expect("a seat is here until it leaves")
    }
}

impl Seated {
    fn hear(&mut self, need: &Need, head: u64, now: Instant) {
        if self.weight != need.weight {
            self.weight = need.weight;
            // Whoever has become heavier does not wait for the turn of its old weight.
            self.place = self.place.min(head + self.step());
        }
        self.busy = Some(need.busy);
        let too_many = self.reserved.saturating_sub(need.more);
        self.reserved -= too_many;
        self.move_up(too_many + need.unused);
        self.wish = need.more - self.reserved;
        if self.wish == 0 {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
            self.place = self.place.max(head);
        }
    }

    fn give(&mut self, now: Instant) {
        self.wish -= 1;
        self.reserved += 1;
        self.place += self.step();
        self.since = (self.wish > 0).then_some(now);
    }

    fn collect(&mut self) -> usize {
        let start = std::mem::take(&mut self.reserved);
        self.busy = self.busy.map(|busy| busy + start);
        start
    }

    /// It speaks again before anything is given out.
    fn forget(&mut self) {
        *self = Self { weight: self.weight, busy: None, reserved: 0, wish: 0, since: None, place: 0 };
    }

    fn move_up(&mut self, slots: usize) {
        self.place = self.place.saturating_sub(self.step().saturating_mul(slots as u64));
    }

    fn step(&self) -> u64 {
        LENGTH / self.weight.max(1)
    }
}

#[cfg(test)]
mod tests;
