//! What the stands of a flow's jobs mean for the whole: its state, who blocks whom, and one sentence for a person.

use serde::Serialize;

use super::{Links, Outline};
use crate::job::{MemberName, Request};

/// Culprits that are compared by how many jobs wait for them.
const WEIGHED: usize = 100;

/// Where a job stands, as far as its flow knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It waits for those it follows.
    Blocked,
    /// It may start; it is about to be put into its queue.
    Ready,
    /// It is in its queue, or runs.
    Started,
    Completed,
    Dead,
    /// Or deleted before it had ended.
    Cancelled,
}

/// What keeps a member that has not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Somebody has cancelled the flow.
    Cancelled(Request),
    /// Nothing any more.
    Nothing,
    /// A job that will not complete by itself.
    Culprit { name: MemberName, stand: Stand, direct: bool },
    /// Jobs that have not ended.
    Others(Vec<MemberName>),
}

impl Stand {
    fn is_culprit(self) -> bool {
        matches!(self, Self::Dead | Self::Cancelled)
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Blocked => "is blocked itself",
            Self::Ready | Self::Started => "has not ended",
            Self::Completed => "is completed",
            Self::Dead => "is dead",
            Self::Cancelled => "was cancelled",
        }
    }
}

/// Where the whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlowState {
    /// Something of it has started and not ended.
    Running,
    /// Nothing of it runs, and something waits for a job that will not complete by itself.
    Blocked,
    Completed,
    /// Everything has ended, and not everything is completed.
    Dead,
    /// As a whole, by somebody.
    Cancelled,
}

impl FlowState {
    pub(crate) const ALL: [Self; 5] = [Self::Running, Self::Blocked, Self::Completed, Self::Dead, Self::Cancelled];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many jobs stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub total: usize,
    pub completed: usize,
    /// Ready, waiting in a queue, or running.
    pub started: usize,
    pub dead: usize,
    pub cancelled: usize,
    /// They wait for others.
    pub blocked: usize,
}

impl Counts {
    pub(crate) fn of(stands: &[Stand]) -> Self {
        let mut counts = Self { total: stands.len(), ..Self::default() };
        for stand in stands {
            *match stand {
                Stand::Blocked => &mut counts.blocked,
                Stand::Ready | Stand::Started => &mut counts.started,
                Stand::Completed => &mut counts.completed,
                Stand::Dead => &mut counts.dead,
                Stand::Cancelled => &mut counts.cancelled,
            } += 1;
        }
        counts
    }

    pub(crate) fn state(&self, is_cancelled: bool) -> FlowState {
        if self.total == self.completed {
            FlowState::Completed
        } else if is_cancelled {
            FlowState::Cancelled
        } else if self.started > 0 {
            FlowState::Running
        } else if self.blocked > 0 {
            FlowState::Blocked
        } else {
            FlowState::Dead
        }
    }
}

/// A flow at one moment.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    outline: &'a Outline,
    links: &'a Links,
    /// Of the members.
    stands: &'a [Stand],
    cancelled: Option<&'a Request>,
    pub counts: Counts,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(
        outline: &'a Outline,
        links: &'a Links,
        stands: &'a [Stand],
        cancelled: Option<&'a Request>,
    ) -> Self {
        Self { outline, links, stands, cancelled, counts: Counts::of(stands) }
    }

    pub(crate) fn state(&self) -> FlowState {
        self.counts.state(self.cancelled.is_some())
    }

    /// The members that ended otherwise than completed.
    pub(crate) fn culprits(&self) -> Vec<usize> {
        (0..self.stands.len()).filter(|&member| self.stands[member].is_culprit()).collect()
    }

    /// How many jobs wait for this one, directly or not, and cannot start without it.
    pub(crate) fn blocked_by(&self, culprit: usize) -> usize {
        let mut seen = vec![false; self.links.links.len()];
        let mut next = self.links.links[culprit].on_completed.clone();
        let mut count = 0;
        while let Some(one) = next.pop() {
            let waits = self.links.is_join(one) || self.stands[one] == Stand::Blocked;
            if !waits || std::mem::replace(&mut seen[one], true) {
                continue;
            }
            count += usize::from(!self.links.is_join(one));
            // What has not started neither completes nor ends.
            let link = &self.links.links[one];
            next.extend(link.on_completed.iter().chain(&link.on_ended));
        }
        count
    }

    /// One sentence for the whole. `why` adds what is known of a culprit.
    pub(crate) fn sentence(&self, why: &impl Fn(usize) -> Option<String>) -> String {
        let Counts { total, completed, started, .. } = self.counts;
        if let (Some(request), false) = (self.cancelled, total == completed) {
            let rest = match started {
                0 => String::new(),
                _ => format!("; {} not ended yet", have(started)),
            };
            return format!("cancelled {}: {completed} of {} had completed{rest}", request.words(), jobs(total));
        }
        let culprits = self.culprits();
        let worst = culprits
            .iter()
            .take(WEIGHED)
            .map(|&one| (self.blocked_by(one), one))
            .max_by_key(|&(blocked, one)| (blocked, std::cmp::Reverse(one)));
        match (self.state(), worst) {
            (FlowState::Completed, _) => {
                format!("completed: {}", if total == 1 { "its job".to_owned() } else { format!("all {total} jobs") })
            }
            (FlowState::Running, None) => format!(
                "running: {completed} of {} completed, {started} started, {} to come",
                jobs(total),
                self.counts.blocked
            ),
            (FlowState::Running, Some(worst)) => {
                format!(
                    "running: {completed} of {} completed, {started} started; {}",
                    jobs(total),
                    self.blamed(worst, culprits.len(), why)
                )
            }
            (FlowState::Blocked, Some(worst)) => format!("blocked: {}", self.blamed(worst, culprits.len(), why)),
            (_, Some(worst)) => {
                format!("ended, {completed} of {} completed: {}", jobs(total), self.blamed(worst, culprits.len(), why))
            }
            // Nothing runs, nothing has failed, and something waits: only its creation can have been cut off.
            (_, None) => format!("nothing of it has started: {completed} of {} completed", jobs(total)),
        }
    }

    /// Who is to blame: the job that the most others wait for, and how many culprits there are besides.
    fn blamed(
        &self,
        (blocked, culprit): (usize, usize),
        culprits: usize,
        why: &impl Fn(usize) -> Option<String>,
    ) -> String {
        let name = self.outline.members[culprit].name.as_str();
        let why = why(culprit).map_or(String::new(), |why| format!(" ({why})"));
        let others = match culprits {
            1 => String::new(),
            2 => "; another job has not completed either".to_owned(),
            more => format!("; {} other jobs have not completed either", more - 1),
        };
        let waiting = match blocked {
            0 => String::new(),
            1 => "one job waits for ".to_owned(),
            more => format!("{more} jobs wait for "),
        };
        let comma = if blocked == 0 { "" } else { ", which" };
        format!("{waiting}{name:?}{comma} {}{why}{others}", self.stands[culprit].words())
    }

    /// What keeps a blocked job from starting.
    pub(crate) fn hold(&self, member: usize) -> Hold {
        if let Some(request) = self.cancelled {
            return Hold::Cancelled(request.clone());
        }
        let before = self.links.members_before(member);
        let any = self.outline.members[member].allow_failure;
        let missing: Vec<usize> = before.into_iter().filter(|&one| !self.has_passed(one, any)).collect();
        let name = |one: usize| self.outline.members[one].name.clone();
        match missing.iter().copied().find_map(|one| self.culprit_behind(one)) {
            Some(culprit) => {
                let (stand, direct) = (self.stands[culprit], missing.contains(&culprit));
                Hold::Culprit { name: name(culprit), stand, direct }
            }
            None if missing.is_empty() => Hold::Nothing,
            None => Hold::Others(missing.into_iter().map(name).collect()),
        }
    }

    fn has_passed(&self, member: usize, any: bool) -> bool {
        let stand = self.stands[member];
        stand == Stand::Completed || any && stand.is_culprit()
    }

    /// The job for whose sake this one is not completed: itself, or one it waits for.
    fn culprit_behind(&self, member: usize) -> Option<usize> {
        let mut seen = vec![false; self.stands.len()];
        let mut next = vec![member];
        while let Some(one) = next.pop() {
            if std::mem::replace(&mut seen[one], true) {
                continue;
            }
            if self.stands[one].is_culprit() {
                return Some(one);
            }
            if self.stands[one] == Stand::Blocked {
                let any = self.outline.members[one].allow_failure;
                next.extend(self.links.members_before(one).into_iter().filter(|&one| !self.has_passed(one, any)));
            }
        }
        None
    }
}

impl Hold {
    /// Why the job has not started.
    pub(crate) fn words(&self) -> String {
        let quoted = |name: &MemberName| format!("{:?}", name.as_str());
        match self {
            Self::Cancelled(request) => {
                format!("the flow was cancelled {}; this job never starts", request.words())
            }
            Self::Nothing => "it is about to start".to_owned(),
            Self::Culprit { name, stand, direct } => {
                let link = if *direct { "it follows" } else { "it comes after" };
                format!("{link} {}, which {}; retry that, and the flow goes on", quoted(name), stand.words())
            }
            Self::Others(names) => match names.as_slice() {
                [] => "it waits for nobody".to_owned(),
                [only] => format!("it waits for {}", quoted(only)),
                [first, second] => format!("it waits for {} and {}", quoted(first), quoted(second)),
                [first, rest @ ..] => format!("it waits for {} and {} other jobs", quoted(first), rest.len()),
            },
        }
    }
}

fn jobs(count: usize) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

fn have(count: usize) -> String {
    if count == 1 { "1 job has".to_owned() } else { format!("{count} jobs have") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::flow::{Heading, Listed, Shape};
    use crate::job::{FlowId, MemberName, QueueName, TaskName, Timestamp};

    fn outline(names: &[&str], shape: Shape) -> Outline {
        let listed = |name: &&str| Listed {
            name: MemberName::parse(name).expect("a name"),
            task: TaskName::parse("t").expect("a name"),
            queue: QueueName::parse("q").expect("a name"),
            allow_failure: false,
        };
        Outline {
            heading: Heading {
                id: FlowId::parse("f").expect("an id"),
                name: None,
                request: Request { at: Timestamp::from_millis(0), by: "ann".into(), reason: None },
            },
            members: names.iter().map(listed).collect(),
            callbacks: Vec::new(),
            shape,
        }
    }

    #[test]
    fn the_sentence_names_the_culprit() {
        use Stand::{Blocked, Cancelled, Completed, Dead, Started};
        let shape = Shape::Chain(vec![
            Shape::Job(0),
            Shape::Group(vec![Shape::Job(1), Shape::Job(2)]),
            Shape::Chain(vec![Shape::Job(3), Shape::Job(4)]),
        ]);
        let outline = outline(&["a", "b", "c", "d", "e"], shape);
        let links = outline.links();
        let why = |_| Some("SmtpRejected".to_owned());
        let told = |stands: &[Stand], cancelled| Progress::new(&outline, &links, stands, cancelled).sentence(&why);
        let cases: [(&[Stand], &str); 6] = [
            (&[Completed; 5], "completed: all 5 jobs"),
            (
                &[Completed, Started, Completed, Blocked, Blocked],
                "running: 2 of 5 jobs completed, 1 started, 2 to come",
            ),
            (
                &[Completed, Started, Dead, Blocked, Blocked],
                "running: 1 of 5 jobs completed, 1 started; 2 jobs wait for \"c\", which is dead (SmtpRejected)",
            ),
            (
                &[Completed, Completed, Dead, Blocked, Blocked],
                "blocked: 2 jobs wait for \"c\", which is dead (SmtpRejected)",
            ),
            (
                &[Completed, Cancelled, Dead, Blocked, Blocked],
                "blocked: 2 jobs wait for \"b\", which was cancelled (SmtpRejected); another job has not completed either",
            ),
            (
                &[Completed, Completed, Completed, Completed, Dead],
                "ended, 4 of 5 jobs completed: \"e\" is dead (SmtpRejected)",
            ),
        ];
        for (stands, words) in cases {
            assert_eq!(told(stands, None), words);
        }
        let request = Request { at: Timestamp::from_millis(0), by: "ann".into(), reason: Some("wrong file".into()) };
        assert_eq!(
            told(&[Completed, Started, Cancelled, Blocked, Blocked], Some(&request)),
            "cancelled by ann: wrong file: 1 of 5 jobs had completed; 1 job has not ended yet"
        );
        let stands = [Completed, Started, Dead, Blocked, Blocked];
        let progress = Progress::new(&outline, &links, &stands, None);
        assert_eq!(progress.hold(3).words(), "it follows \"c\", which is dead; retry that, and the flow goes on");
        assert_eq!(progress.hold(4).words(), "it comes after \"c\", which is dead; retry that, and the flow goes on");
        let stands = [Completed, Started, Started, Blocked, Blocked];
        assert_eq!(Progress::new(&outline, &links, &stands, None).hold(3).words(), "it waits for \"b\" and \"c\"");
    }
}
