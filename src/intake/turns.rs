//! Whose turn it is among the foreign lists of a queue: whoever gave a message last is the last in line, so that a busy
//! list starves no other.
//!
//! Wires take turns, and so do the lists of Celery, as in Celery's own worker (each step of priorities for itself, see
//! `take.lua`). Those of RQ keep the operator's order, which for RQ's own worker too says which of its queues is served
//! first.

use crate::job::Wire;
use crate::store::ForeignList;

/// The line: lists of a wire stand together.
#[derive(Debug, Clone)]
pub(super) struct Turns(Vec<ForeignList>);

impl Turns {
    pub(super) fn new(mut lists: Vec<ForeignList>) -> Self {
        let first = lists.first().map(|list| list.wire);
        lists.sort_by_key(|list| Some(list.wire) != first);
        Self(lists)
    }

    pub(super) fn lists(&self) -> &[ForeignList] {
        &self.0
    }

    /// A message came from this Redis list.
    pub(super) fn gave(&mut self, key: &str) {
        let Some(at) = self.0.iter().position(|list| list.keys.iter().any(|own| own == key)) else { return };
        let wire = self.0[at].wire;
        if wire == Wire::Celery {
            let list = self.0.remove(at);
            self.0.push(list);
        }
        self.0.sort_by_key(|list| list.wire == wire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gave_goes_to_the_end_and_rqs_queues_keep_their_order() {
        let lists = [(Wire::Celery, "a"), (Wire::Rq, "high"), (Wire::Celery, "b"), (Wire::Rq, "low")];
        let mut turns = Turns::new(lists.map(|(wire, name)| ForeignList::new(wire, name)).to_vec());
        let names = |turns: &Turns| turns.lists().iter().map(|list| list.name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&turns), "a b high low");
        turns.gave("a\u{6}\u{16}3");
        assert_eq!(names(&turns), "high low b a");
        turns.gave("rq:queue:high");
        assert_eq!(names(&turns), "b a high low");
        turns.gave("rq:queue:low");
        assert_eq!(names(&turns), "b a high low");
        turns.gave("of another time");
        assert_eq!(names(&turns), "b a high low");
        turns.gave("b");
        assert_eq!(names(&turns), "high low a b");
    }
}
