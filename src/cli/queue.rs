//! `jobsd queues`, `tasks`, `pause`, `resume`, `drain`, `purge` and `undo`.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::output::{cell, span, table};
use super::{CliError, Common, node, output};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct ListQueues {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListTasks {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The queue. With --task: the only queue in which the task is held back.
    #[arg(required_unless_present = "task")]
    queue: Option<String>,
    /// One task instead of a whole queue.
    #[arg(long)]
    task: Option<String>,
    /// Why: shown wherever the pause is.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The queue. With --task: the only queue in which the task runs again.
    #[arg(required_unless_present_any = ["task", "node"])]
    queue: Option<String>,
    /// One task instead of a whole queue.
    #[arg(long)]
    task: Option<String>,
    /// A node that was drained.
    #[arg(long, conflicts_with_all = ["task", "queue"])]
    node: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The queue: it is paused, on all nodes.
    #[arg(required_unless_present = "node")]
    queue: Option<String>,
    /// A node instead of a queue: it claims nothing more, and the others go on.
    #[arg(long, conflicts_with = "queue")]
    node: Option<String>,
    /// Wait until nothing of it runs.
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this: exit code 1 then.
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Why: shown wherever the pause of the queue is.
    #[arg(long, conflicts_with = "node")]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    /// The queue.
    queue: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Undo {
    /// The queue.
    queue: String,
    /// The purge. Default: the latest one of the queue.
    purge: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl ListQueues {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let queues = self.common.at.connect()?.get("/api/v1/queues").await?;
        if self.common.json {
            output::json(&queues);
            return Ok(());
        }
        let rows: Vec<Vec<String>> = list(&queues["queues"]).iter().map(queue_row).collect();
        let headings = [
            "QUEUE",
            "STATE",
            "SLOTS",
            "PENDING",
            "ACTIVE",
            "SCHEDULED",
            "RETRY",
            "DEAD",
            "FOREIGN",
            "OLDEST",
            "REASON",
        ];
        output::print(&table(&headings, &rows));
        let limits: Vec<Vec<String>> = list(&queues["queues"]).iter().flat_map(limit_rows).collect();
        if !limits.is_empty() {
            output::print("\n");
            output::print(&table(&["LIMIT", "OF", "BY", "RUNNING", "STARTED", "HELD", "MOST HELD"], &limits));
        }
        Ok(())
    }
}

fn queue_row(queue: &Value) -> Vec<String> {
    let tasks = list(&queue["paused_tasks"]).len();
    let state = match (queue["paused"].is_object(), tasks) {
        (true, _) => "paused".to_owned(),
        _ if queue["breaker"].is_object() => "service down".to_owned(),
        (false, 0) => "open".to_owned(),
        (false, tasks) => format!("{tasks} task{} paused", if tasks == 1 { "" } else { "s" }),
    };
    let jobs = |state: &str| cell(&queue["jobs"][state]);
    let foreign: u64 = list(&queue["lists"]).iter().filter_map(|list| list["backlog"].as_u64()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds are enough")]
    let oldest = queue["oldest_wait_seconds"].as_f64().map_or(String::new(), |seconds| span(seconds.max(0.0) as u64));
    vec![
        cell(&queue["queue"]),
        state,
        slots(queue),
        jobs("pending"),
        jobs("active"),
        jobs("scheduled"),
        jobs("retry"),
        jobs("dead"),
        foreign.to_string(),
        oldest,
        reason(queue),
    ]
}

/// How many there are, and between which bounds.
fn slots(queue: &Value) -> String {
    let (slots, scale) = (cell(&queue["concurrency"]), &queue["scale"]);
    let range = if scale.is_object() { format!(" ({}-{})", scale["min"], scale["max"]) } else { String::new() };
    let set = if queue["override"].is_object() { ", set" } else { "" };
    format!("{slots}{range}{set}")
}

/// Why a queue does not go on, or does not grow.
fn reason(queue: &Value) -> String {
    match (&queue["paused"], &queue["breaker"]["reason"], &queue["scale"]["held"], &queue["override"]["set"]) {
        (paused @ Value::Object(_), ..) => request(paused),
        (_, Value::Null, Value::Null, set @ Value::Object(_)) => format!("slots set {}", request(set)),
        (_, Value::Null, held, _) => cell(held),
        (_, breaker, ..) => cell(breaker),
    }
}

/// Each limit of a queue with its use: `3 of 20`, `12 of 20 in 1m`.
fn limit_rows(queue: &Value) -> Vec<Vec<String>> {
    let of = |used: &Value, most: &Value| match used.as_u64() {
        Some(used) => format!("{used} of {}", cell(most)),
        None => format!("{} each", cell(most)),
    };
    let row = |limit: &Value| {
        let rates = list(&limit["rates"]).iter();
        let rates: Vec<String> =
            rates.map(|rate| format!("{} in {}", of(&rate["started"], &rate["most"]), cell(&rate["window"]))).collect();
        let top = list(&limit["top"]).iter();
        let top: Vec<String> = top.map(|line| format!("{} ({})", cell(&line["value"]), cell(&line["held"]))).collect();
        let running =
            if limit["concurrency"].is_null() { String::new() } else { of(&limit["used"], &limit["concurrency"]) };
        let whose = limit["task"].as_str().unwrap_or("all").to_owned();
        let by = limit["key"].as_str().unwrap_or_default().to_owned();
        vec![cell(&queue["queue"]), whose, by, running, rates.join(", "), cell(&limit["held"]), top.join(", ")]
    };
    list(&queue["limits"]).iter().map(row).collect()
}

/// Who asked, and why.
fn request(request: &Value) -> String {
    match (&request["by"], request["reason"].as_str()) {
        (Value::Null, _) => String::new(),
        (by, None) => format!("by {}", cell(by)),
        (by, Some(reason)) => format!("by {}: {reason}", cell(by)),
    }
}

impl ListTasks {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let tasks = self.common.at.connect()?.get("/api/v1/tasks").await?;
        if self.common.json {
            output::json(&tasks);
            return Ok(());
        }
        let rows: Vec<Vec<String>> = list(&tasks["tasks"]).iter().map(task_row).collect();
        output::print(&table(&["TASK", "QUEUE", "STATE", "PARAMETERS"], &rows));
        Ok(())
    }
}

fn task_row(task: &Value) -> Vec<String> {
    let param = |param: &Value| {
        let optional = if param["required"] == true { "" } else { "?" };
        format!("{}={}{optional}", cell(&param["name"]), cell(&param["type"]))
    };
    let params: Vec<String> = list(&task["params"]).iter().map(param).collect();
    let state = if list(&task["paused"]).is_empty() { "open" } else { "paused" };
    vec![cell(&task["task"]), cell(&task["queue"]), state.to_owned(), params.join(" ")]
}

impl Pause {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let answer = set(&client, "pause", self.queue.as_deref(), self.task.as_deref(), self.reason.as_deref()).await?;
        let what = self.task.as_deref().or(self.queue.as_deref()).unwrap_or_default();
        tell(&self.common, &answer, &format!("{what} paused"));
        Ok(())
    }
}

impl Resume {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        if let Some(node) = &self.node {
            let answer = client.post(&format!("/api/v1/nodes/{}/resume", escaped(node)), &json!({})).await?;
            tell(&self.common, &answer, &format!("{node} claims again"));
            return Ok(());
        }
        let answer = set(&client, "resume", self.queue.as_deref(), self.task.as_deref(), None).await?;
        let what = self.task.as_deref().or(self.queue.as_deref()).unwrap_or_default();
        tell(&self.common, &answer, &format!("{what} resumed"));
        Ok(())
    }
}

/// Pauses or resumes a task, in one queue or in all, or a whole queue.
async fn set(
    client: &Client,
    verb: &str,
    queue: Option<&str>,
    task: Option<&str>,
    reason: Option<&str>,
) -> Result<Value, CliError> {
    let mut body = json!({});
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    match (task, queue) {
        (Some(task), queue) => {
            if let Some(queue) = queue {
                body["queue"] = queue.into();
            }
            client.post(&format!("/api/v1/tasks/{}/{verb}", escaped(task)), &body).await
        }
        (None, queue) => {
            client.post(&format!("/api/v1/queues/{}/{verb}", escaped(queue.unwrap_or_default())), &body).await
        }
    }
}

impl Drain {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let (answer, what) = match (&self.node, &self.queue) {
            (Some(node), _) => {
                let path = format!("/api/v1/nodes/{}/drain", escaped(node));
                (client.post(&path, &json!({})).await?, node)
            }
            (None, Some(queue)) => (set(&client, "pause", Some(queue), None, self.reason.as_deref()).await?, queue),
            (None, None) => return Err(CliError::Usage("name a queue or a --node".to_owned())),
        };
        if self.wait {
            self.until_empty(&client, what).await?;
        }
        let words = match (self.wait, self.node.is_some()) {
            (true, _) => format!("{what} is drained: nothing runs"),
            (false, true) => format!("{what} claims nothing more"),
            (false, false) => format!("{what} paused"),
        };
        tell(&self.common, &answer, &words);
        Ok(())
    }

    async fn until_empty(&self, client: &Client, what: &str) -> Result<(), CliError> {
        let begun = tokio::time::Instant::now();
        loop {
            let running = match &self.node {
                Some(node) => node::running(client, node).await?,
                None => {
                    let queue = client.get(&format!("/api/v1/queues/{}", escaped(what))).await?;
                    Some(queue["queue"]["jobs"]["active"].as_u64().unwrap_or(0))
                }
            };
            if running == Some(0) {
                return Ok(());
            }
            if self.timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                let count = running.map_or("some".to_owned(), |running| running.to_string());
                return Err(CliError::Failed(format!("{count} jobs of {what} still run; it stays as it was told")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Purge {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let path = format!("/api/v1/queues/{}", escaped(&self.queue));
        if !self.yes {
            let queue = &client.get(&path).await?["queue"];
            let jobs: u64 =
                ["pending", "scheduled", "retry"].iter().filter_map(|state| queue["jobs"][state].as_u64()).sum();
            let messages: u64 = list(&queue["lists"]).iter().filter_map(|list| list["backlog"].as_u64()).sum();
            let what = format!("{jobs} waiting jobs and {messages} messages");
            output::confirm(&format!("Take {what} out of {}?", self.queue), false)?;
        }
        let done = client.post(&format!("{path}/purge"), &json!({})).await?;
        let words = match done["purge"].as_str() {
            None => format!("nothing waited in {}", self.queue),
            Some(purge) => format!(
                "{} jobs and {} messages taken out of {queue}\nuntil {} this takes it back: jobsd undo {queue} {purge}",
                done["jobs"],
                done["messages"],
                cell(&done["until"]),
                queue = self.queue,
            ),
        };
        if self.common.json {
            output::json(&done)
        } else {
            words.lines().for_each(output::line)
        }
        Ok(())
    }
}

impl Undo {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let path = format!("/api/v1/queues/{}", escaped(&self.queue));
        let purge = match self.purge {
            Some(purge) => purge,
            None => {
                let queue = client.get(&path).await?;
                let latest = list(&queue["purges"]).last().map(|purge| cell(&purge["id"]));
                latest.ok_or_else(|| CliError::Failed(format!("{} has no purge that can be taken back", self.queue)))?
            }
        };
        let done = client.post(&format!("{path}/purges/{}/undo", escaped(&purge)), &json!({})).await?;
        tell(&self.common, &done, &format!("{} jobs and messages are back in {}", done["restored"], self.queue));
        Ok(())
    }
}

fn tell(common: &Common, answer: &Value, words: &str) {
    if common.json { output::json(answer) } else { output::line(words) }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
