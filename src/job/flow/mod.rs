//! A flow: jobs that follow each other, alone or in groups, and jobs that follow the whole.
//!
//! Pure values: what a flow is made of ([`Outline`]), how that becomes predecessors and successors ([`links`]), which
//! results its arguments refer to ([`mod@reference`]), and what its state means in words ([`progress`]). Where a flow stands
//! is kept in Redis, by the broker.

mod draft;
pub(crate) mod links;
pub(crate) mod progress;
pub(crate) mod reference;

use serde::{Deserialize, Serialize};

pub(crate) use draft::Draft;
pub(crate) use links::{Links, cycle};
pub(crate) use progress::{FlowState, Progress, Stand};

use super::{FlowId, JobId, MemberName, QueueName, Request, State, TaskName, Timestamp};

/// What the ids of the jobs of flows start with.
pub(crate) const IDS: &str = "flow:";
/// The name of the failure of a job whose arguments refer to something that is not there, or does not fit. Its record
/// still holds the references: it is started anew by its flow only.
pub(crate) const UNBOUND: &str = "UnboundResult";

/// A job's place in a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub id: FlowId,
    pub name: MemberName,
    /// Whether a later job refers to its result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_result: bool,
}

/// A job that is started when the flow has come to a certain point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Callback {
    /// Every job is completed.
    #[serde(rename = "on_success")]
    Success,
    /// Nothing of it runs or waits for its turn any more, however it ended.
    #[serde(rename = "on_complete")]
    Complete,
    /// A job died, for the first time.
    #[serde(rename = "on_death")]
    Death,
}

impl Callback {
    pub(crate) const ALL: [Self; 3] = [Self::Success, Self::Complete, Self::Death];

    /// As it stands in requests; and what the job is called in the flow.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "on_success",
            Self::Complete => "on_complete",
            Self::Death => "on_death",
        }
    }

    pub(crate) fn name(self) -> MemberName {
        MemberName::parse(self.as_str()).expect("letters and an underscore")
    }
}

/// The form in which a flow was given. Members are numbers, in reading order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    Job(usize),
    /// One after another.
    Chain(Vec<Shape>),
    /// Side by side.
    Group(Vec<Shape>),
    /// For each member, those that it follows.
    Graph(Vec<Vec<usize>>),
}

/// What a flow is called, and who submitted it: as much as a listing needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heading {
    pub id: FlowId,
    /// What a person calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who submitted it, and when.
    pub request: Request,
}

/// Everything of a flow that never changes and is no job's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outline {
    pub heading: Heading,
    pub members: Vec<Listed>,
    pub callbacks: Vec<(Callback, Listed)>,
    pub shape: Shape,
}

/// One job of a flow, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub name: MemberName,
    pub task: TaskName,
    pub queue: QueueName,
    /// It runs when those it follows have ended, in whatever way; others need them completed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
}

/// A flow as it is submitted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flow {
    pub outline: Outline,
    /// In the order of the members, then of the callbacks.
    pub drafts: Vec<Draft>,
}

impl Outline {
    /// Every job: the members, then the callbacks.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Listed> {
        self.members.iter().chain(self.callbacks.iter().map(|(_, listed)| listed))
    }

    pub(crate) fn links(&self) -> Links {
        let any: Vec<bool> = self.members.iter().map(|listed| listed.allow_failure).collect();
        Links::of(&self.shape, &any)
    }
}

/// What the ids of a flow's jobs start with; the name of the job follows.
pub(crate) fn ids_of(flow: &FlowId) -> String {
    format!("{IDS}{flow}:")
}

pub(crate) fn job_id(flow: &FlowId, name: &MemberName) -> JobId {
    JobId::parse(&format!("{}{name}", ids_of(flow))).expect("both are made of characters that ids may have")
}

/// The flow and the name in it, of a job whose id says so.
pub(crate) fn place_of(id: &JobId) -> Option<(FlowId, MemberName)> {
    let (flow, name) = id.as_str().strip_prefix(IDS)?.split_once(':')?;
    Some((FlowId::parse(flow).ok()?, MemberName::parse(name).ok()?))
}

/// What a job tells its flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Word {
    pub flow: FlowId,
    pub name: MemberName,
    pub what: Told,
    pub at: Timestamp,
    /// Of a completed job, if a later one refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// The name of what it failed with, of a dead one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What has become of a job, as far as its flow is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Completed,
    Dead,
    /// Or deleted before it had ended, which nobody can wait for either.
    Cancelled,
    /// It had ended and was sent off once more.
    Again,
}

impl Told {
    /// `None` for a job that has not ended.
    pub(crate) fn of(state: State) -> Option<Self> {
        match state {
            State::Completed => Some(Self::Completed),
            State::Dead => Some(Self::Dead),
            State::Cancelled => Some(Self::Cancelled),
            State::Scheduled | State::Pending | State::Active | State::Retry => None,
        }
    }

    /// As the scripts know it.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Completed => "c",
            Self::Dead => "d",
            Self::Cancelled => "x",
            Self::Again => "r",
        }
    }
}
