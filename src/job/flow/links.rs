//! From the shape of a flow to who follows whom.
//!
//! Where several jobs are followed by several, a join stands between them: a link of its own that is done as soon as all
//! before it are, so that a group of n before a group of m is n + m edges and not n × m. Joins are numbered behind the
//! members.

use std::collections::VecDeque;

use super::Shape;

/// Who follows whom, in a whole flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// The members, then the joins.
    pub links: Vec<Link>,
    members: usize,
}

/// One member or join.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Those it follows.
    pub before: Vec<usize>,
    /// Those that follow it once it is completed.
    pub on_completed: Vec<usize>,
    /// Those that follow it once it has ended, in whatever way.
    pub on_ended: Vec<usize>,
}

/// What a part of the flow follows: all of these, by way of a join where that saves edges.
struct Before {
    ends: Vec<usize>,
    /// Jobs that follow them directly.
    followers: usize,
    /// One for those that need them completed, and one for the others.
    joins: [Option<usize>; 2],
}

impl Links {
    /// `any` says for each member whether it allows those before it to fail.
    pub(crate) fn of(shape: &Shape, any: &[bool]) -> Self {
        let mut links = Self { links: vec![Link::default(); any.len()], members: any.len() };
        links.walk(shape, any, &mut Before::nothing());
        links
    }

    /// Whether this is a join.
    pub(crate) fn is_join(&self, link: usize) -> bool {
        link >= self.members
    }

    /// The members that this one follows, through joins.
    pub(crate) fn members_before(&self, link: usize) -> Vec<usize> {
        let mut members = Vec::new();
        for &one in &self.links[link].before {
            // No join stands before another.
            if self.is_join(one) { members.extend(&self.links[one].before) } else { members.push(one) }
        }
        members
    }

    /// Whether this member comes after that one, directly or not.
    pub(crate) fn follows(&self, link: usize, wanted: usize) -> bool {
        let mut seen = vec![false; self.links.len()];
        let mut next: VecDeque<usize> = self.links[link].before.iter().copied().collect();
        while let Some(one) = next.pop_front() {
            if one == wanted {
                return true;
            }
            if !std::mem::replace(&mut seen[one], true) {
                next.extend(&self.links[one].before);
            }
        }
        false
    }

    /// Links the jobs of this part behind `before`; returns those that end it.
    fn walk(&mut self, shape: &Shape, any: &[bool], before: &mut Before) -> Vec<usize> {
        match shape {
            Shape::Job(member) => {
                self.follow(*member, any[*member], before);
                vec![*member]
            }
            Shape::Group(parts) => parts.iter().flat_map(|part| self.walk(part, any, before)).collect(),
            Shape::Chain(parts) => {
                let mut parts = parts.iter();
                let mut ends = parts.next().map_or_else(Vec::new, |first| self.walk(first, any, before));
                for part in parts {
                    let mut before = Before { ends, followers: begins(part), joins: [None; 2] };
                    ends = self.walk(part, any, &mut before);
                }
                ends
            }
            Shape::Graph(follows) => {
                for (member, after) in follows.iter().enumerate() {
                    after.iter().for_each(|&one| self.edge(one, member, any[member]));
                }
                Vec::new()
            }
        }
    }

    fn follow(&mut self, member: usize, any: bool, before: &mut Before) {
        if before.ends.len() < 2 || before.followers < 2 {
            before.ends.iter().for_each(|&one| self.edge(one, member, any));
            return;
        }
        let join = *before.joins[usize::from(any)].get_or_insert_with(|| {
            self.links.push(Link::default());
            let join = self.links.len() - 1;
            before.ends.iter().for_each(|&one| self.edge(one, join, any));
            join
        });
        self.edge(join, member, any);
    }

    fn edge(&mut self, from: usize, to: usize, any: bool) {
        self.links[to].before.push(from);
        let link = &mut self.links[from];
        if any { &mut link.on_ended } else { &mut link.on_completed }.push(to);
    }
}

impl Before {
    fn nothing() -> Self {
        Self { ends: Vec::new(), followers: 0, joins: [None; 2] }
    }
}

/// How many jobs begin a part.
fn begins(shape: &Shape) -> usize {
    match shape {
        Shape::Job(_) => 1,
        Shape::Chain(parts) => parts.first().map_or(0, begins),
        Shape::Group(parts) => parts.iter().map(begins).sum(),
        Shape::Graph(_) => 0,
    }
}

/// Members that wait for each other, each after the one behind it in the list; `None` when there are none.
pub(crate) fn cycle(follows: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut waits: Vec<usize> = follows.iter().map(Vec::len).collect();
    let mut followers = vec![Vec::new(); follows.len()];
    for (member, after) in follows.iter().enumerate() {
        after.iter().for_each(|&one| followers[one].push(member));
    }
    let mut free: Vec<usize> = (0..follows.len()).filter(|&member| waits[member] == 0).collect();
    while let Some(done) = free.pop() {
        for &member in &followers[done] {
            waits[member] -= 1;
            if waits[member] == 0 {
                free.push(member);
            }
        }
    }
    // Whoever is left follows another one that is left: going on like that comes back to where one has been.
    let mut at = (0..follows.len()).find(|&member| waits[member] > 0)?;
    let mut path = Vec::new();
    let mut met = vec![None; follows.len()];
    loop {
        if let Some(first) = met[at] {
            return Some(path.split_off(first));
        }
        met[at] = Some(path.len());
        path.push(at);
        at = *follows[at].iter().find(|&&one| waits[one] > 0).expect("it waits for one that is left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: std::ops::Range<usize>) -> Shape {
        Shape::Group(members.map(Shape::Job).collect())
    }

    #[test]
    fn a_group_before_a_group_costs_their_sum() {
        let shape = Shape::Chain(vec![group(0..100), group(100..300), Shape::Job(300)]);
        let links = Links::of(&shape, &[false; 301]);
        let edges: usize = links.links.iter().map(|link| link.before.len()).sum();
        assert_eq!((edges, links.links.len()), (100 + 200 + 200, 302), "one join, and none before a single job");
        assert_eq!(links.members_before(100), (0..100).collect::<Vec<_>>());
        assert_eq!(links.members_before(300), (100..300).collect::<Vec<_>>());
        assert!(links.follows(300, 0) && links.follows(300, 299) && links.follows(100, 99));
        assert!(!links.follows(100, 101) && !links.follows(0, 0));
    }

    #[test]
    fn who_allows_failure_waits_behind_a_join_of_its_own() {
        let shape = Shape::Chain(vec![group(0..2), group(2..4)]);
        let links = Links::of(&shape, &[false, false, false, true]);
        assert_eq!(links.links[0].on_completed, [4]);
        assert_eq!(links.links[0].on_ended, [5]);
        assert_eq!((&links.links[4].on_completed, &links.links[5].on_ended), (&vec![2], &vec![3]));
    }

    #[test]
    fn nested_parts_end_where_their_last_jobs_end() {
        let inner = Shape::Chain(vec![Shape::Job(1), group(2..4)]);
        let shape = Shape::Chain(vec![Shape::Job(0), Shape::Group(vec![inner, Shape::Job(4)]), Shape::Job(5)]);
        let links = Links::of(&shape, &[false; 6]);
        let before: Vec<&[usize]> = links.links.iter().map(|link| &*link.before).collect();
        assert_eq!(before, [&[][..], &[0], &[1], &[1], &[0], &[2, 3, 4]]);
    }

    #[test]
    fn a_cycle_is_found_wherever_it_is() {
        assert_eq!(cycle(&[vec![], vec![0], vec![0, 1]]), None);
        assert_eq!(cycle(&[vec![0]]), Some(vec![0]));
        let found = cycle(&[vec![3], vec![0], vec![1], vec![2], vec![2]]).expect("a cycle");
        assert_eq!(found.len(), 4, "{found:?}");
        let long: Vec<Vec<usize>> = (0..10_000).map(|n| vec![(n + 1) % 10_000]).collect();
        assert_eq!(cycle(&long).map(|path| path.len()), Some(10_000));
    }
}
