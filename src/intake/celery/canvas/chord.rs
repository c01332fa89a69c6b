//! Chords as the Redis backend counts them: each part of the header leaves an entry in a sorted set, and whoever brings the
//! last one publishes the body, or fails it.
//!
//! Real workers count in the same keys. All of it is one transition with the answer to the part; since the body's message
//! can only be made here, a tally that becomes full is read, the body made from it, and the transition tried again.

use redis::{FromRedisValue, Pipeline};
use serde_json::{Map, Value, json};

use super::signature::Signature;
use crate::broker::{Broker, BrokerError, Entry, Tally, TallyKeys};
use crate::intake::celery::result::Exception;
use crate::intake::limits::Limits;
use crate::intake::pyjson::{Dialect, dumps, loads};
use crate::intake::pyrepr;
use crate::store::accepted;

/// The state that no later one replaces.
const SUCCESS: &str = "SUCCESS";

/// What a chord is told of one of its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) group: String,
    pub(super) id: String,
    /// Its place among the results.
    pub(super) index: Option<i64>,
    /// `SUCCESS`, `FAILURE` or `REVOKED`.
    pub(super) state: &'static str,
    pub(super) result: Value,
    /// The signature that waits for all parts.
    pub(super) body: Value,
}

/// How a chord stands once its parts are added.
#[derive(Debug, PartialEq)]
pub(super) enum Standing {
    Waiting,
    /// All parts are there: so many, and their results.
    Complete(usize, Vec<Value>),
    /// All parts are there, and this is what became of it.
    Failed(usize, Exception),
}

pub(super) fn group_key(group: &str) -> String {
    format!("celery-taskset-meta-{group}")
}

pub(super) fn size_key(group: &str) -> String {
    group_key(group) + ".s"
}

pub(super) fn keys(group: &str, keep: Option<u64>) -> TallyKeys {
    TallyKeys { entries: group_key(group) + ".j", size: size_key(group), more: group_key(group) + ".t", keep }
}

/// The parts of one chord, as Redis adds them.
pub(super) fn tally(keys: TallyKeys, parts: &[Part], full: Option<usize>) -> Tally {
    Tally { keys, entries: parts.iter().map(Part::entry).collect(), full }
}

impl Part {
    fn entry(&self) -> Entry {
        let begins = |values: Value| {
            let text = dumps(&values, Dialect::Kombu);
            text.strip_suffix(']').map(|text| format!("{text}, ")).unwrap_or_default()
        };
        Entry {
            score: self.index.map_or_else(|| "+inf".to_owned(), |index| index.to_string()),
            begins: begins(json!([1, self.id])),
            stands: begins(json!([1, self.id, SUCCESS])),
            text: dumps(&json!([1, self.id, self.state, self.result]), Dialect::Kombu),
        }
    }

    fn score(&self) -> f64 {
        self.index.map_or(f64::INFINITY, |index| index as f64)
    }
}

/// Reads how the chord stands with these parts of its.
///
/// # Errors
/// [`BrokerError`] when Redis does not answer.
pub(super) async fn look(broker: &Broker, group: &str, parts: &[Part]) -> Result<Standing, BrokerError> {
    let keys = keys(group, None);
    let mut pipeline = Pipeline::new();
    pipeline.get(&keys.size).get(&keys.more).get(group_key(group)).zrange_withscores(&keys.entries, 0, -1);
    let mut replies = broker.store.link.send(&pipeline).await?.into_iter();
    // A key of another type is as none: the transition refuses it in its own words.
    let mut next = || replies.next().and_then(|reply| accepted(reply).ok()).unwrap_or(redis::Value::Nil);
    let mut bytes = || Option::<Vec<u8>>::from_redis_value(next()).ok().flatten();
    let (size, more, shape) = (bytes(), bytes(), bytes());
    let entries = Vec::<(Vec<u8>, f64)>::from_redis_value(next()).unwrap_or_default();
    let number = |text: Option<Vec<u8>>| String::from_utf8(text?).ok()?.trim().parse::<i64>().ok();
    let total = number(size).map(|size| size.saturating_add(number(more).unwrap_or(0)));
    Ok(stand(entries, parts, total, shape.as_deref()))
}

/// How it stands with these entries and those of the new parts.
fn stand(entries: Vec<(Vec<u8>, f64)>, parts: &[Part], total: Option<i64>, shape: Option<&[u8]>) -> Standing {
    let mut entries = entries;
    for part in parts {
        let own = part.entry();
        let same = |(text, score): &(Vec<u8>, f64)| {
            let begins = if part.index.is_some() { &own.begins } else { &own.text };
            *score == part.score() && text.starts_with(begins.as_bytes())
        };
        match entries.iter().position(same) {
            Some(at) if entries[at].0.starts_with(own.stands.as_bytes()) => {}
            Some(at) => entries[at].0 = own.text.into_bytes(),
            None => entries.push((own.text.into_bytes(), part.score())),
        }
    }
    let count = entries.len();
    if total.is_none_or(|total| usize::try_from(total) != Ok(count)) {
        return Standing::Waiting;
    }
    entries.sort_by(|(a, first), (b, second)| first.total_cmp(second).then_with(|| a.cmp(b)));
    match joined(&entries, shape) {
        Ok(results) => Standing::Complete(count, results),
        Err(message) => Standing::Failed(count, Exception::chord_error(&message)),
    }
}

/// The results in the order of the header, or what the chord fails with.
fn joined(entries: &[(Vec<u8>, f64)], shape: Option<&[u8]>) -> Result<Vec<Value>, String> {
    let limits = Limits::default();
    let read = |text: &[u8]| loads(text, Dialect::Kombu, &limits).map_err(|error| join_error(&error.to_string()));
    let ended = entries.iter().map(|(text, _)| Ended::read(read(text)?)).collect::<Result<Vec<_>, _>>()?;
    match shape {
        None => ended
            .into_iter()
            .map(|ended| ended.result(|id, raised| format!("Dependency {id} raised {raised}")))
            .collect(),
        Some(shape) => {
            let shape = read(shape)?;
            let by_id: Map<String, Value> = ended
                .into_iter()
                .map(|ended| Ok((ended.id.clone(), ended.result(|_, raised| format!("Join error: {raised}"))?)))
                .collect::<Result<_, String>>()?;
            let members = shape.get("result").and_then(|group| group.get(1)).and_then(Value::as_array);
            let members = members.ok_or_else(|| join_error("the group of the chord cannot be read"))?;
            members.iter().map(|member| arranged(member, &by_id)).collect()
        }
    }
}

/// The results of one member of a saved group: `[[id, parent], null]`, or a list for `[[id, parent], members]`.
fn arranged(member: &Value, by_id: &Map<String, Value>) -> Result<Value, String> {
    match member.get(1) {
        Some(Value::Array(members)) => members.iter().map(|member| arranged(member, by_id)).collect(),
        _ => {
            let id = member.get(0).and_then(|own| own.get(0)).and_then(Value::as_str).unwrap_or_default();
            by_id.get(id).cloned().ok_or_else(|| join_error(&format!("there is no result of {id}")))
        }
    }
}

fn join_error(reason: &str) -> String {
    format!("Join error: ValueError({})", pyrepr::repr(&reason.into()))
}

/// An entry, read.
struct Ended {
    id: String,
    state: String,
    result: Value,
}

impl Ended {
    fn read(entry: Value) -> Result<Self, String> {
        match entry {
            Value::Array(parts) => <[Value; 4]>::try_from(parts).ok(),
            _ => None,
        }
        .and_then(|[_, id, state, result]| {
            Some(Self { id: id.as_str()?.to_owned(), state: state.as_str()?.to_owned(), result })
        })
        .ok_or_else(|| join_error("a part of the chord cannot be read"))
    }

    fn result(self, failed: impl FnOnce(&str, &str) -> String) -> Result<Value, String> {
        if matches!(self.state.as_str(), "FAILURE" | "REVOKED") {
            return Err(failed(&self.id, &raised(&self.result)));
        }
        Ok(self.result)
    }
}

/// An exception as Python prints it.
fn raised(exception: &Value) -> String {
    let name = exception.get("exc_type").and_then(Value::as_str).unwrap_or("Exception");
    let args = match exception.get("exc_message") {
        Some(Value::Array(args)) => args.iter().map(pyrepr::repr).collect::<Vec<_>>().join(", "),
        Some(one) => pyrepr::repr(one),
        None => String::new(),
    };
    format!("{name}({args})")
}

/// The part that a task of a canvas is of a chord, if it is one and fails now.
pub(super) fn failed_part(task: &Signature, exception: &Exception) -> Option<Part> {
    Some(Part {
        group: task.text("group_id")?.to_owned(),
        id: task.text("task_id")?.to_owned(),
        index: task.option("group_index").and_then(Value::as_i64),
        state: "FAILURE",
        result: exception.to_value(),
        body: task.option("chord")?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, index: Option<i64>, result: Value) -> Part {
        Part { group: "g".into(), id: id.into(), index, state: SUCCESS, result, body: Value::Null }
    }

    fn entry(text: &str, score: f64) -> (Vec<u8>, f64) {
        (text.as_bytes().to_vec(), score)
    }

    /// As a real worker has written it: the captured chord of three.
    #[test]
    fn an_entry_is_celerys_byte_for_byte() {
        let own = part("e996f4e0-b790-4005-a778-0e828ac989f6", Some(0), json!(0)).entry();
        assert_eq!(own.text, r#"[1, "e996f4e0-b790-4005-a778-0e828ac989f6", "SUCCESS", 0]"#);
        assert!(own.text.starts_with(&own.begins) && own.text.starts_with(&own.stands), "{own:?}");
        assert_eq!((own.score.as_str(), part("a", None, Value::Null).entry().score.as_str()), ("0", "+inf"));
        assert_eq!(part("a", Some(1), json!("ü")).entry().text, r#"[1, "a", "SUCCESS", "\u00fc"]"#);
    }

    #[test]
    fn results_come_in_the_order_of_the_header() {
        let there = || vec![entry(r#"[1, "c", "SUCCESS", 3]"#, 2.0), entry(r#"[1, "a", "SUCCESS", [1]]"#, 0.0)];
        let last = [part("b", Some(1), json!({"two": 2}))];
        let standing = |total| stand(there(), &last, total, None);
        assert_eq!(standing(Some(3)), Standing::Complete(3, vec![json!([1]), json!({"two": 2}), json!(3)]));
        assert_eq!(standing(None), Standing::Waiting, "its size is not told yet");
        assert_eq!((standing(Some(4)), standing(Some(2))), (Standing::Waiting, Standing::Waiting));
    }

    #[test]
    fn a_part_that_comes_again_counts_once() {
        let there = || vec![entry(r#"[1, "a", "FAILURE", {}]"#, 0.0), entry(r#"[1, "b", "SUCCESS", 1]"#, 1.0)];
        let again = |id, index| stand(there(), &[part(id, Some(index), json!(7))], Some(2), None);
        assert_eq!(again("a", 0), Standing::Complete(2, vec![json!(7), json!(1)]), "a failure gives way");
        assert!(matches!(again("b", 1), Standing::Failed(2, _)), "a success stays, and the other one has failed");
    }

    #[test]
    fn the_first_part_that_failed_is_told() {
        let failure =
            r#"[1, "a", "FAILURE", {"exc_type": "ValueError", "exc_message": ["it's", 1], "exc_module": "builtins"}]"#;
        let revoked =
            r#"[1, "b", "REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "m"}]"#;
        let words =
            |first: &str, second: &str| match stand(vec![entry(second, 1.0), entry(first, 0.0)], &[], Some(2), None) {
                Standing::Failed(2, exception) => (exception.exc_type, exception.exc_message),
                other => panic!("{other:?}"),
            };
        let error = |text: &str| ("ChordError".to_owned(), vec![json!(text)]);
        assert_eq!(words(failure, revoked), error(r#"Dependency a raised ValueError("it's", 1)"#));
        assert_eq!(words(revoked, failure), error("Dependency b raised TaskRevokedError('expired')"));
        assert_eq!(words("rubbish", failure).0, "ChordError");
    }

    #[test]
    fn a_header_with_groups_keeps_its_shape() {
        let shape = br#"{"result": [["g", null], [[["g", null], [[["b", null], null], [["c", null], null]]], [["d", null], null]]]}"#;
        let there = vec![entry(r#"[1, "d", "SUCCESS", 4]"#, 1.0), entry(r#"[1, "c", "SUCCESS", 3]"#, 0.0)];
        let standing = stand(there, &[part("b", Some(0), json!(2))], Some(3), Some(shape));
        assert_eq!(standing, Standing::Complete(3, vec![json!([2, 3]), json!(4)]));
    }
}
