//! `jobsd enqueue`: a task and its arguments, by name as text, or as JSON.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::client::{At, Client, escaped};
use super::{CliError, jobs, output};
use crate::config::ParamType;

/// Pauses between two looks at a job that is waited for.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

#[derive(Debug, clap::Args)]
pub(crate) struct Enqueue {
    /// The task, by its own name or a producer's.
    task: String,
    /// Arguments. Their types are the task's: n=5 is a number for an integer, and a text for a string.
    #[arg(value_name = "KEY=VALUE")]
    args: Vec<String>,
    /// The answer as JSON; and, with a value, the arguments: '{…}', '[…]', @FILE, or - for standard input.
    #[arg(long, value_name = "ARGS", num_args = 0..=1)]
    json: Option<Option<String>>,
    /// The queue, instead of the task's own.
    #[arg(long)]
    queue: Option<String>,
    /// An id of your own: a second job of it is refused.
    #[arg(long)]
    id: Option<String>,
    /// Not before this span has passed: 90s, 5m, 1h 30m.
    #[arg(long = "in", value_name = "SPAN", conflicts_with = "at_time")]
    after: Option<String>,
    /// Not before this time: 2026-12-24T18:00:00Z.
    #[arg(id = "at_time", long = "at", value_name = "TIME")]
    due: Option<String>,
    /// -9 (first) to 9 (last).
    #[arg(long, allow_negative_numbers = true, value_name = "STEPS")]
    priority: Option<i64>,
    /// Not after this span or time.
    #[arg(long, value_name = "SPAN|TIME")]
    expires: Option<String>,
    /// Longest run of one attempt.
    #[arg(long, value_name = "SPAN")]
    timeout: Option<String>,
    /// A unique key: a second job of the task is refused while the first has not ended, or as '{"key": …}' says.
    #[arg(long, value_name = "KEY|JSON")]
    unique: Option<String>,
    /// Wait until the job has ended; exit code 1 unless it is completed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    at: At,
}

impl Enqueue {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.at.connect()?;
        let as_json = self.json.is_some();
        let body = self.body(&client).await?;
        let accepted = client.post("/api/v1/jobs", &body).await?;
        let id = accepted["id"].as_str().unwrap_or_default().to_owned();
        if !self.wait {
            if as_json {
                output::json(&accepted)
            } else {
                output::line(&id)
            }
            return Ok(());
        }
        if !as_json {
            output::line(&id);
        }
        let ended = ended(&client, &id).await?;
        if as_json {
            output::json(&ended);
        } else {
            output::print(&jobs::described(&ended));
        }
        if ended["state"] == "completed" { Ok(()) } else { Err(CliError::Told) }
    }

    async fn body(&self, client: &Client) -> Result<Value, CliError> {
        let Typed { task, pairs, json: given } = self.typed();
        let args = match given {
            Some(_) if !pairs.is_empty() => {
                return Err(CliError::Usage("give the arguments as KEY=VALUE or as JSON, not both".to_owned()));
            }
            Some(text) => read_json(text)?,
            None => by_name(&pairs, &params(client, task, pairs.is_empty()).await?)?,
        };
        let mut body = json!({"task": task, "args": args});
        let fields = [
            ("queue", &self.queue),
            ("id", &self.id),
            ("in", &self.after),
            ("at", &self.due),
            ("expires", &self.expires),
            ("timeout", &self.timeout),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                body[field] = value.as_str().into();
            }
        }
        if let Some(priority) = self.priority {
            body["priority"] = priority.into();
        }
        if let Some(unique) = &self.unique {
            body["unique"] = if unique.starts_with('{') { read_json(unique)? } else { unique.as_str().into() };
        }
        Ok(body)
    }

    /// What was typed, when `--json` stood right before something that is not its value.
    fn typed(&self) -> Typed<'_> {
        let stray = self.json.as_ref().and_then(Option::as_deref);
        let args = self.args.iter().map(String::as_str);
        match stray {
            None => Typed { task: &self.task, pairs: args.collect(), json: None },
            Some(json) if looks_like_json(json) => Typed { task: &self.task, pairs: args.collect(), json: Some(json) },
            Some(pair) if pair.contains('=') => {
                Typed { task: &self.task, pairs: std::iter::once(pair).chain(args).collect(), json: None }
            }
            Some(task) => Typed { task, pairs: std::iter::once(&*self.task).chain(args).collect(), json: None },
        }
    }
}

/// A task and its arguments, in one of their forms.
struct Typed<'a> {
    task: &'a str,
    pairs: Vec<&'a str>,
    json: Option<&'a str>,
}

fn looks_like_json(text: &str) -> bool {
    text == "-" || text.starts_with(['{', '[', '@'])
}

/// Arguments as JSON: themselves, in a file, or on standard input.
pub(super) fn read_json(text: &str) -> Result<Value, CliError> {
    let (source, text) = match (text, text.strip_prefix('@')) {
        ("-", _) => read_file("-")?,
        (_, Some(file)) => read_file(file)?,
        (text, None) => ("the arguments".to_owned(), text.to_owned()),
    };
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| CliError::Usage(format!("{source} cannot be read as JSON: {error}")))?;
    if value.is_object() || value.is_array() {
        return Ok(value);
    }
    Err(CliError::Usage(format!("{source} must be an object (arguments by name) or an array (by position)")))
}

/// What a file holds, `-` for standard input; and what that is called.
pub(super) fn read_file(file: &str) -> Result<(String, String), CliError> {
    if file != "-" {
        let all = std::fs::read_to_string(file);
        return Ok((file.to_owned(), all.map_err(|error| CliError::Usage(format!("cannot read {file}: {error}")))?));
    }
    let mut all = String::new();
    let read = std::io::stdin().read_to_string(&mut all);
    read.map_err(|error| CliError::Failed(format!("failed to read standard input: {error}")))?;
    Ok(("standard input".to_owned(), all))
}

/// The names and types of a task's parameters; none for a task that the daemon does not know by this name.
async fn params(client: &Client, task: &str, unused: bool) -> Result<Vec<(String, ParamType)>, CliError> {
    if unused {
        return Ok(Vec::new());
    }
    let tasks = client.get("/api/v1/tasks").await?;
    let of = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let is_called = |known: &&Value| known["task"] == task || of(&known["names"]).iter().any(|name| name == task);
    let params = of(&tasks["tasks"]).iter().find(is_called).map(|task| of(&task["params"])).unwrap_or_default();
    let kind = |param: &Value| {
        let word = param["type"].as_str().unwrap_or_default();
        ParamType::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(ParamType::Any)
    };
    Ok(params.iter().map(|param| (output::cell(&param["name"]), kind(param))).collect())
}

pub(super) fn by_name(pairs: &[&str], params: &[(String, ParamType)]) -> Result<Value, CliError> {
    let mut args = Map::new();
    for pair in pairs {
        let Some((name, text)) = pair.split_once('=') else {
            return Err(CliError::Usage(format!("{pair:?} is no argument; write it as KEY=VALUE")));
        };
        // The daemon has better words for a name that the task does not know.
        let kind = params.iter().find(|(known, _)| known == name).map_or(ParamType::String, |(_, kind)| *kind);
        let value = value_of(kind, text).ok_or_else(|| {
            CliError::Usage(format!("{name} is of the type {}, which {text:?} does not fit", kind.as_str()))
        })?;
        if args.insert(name.to_owned(), value).is_some() {
            return Err(CliError::Usage(format!("{name} is given twice")));
        }
    }
    Ok(Value::Object(args))
}

/// What a text stands for where a value of this type is expected.
fn value_of(kind: ParamType, text: &str) -> Option<Value> {
    let json = || serde_json::from_str::<Value>(text).ok();
    let whole = || json().filter(|value| value.is_i64() || value.is_u64());
    match kind {
        ParamType::String | ParamType::Email => Some(text.into()),
        ParamType::Int => whole(),
        ParamType::Number => json().filter(Value::is_number),
        ParamType::Bool => json().filter(Value::is_boolean),
        ParamType::Object | ParamType::Keywords => json().filter(Value::is_object),
        ParamType::Array | ParamType::Rest => json().filter(Value::is_array),
        ParamType::Id => Some(whole().unwrap_or_else(|| text.into())),
        ParamType::Any => Some(json().unwrap_or_else(|| text.into())),
    }
}

/// The job, once it has ended.
async fn ended(client: &Client, id: &str) -> Result<Value, CliError> {
    let path = format!("/api/v1/jobs/{}", escaped(id));
    let mut pause = LOOKS.0;
    loop {
        let Some(job) = client.find(&path).await? else {
            return Err(CliError::Failed(format!(
                "{id} is gone: it has ended and was deleted, by its retention or a person"
            )));
        };
        if matches!(job["state"].as_str(), Some("completed" | "dead" | "cancelled")) {
            return Ok(job);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_what_the_parameter_is() {
        let cases = [
            (ParamType::Int, "5", Some(json!(5))),
            (ParamType::Int, "5.5", None),
            (ParamType::Int, "five", None),
            (ParamType::String, "5", Some(json!("5"))),
            (ParamType::String, "", Some(json!(""))),
            (ParamType::Email, "a@b.c", Some(json!("a@b.c"))),
            (ParamType::Number, "2.5", Some(json!(2.5))),
            (ParamType::Bool, "true", Some(json!(true))),
            (ParamType::Bool, "yes", None),
            (ParamType::Object, r#"{"a": 1}"#, Some(json!({"a": 1}))),
            (ParamType::Array, "[1]", Some(json!([1]))),
            (ParamType::Array, "1", None),
            (ParamType::Id, "7", Some(json!(7))),
            (ParamType::Id, "u-7", Some(json!("u-7"))),
            (ParamType::Any, "null", Some(Value::Null)),
            (ParamType::Any, "plain words", Some(json!("plain words"))),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(value_of(kind, text), expected, "{kind:?} {text}");
        }
    }

    #[test]
    fn what_is_no_argument_is_told() {
        let params = [("n".to_owned(), ParamType::Int)];
        let told = |pairs: &[&str]| by_name(pairs, &params).map_err(|error| error.to_string());
        assert_eq!(told(&["n=5", "x=6"]), Ok(json!({"n": 5, "x": "6"})));
        assert_eq!(told(&["n"]), Err("\"n\" is no argument; write it as KEY=VALUE".to_owned()));
        assert_eq!(told(&["n=x"]), Err("n is of the type int, which \"x\" does not fit".to_owned()));
        assert_eq!(told(&["n=1", "n=2"]), Err("n is given twice".to_owned()));
    }
}
