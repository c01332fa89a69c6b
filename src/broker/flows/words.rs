//! What a job tells its flow, as it is written beside the end of the job.

use crate::broker::BrokerError;
use crate::job::flow::{self, Told, Word};
use crate::job::{History, Job, JobId, Timestamp};

/// A result of more bytes is not kept for the jobs that refer to it: each of them would carry it.
pub(super) const LARGEST_RESULT: usize = 256 << 10;
/// Stands for a result that was too large to be kept, with its size in bytes.
pub(super) const TOO_LARGE: &str = "$too_large";

/// The word of a job whose attempt is settled; empty for one that goes on, or is in no flow.
pub(in crate::broker) fn of_end(job: &Job, history: &History) -> Result<String, BrokerError> {
    let Some((member, end)) = job.flow.as_ref().zip(history.end.as_ref()) else { return Ok(String::new()) };
    let Some(what) = Told::of(end.state) else { return Ok(String::new()) };
    let result = (member.keeps_result && what == Told::Completed).then(|| kept(&end.result));
    let error = history.mishaps.last().filter(|_| what == Told::Dead).map(|mishap| mishap.name.clone());
    let (flow, name) = (member.id.clone(), member.name.clone());
    encode(&Word { flow, name, what, at: end.at, result, error })
}

/// The word of a job that somebody changed; empty for one that is in no flow.
pub(in crate::broker) fn of(job: &Job, what: Told, at: Timestamp) -> Result<String, BrokerError> {
    let Some(member) = &job.flow else { return Ok(String::new()) };
    let (flow, name) = (member.id.clone(), member.name.clone());
    encode(&Word { flow, name, what, at, result: None, error: None })
}

/// The word of a job whose record nobody can read: its id says whether it is of a flow.
pub(in crate::broker) fn of_unreadable(id: &str, at: Timestamp) -> Result<String, BrokerError> {
    let Some((flow, name)) = JobId::parse(id).ok().as_ref().and_then(flow::place_of) else {
        return Ok(String::new());
    };
    encode(&Word { flow, name, what: Told::Dead, at, result: None, error: Some("UnreadableRecord".to_owned()) })
}

pub(super) fn encode(word: &Word) -> Result<String, BrokerError> {
    serde_json::to_string(word).map_err(|error| BrokerError::Encode(error.to_string()))
}

fn kept(result: &serde_json::Value) -> serde_json::Value {
    let bytes = serde_json::to_string(result).map_or(usize::MAX, |text| text.len());
    if bytes > LARGEST_RESULT { serde_json::json!({ TOO_LARGE: bytes }) } else { result.clone() }
}
