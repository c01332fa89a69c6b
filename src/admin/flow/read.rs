//! A flow as a client writes it: read, checked whole, and every mistake named with its place.
//!
//! Two forms: parts inside parts (`"flow": {"chain": [job, {"group": [job, …]}, job]}`), or jobs by name with those that
//! each follows (`"jobs": {"b": {…, "after": ["a"]}}`).

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::super::entry::{self, escaped, nearest, quoted};
use super::super::problem::{FieldError, Problem};
use crate::config::Config;
use crate::job::flow::reference::{self, Reference};
use crate::job::flow::{Callback, Draft, Flow, Heading, Links, Listed, Member, Outline, Shape, cycle, job_id};
use crate::job::{FlowId, MemberName, Request, Timestamp};

/// Jobs in one flow.
pub(super) const JOBS: usize = 10_000;
/// Parts inside parts.
const DEPTH: usize = 32;
/// Names in all the `after` of a flow.
const EDGES: usize = 100_000;
const LONGEST_NAME: usize = 200;
/// Mistakes reported of one request; the first ones say enough.
const ERRORS: usize = 50;
/// Names of a cycle that are told.
const TOLD: usize = 10;

const FIELDS: [&str; 7] = ["flow", "jobs", "name", "id", "on_success", "on_complete", "on_death"];
const A_FLOW: &str = r#"{"flow": {"chain": [JOB, {"group": [JOB, …]}, JOB]}} or {"jobs": {"NAME": JOB, …}}"#;

/// A job, as it was read, before everything of the flow is known.
struct Given {
    listed: Listed,
    draft: Draft,
    /// Pointer to it.
    at: String,
    references: Vec<(String, Reference)>,
    /// In the form by names: those it follows.
    after: Vec<String>,
}

struct Reader<'a> {
    config: &'a Config,
    now: Timestamp,
    errors: Vec<FieldError>,
    members: Vec<Given>,
    by_name: HashMap<String, usize>,
    /// There are more than may be, which is told once.
    is_full: bool,
}

/// The flow, or everything that is wrong with it. `bytes` are the body as it came.
pub(super) fn read(config: &Config, body: &Value, bytes: &[u8], request: Request) -> Result<Flow, Problem> {
    let Value::Object(body) = body else {
        let detail = format!("the body must be an object: {A_FLOW}");
        return Err(Problem::invalid(vec![FieldError { pointer: String::new(), detail }]));
    };
    let now = request.at;
    let (members, by_name) = (Vec::new(), HashMap::new());
    let mut reader = Reader { config, now, errors: Vec::new(), members, by_name, is_full: false };
    reader.refuse_unknown_fields(body);
    let name = reader.title(body);
    let id = reader.id(body);
    let shape = reader.form(body, bytes);
    let callbacks: Vec<(Callback, Given)> = Callback::ALL
        .into_iter()
        .filter_map(|callback| Some((callback, reader.callback(callback, body.get(callback.as_str())?)?)))
        .collect();
    let shape = shape.filter(|_| reader.errors.is_empty());
    let flow = shape.and_then(|shape| reader.whole(shape, callbacks, Heading { id, name, request }));
    flow.ok_or_else(|| Problem::invalid(std::mem::take(&mut reader.errors)))
}

impl Reader<'_> {
    fn wrong(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.errors.len() < ERRORS {
            self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        }
    }

    fn refuse_unknown_fields(&mut self, body: &Map<String, Value>) {
        for field in body.keys().filter(|field| !FIELDS.contains(&field.as_str())).take(ERRORS) {
            let detail = match nearest(field, FIELDS.into_iter()) {
                Some(near) => format!("a flow has no field {}; did you mean {near:?}?", quoted(field)),
                None => format!("a flow has no field {}; it has {}", quoted(field), FIELDS.join(", ")),
            };
            self.wrong(format!("/{}", escaped(field)), detail);
        }
    }

    /// What a person calls the flow.
    fn title(&mut self, body: &Map<String, Value>) -> Option<String> {
        match body.get("name")? {
            Value::Null => None,
            Value::String(name) if name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control) => {
                Some(name.clone())
            }
            _ => {
                let detail = format!("\"name\" must be a text of up to {LONGEST_NAME} characters, like \"video 31\"");
                self.wrong("/name", detail);
                None
            }
        }
    }

    fn id(&mut self, body: &Map<String, Value>) -> FlowId {
        let fresh = || FlowId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is an id");
        let given = match body.get("id") {
            None | Some(Value::Null) => return fresh(),
            Some(given) => given.as_str(),
        };
        match given.map(FlowId::parse) {
            Some(Ok(id)) => return id,
            Some(Err(error)) => self.wrong("/id", error.to_string()),
            None => self.wrong("/id", "\"id\" must be a text, like \"order-4711\""),
        }
        fresh()
    }

    fn form(&mut self, body: &Map<String, Value>, bytes: &[u8]) -> Option<Shape> {
        match (body.get("flow"), body.get("jobs")) {
            (Some(part), None) => self.part(part, "/flow".to_owned(), 0),
            (None, Some(Value::Object(jobs))) => {
                for name in repeated(bytes) {
                    self.wrong(format!("/jobs/{}", escaped(&name)), format!("two jobs are called {}", quoted(&name)));
                }
                self.graph(jobs)
            }
            (None, Some(_)) => {
                self.wrong("/jobs", "\"jobs\" must be an object: the jobs of the flow by name");
                None
            }
            (Some(_), Some(_)) => {
                self.wrong("/jobs", "give \"flow\" or \"jobs\", not both");
                None
            }
            (None, None) => {
                self.wrong("", format!("a flow needs jobs: {A_FLOW}"));
                None
            }
        }
    }

    /// A job, a chain or a group.
    fn part(&mut self, part: &Value, at: String, depth: usize) -> Option<Shape> {
        let Value::Object(object) = part else {
            let forms = r#"a job ({"task": …}), a chain ({"chain": [ … ]}) or a group ({"group": [ … ]})"#;
            self.wrong(at, format!("a part of a flow is {forms}"));
            return None;
        };
        let kind = ["chain", "group"].into_iter().find(|kind| object.contains_key(*kind));
        let Some(kind) = kind else { return self.member(object, at, None).map(Shape::Job) };
        if depth >= DEPTH {
            self.wrong(at, format!("parts may stand inside each other {DEPTH} deep"));
            return None;
        }
        if let Some(stray) = object.keys().find(|key| *key != kind) {
            let detail = format!("a {kind} has no field {}; options belong to its jobs", quoted(stray));
            self.wrong(format!("{at}/{}", escaped(stray)), detail);
        }
        let parts = object.get(kind).and_then(Value::as_array).filter(|parts| !parts.is_empty());
        let Some(parts) = parts else {
            self.wrong(format!("{at}/{kind}"), format!("{kind:?} must be an array of at least one part"));
            return None;
        };
        let mut shapes = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            if self.is_full || self.errors.len() >= ERRORS {
                break;
            }
            shapes.extend(self.part(part, format!("{at}/{kind}/{number}"), depth + 1));
        }
        Some(if kind == "chain" { Shape::Chain(shapes) } else { Shape::Group(shapes) })
    }

    /// Jobs by name, each with those it follows.
    fn graph(&mut self, jobs: &Map<String, Value>) -> Option<Shape> {
        if jobs.is_empty() {
            self.wrong("/jobs", "the flow has no jobs");
        }
        for (name, job) in jobs {
            if self.is_full || self.errors.len() >= ERRORS {
                return None;
            }
            let at = format!("/jobs/{}", escaped(name));
            match job {
                Value::Object(job) => drop(self.member(job, at, Some(name))),
                _ => self.wrong(at, format!("the job {} is not an object", quoted(name))),
            }
        }
        // What is wrong with a job would be told once more for each that follows it.
        if !self.errors.is_empty() {
            return None;
        }
        let follows = self.follows();
        if !self.errors.is_empty() {
            return None;
        }
        if let Some(path) = cycle(&follows) {
            self.tell_cycle(&path);
            return None;
        }
        Some(Shape::Graph(follows))
    }

    fn follows(&mut self) -> Vec<Vec<usize>> {
        let mut follows = Vec::new();
        let mut edges = 0;
        for member in 0..self.members.len() {
            let (after, at) = (self.members[member].after.clone(), format!("{}/after", self.members[member].at));
            edges += after.len();
            if edges > EDGES {
                self.wrong(at, format!("the flow has too many \"after\"; all together may be {EDGES} names"));
                return follows;
            }
            let mut before = Vec::new();
            for (number, name) in after.iter().enumerate() {
                let place = format!("{at}/{number}");
                match self.by_name.get(name).copied() {
                    None => {
                        let near = nearest(name, self.by_name.keys().map(String::as_str));
                        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                        self.wrong(place, format!("no job of this flow is called {}{hint}", quoted(name)));
                    }
                    Some(one) if one == member => self.wrong(place, format!("{} cannot follow itself", quoted(name))),
                    Some(one) if before.contains(&one) => {
                        self.wrong(place, format!("{} stands twice in this \"after\"", quoted(name)));
                    }
                    Some(one) => before.push(one),
                }
            }
            follows.push(before);
        }
        follows
    }

    fn tell_cycle(&mut self, path: &[usize]) {
        let name = |at: usize| format!("{:?}", self.members[path[at % path.len()]].listed.name.as_str());
        let steps: Vec<String> =
            (0..path.len()).take(TOLD).map(|at| format!("{} follows {}", name(at), name(at + 1))).collect();
        let more = if path.len() > TOLD { format!(", and so on, {} jobs in all", path.len()) } else { String::new() };
        let detail = format!("the jobs wait for each other in a circle: {}{more}", steps.join(", "));
        let at = format!("{}/after", self.members[path[0]].at);
        self.wrong(at, detail);
    }

    /// A job of the flow; its number. `name` is given in the form by names.
    fn member(&mut self, job: &Map<String, Value>, at: String, name: Option<&str>) -> Option<usize> {
        if self.members.len() >= JOBS {
            self.is_full = true;
            self.wrong(at, format!("a flow may have {JOBS} jobs"));
            return None;
        }
        let number = self.members.len();
        let mut own = job.clone();
        let allow_failure = self.flag(own.shift_remove("allow_failure"), &at);
        let (name, after) = match name {
            Some(name) => (self.name(name, at.clone()), self.after(own.shift_remove("after"), &at)),
            None => match own.shift_remove("name") {
                None | Some(Value::Null) => (MemberName::parse(&(number + 1).to_string()).ok(), Vec::new()),
                Some(Value::String(name)) => (self.name(&name, format!("{at}/name")), Vec::new()),
                Some(_) => {
                    self.wrong(format!("{at}/name"), "\"name\" must be a text, like \"resize\"");
                    (None, Vec::new())
                }
            },
        };
        let given = self.job(&own, at.clone(), name.clone());
        let name = name?;
        if self.by_name.insert(name.to_string(), number).is_some() {
            self.wrong(format!("{at}/name"), format!("two jobs are called {}", quoted(name.as_str())));
        }
        let mut given = given?;
        given.listed.allow_failure = allow_failure;
        given.after = after;
        self.members.push(given);
        Some(number)
    }

    fn callback(&mut self, callback: Callback, job: &Value) -> Option<Given> {
        let at = format!("/{}", callback.as_str());
        match job {
            Value::Null => None,
            Value::Object(job) => self.job(job, at, Some(callback.name())),
            _ => {
                self.wrong(at, format!("{:?} must be a job: {{\"task\": …}}", callback.as_str()));
                None
            }
        }
    }

    /// What is a job's own. `None` when it is wrong, or has no name to be listed by.
    fn job(&mut self, job: &Map<String, Value>, at: String, name: Option<MemberName>) -> Option<Given> {
        if job.contains_key("id") {
            self.wrong(format!("{at}/id"), "a job of a flow has no id of its own: it is called by flow and name");
            return None;
        }
        let mut references = Vec::new();
        let mut found = Vec::new();
        reference::find_in(job.get("args").unwrap_or(&Value::Null), format!("{at}/args"), &mut found);
        for (place, read) in found {
            match read {
                Ok(reference) => references.push((place, reference)),
                Err(detail) => self.wrong(place, detail),
            }
        }
        let draft = entry::draft(self.config, job, &at, &mut self.errors, self.now)?;
        let (task, queue) = (draft.job.task.clone(), draft.job.queue.clone());
        let listed = Listed { name: name?, task, queue, allow_failure: false };
        Some(Given { listed, draft, at, references, after: Vec::new() })
    }

    fn name(&mut self, name: &str, at: String) -> Option<MemberName> {
        if Callback::ALL.iter().any(|callback| callback.as_str() == name) {
            self.wrong(at, format!("{name:?} is the name of a callback"));
            return None;
        }
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            self.wrong(at, "a name needs a letter: jobs without a name are called by their number");
            return None;
        }
        MemberName::parse(name).map_err(|error| self.wrong(at, error.to_string())).ok()
    }

    fn flag(&mut self, value: Option<Value>, at: &str) -> bool {
        match value {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.wrong(format!("{at}/allow_failure"), "\"allow_failure\" must be true or false");
                false
            }
        }
    }

    /// The names of those that a job follows: a list, or one.
    fn after(&mut self, value: Option<Value>, at: &str) -> Vec<String> {
        let names = match value {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::String(name)) => return vec![name],
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            Some(_) => None,
        };
        if names.is_none() {
            self.wrong(format!("{at}/after"), "\"after\" must be a list of names, like [\"resize\"]");
        }
        names.unwrap_or_default()
    }

    /// Everything together. `None` when the references do not fit.
    fn whole(&mut self, shape: Shape, callbacks: Vec<(Callback, Given)>, heading: Heading) -> Option<Flow> {
        let any: Vec<bool> = self.members.iter().map(|given| given.listed.allow_failure).collect();
        let links = Links::of(&shape, &any);
        let mut kept = vec![false; self.members.len()];
        for member in 0..self.members.len() {
            let references = std::mem::take(&mut self.members[member].references);
            self.check(&references, Some((member, &links)), &mut kept);
        }
        for (_, given) in &callbacks {
            self.check(&given.references, None, &mut kept);
        }
        if !self.errors.is_empty() {
            return None;
        }
        let id = heading.id.clone();
        let placed = |Given { listed, mut draft, .. }: Given, keeps_result: bool| {
            draft.job.id = job_id(&id, &listed.name);
            draft.job.flow = Some(Member { id: id.clone(), name: listed.name.clone(), keeps_result });
            (listed, draft)
        };
        let members = std::mem::take(&mut self.members).into_iter().zip(kept);
        let (members, mut drafts): (Vec<_>, Vec<_>) = members.map(|(given, keeps)| placed(given, keeps)).unzip();
        let mut called = Vec::new();
        for (callback, given) in callbacks {
            let (listed, draft) = placed(given, false);
            called.push((callback, listed));
            drafts.push(draft);
        }
        Some(Flow { outline: Outline { heading, members, callbacks: called, shape }, drafts })
    }

    /// Each reference must be to a job that comes before. A callback, which follows the whole, may refer to any.
    fn check(&mut self, references: &[(String, Reference)], place: Option<(usize, &Links)>, kept: &mut [bool]) {
        for (at, reference) in references {
            for name in reference.names() {
                let Some(&meant) = self.by_name.get(name) else {
                    let near = nearest(name, self.by_name.keys().map(String::as_str));
                    let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                    self.wrong(at, format!("no job of this flow is called {}{hint}", quoted(name)));
                    continue;
                };
                kept[meant] = true;
                let own = place.map(|(member, _)| member);
                if own == Some(meant) {
                    self.wrong(at, format!("{} cannot refer to its own result", quoted(name)));
                } else if place.is_some_and(|(member, links)| !links.follows(member, meant)) {
                    let detail = format!("this job does not follow {}, so it cannot refer to its result", quoted(name));
                    self.wrong(at, detail);
                }
            }
        }
    }
}

/// Names that stand twice in the object `jobs` of the body: of two, reading JSON keeps only the last one.
fn repeated(bytes: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        jobs: Names,
    }
    struct Names(Vec<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: de::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
            input.deserialize_map(Keys)
        }
    }
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Names;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
            let mut names = Vec::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                names.push(name);
            }
            Ok(Names(names))
        }
    }
    let mut names = serde_json::from_slice::<Body>(bytes).map(|body| body.jobs.0).unwrap_or_default();
    names.sort_unstable();
    let mut repeated: Vec<String> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    repeated.dedup();
    repeated
}
