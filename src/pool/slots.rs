//! The slots that all pools of a node share, when it has a bound: how pools ask, and are woken when it is their turn.
//!
//! What is decided is decided by the [`Arbiter`]. Without a bound a pool passes by here without taking a lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::arbiter::{Arbiter, Grant, Need, SeatId};
use crate::config::SlotRules;

#[derive(Debug)]
pub(super) struct Slots {
    /// Written under the lock, read without it.
    bounded: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    arbiter: Arbiter,
    turns: HashMap<SeatId, Arc<Notify>>,
}

/// A pool's place among the others. When it is dropped, however the pool ended, what it held goes to them.
#[derive(Debug)]
pub(super) struct Seat {
    slots: Arc<Slots>,
    id: SeatId,
    turn: Arc<Notify>,
}

impl Slots {
    pub(super) fn new() -> Self {
        let table = Table { arbiter: Arbiter::new(), turns: HashMap::new() };
        Self { bounded: AtomicBool::new(false), table: Mutex::new(table) }
    }

    /// Puts rules in force. Jobs that run go on; every pool comes round and says what it has.
    pub(super) fn configure(&self, rules: SlotRules) {
        let mut table = self.table();
        table.arbiter.configure(rules, Instant::now());
        self.bounded.store(table.arbiter.is_bounded(), Ordering::Release);
        table.turns.values().for_each(|turn| turn.notify_one());
    }

    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let mut table = self.table();
        let (id, turn) = (table.arbiter.enter(), Arc::new(Notify::new()));
        table.turns.insert(id, Arc::clone(&turn));
        Seat { slots: Arc::clone(self), id, turn }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Seats speak in levels: whatever a panic left half-said is said again.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn is_bounded(&self) -> bool {
        self.slots.bounded.load(Ordering::Acquire)
    }

    /// Says what the pool has and could use; whatever it is not given now, [`Seat::turn`] announces.
    pub(super) fn ask(&self, need: &Need) -> Grant {
        if !self.is_bounded() {
            return Grant { start: if need.collect { need.more } else { 0 }, ahead: usize::MAX };
        }
        let mut table = self.slots.table();
        let (grant, woken) = table.arbiter.ask(self.id, need, Instant::now());
        table.wake(&woken);
        grant
    }

    /// Waits until there is a reason to ask again: slots are reserved for this pool, or the rules are others.
    pub(super) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.slots.table();
        table.turns.remove(&self.id);
        let woken = table.arbiter.leave(self.id, Instant::now());
        table.wake(&woken);
    }
}

impl Table {
    fn wake(&self, seats: &[SeatId]) {
        seats.iter().filter_map(|seat| self.turns.get(seat)).for_each(|turn| turn.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SlotOrder;

    fn slots(bound: Option<usize>) -> Arc<Slots> {
        let slots = Arc::new(Slots::new());
        slots.configure(SlotRules { bound, order: SlotOrder::Weighted });
        slots
    }

    fn could(busy: usize, more: usize) -> Need {
        Need { weight: 1, busy, more, unused: 0, came: 0, collect: true }
    }

    async fn in_time<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(std::time::Duration::from_secs(10), what).await.expect("woken in time")
    }

    #[tokio::test]
    async fn a_pool_that_panics_or_is_aborted_leaks_no_slot() {
        let slots = slots(Some(4));
        let waiting = slots.seat();
        for panics in [true, false] {
            let seat = slots.seat();
            let (has_them, seen) = tokio::sync::oneshot::channel();
            let pool = tokio::spawn(async move {
                assert_eq!(seat.ask(&could(0, 10)).start, 4);
                has_them.send(()).expect("somebody looks");
                seat.turn().await;
                assert!(!panics, "as a bug would");
                std::future::pending::<()>().await;
            });
            seen.await.expect("it has them");
            assert_eq!(waiting.ask(&could(0, 4)).start, 0);
            // Any word of ours wakes it: it panics now, or sleeps on and is aborted.
            slots.configure(SlotRules { bound: Some(4), order: SlotOrder::Weighted });
            in_time(waiting.turn()).await;
            if !panics {
                pool.abort();
            }
            pool.await.expect_err("it did not end by itself");
            in_time(waiting.turn()).await;
            assert_eq!(waiting.ask(&could(0, 4)).start, 4);
            assert_eq!(waiting.ask(&could(0, 0)).start, 0);
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_whoever_gives_back() {
        let slots = slots(Some(1));
        let (a, b) = (slots.seat(), slots.seat());
        assert_eq!(a.ask(&could(0, 1)).start, 1);
        assert_eq!(b.ask(&could(0, 1)).start, 0);
        a.ask(&could(0, 0));
        in_time(b.turn()).await;
        assert_eq!(b.ask(&could(0, 1)).start, 1);
    }

    #[tokio::test]
    async fn rules_come_and_go_while_jobs_run() {
        let slots = slots(None);
        let (a, b) = (slots.seat(), slots.seat());
        assert_eq!(a.ask(&could(0, 7)), Grant { start: 7, ahead: usize::MAX });
        slots.configure(SlotRules { bound: Some(8), order: SlotOrder::Weighted });
        in_time(a.turn()).await;
        assert_eq!(b.ask(&could(0, 5)).start, 0, "nobody has said yet how much runs");
        assert_eq!(a.ask(&could(7, 0)).start, 0);
        in_time(b.turn()).await;
        assert_eq!(b.ask(&could(0, 5)).start, 1);
        slots.configure(SlotRules { bound: None, order: SlotOrder::Weighted });
        in_time(b.turn()).await;
        assert_eq!(b.ask(&could(1, 5)).start, 5);
    }
}
