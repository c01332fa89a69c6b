//! `jobsd job` and `jobsd jobs`: looking at jobs.

use serde_json::{Value, json};

use super::client::escaped;
use super::output::{cell, table, when};
use super::{CliError, Common, follow, output};

/// Jobs in one page.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct ShowJob {
    /// The job's id.
    id: String,
    /// Show the arguments whole, however large they are.
    #[arg(long)]
    full: bool,
    /// Tell what happens to it, and what it says, until it has ended. Exit code 1 when it did not complete.
    #[arg(short, long, conflicts_with = "full")]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListJobs {
    #[command(flatten)]
    filter: Filter,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Where to go on: the cursor that the list before ended with.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Which jobs are meant.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Filter {
    /// scheduled, pending, active, retry, completed, dead or cancelled; several with commas.
    #[arg(long)]
    state: Option<String>,
    /// Of this queue only.
    #[arg(long)]
    queue: Option<String>,
    /// Of this task only, by its own name or a producer's.
    #[arg(long)]
    task: Option<String>,
    /// A text in the id, the arguments or the last error.
    #[arg(long = "q", value_name = "TEXT")]
    text: Option<String>,
    /// The name of the last failure, * stands for anything: 'Smtp*'.
    #[arg(long, value_name = "NAME")]
    error: Option<String>,
    /// Ended, due or waiting since before this time, or longer ago than this span.
    #[arg(long, value_name = "TIME|SPAN")]
    before: Option<String>,
    /// Since this time, or within this span.
    #[arg(long, value_name = "TIME|SPAN")]
    after: Option<String>,
}

impl Filter {
    fn fields(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let all = [
            ("state", &self.state),
            ("queue", &self.queue),
            ("task", &self.task),
            ("q", &self.text),
            ("error", &self.error),
            ("before", &self.before),
            ("after", &self.after),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields().next().is_none()
    }

    pub(super) fn body(&self) -> Value {
        self.fields().map(|(name, value)| (name.to_owned(), Value::from(value.as_str()))).collect()
    }

    fn query(&self) -> String {
        self.fields().map(|(name, value)| format!("&{name}={}", escaped(value))).collect()
    }
}

impl ShowJob {
    pub(super) async fn run(self) -> Result<(), CliError> {
        if self.follow {
            return follow::follow(&self.common, &self.id).await;
        }
        let full = if self.full { "?args=full" } else { "" };
        let job = self.common.at.connect()?.get(&format!("/api/v1/jobs/{}{full}", escaped(&self.id))).await?;
        if self.common.json {
            output::json(&job)
        } else {
            output::print(&described(&job))
        }
        Ok(())
    }
}

impl ListJobs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let most = self.limit as usize;
        let (mut jobs, mut next, mut scanned) = (Vec::new(), self.cursor.clone(), 0);
        loop {
            let limit = (most - jobs.len()).clamp(1, PAGE);
            let cursor = next.as_ref().map_or(String::new(), |next| format!("&cursor={}", escaped(next)));
            let page = client.get(&format!("/api/v1/jobs?limit={limit}{}{cursor}", self.filter.query())).await?;
            jobs.extend(page["jobs"].as_array().cloned().unwrap_or_default());
            scanned += page["scanned"].as_u64().unwrap_or(0);
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() || jobs.len() >= most {
                break;
            }
        }
        if self.common.json {
            output::json(&json!({"jobs": jobs, "next": next, "scanned": scanned}));
            return Ok(());
        }
        let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
        output::print(&table(&["ID", "STATE", "QUEUE", "TASK", "WHEN", "ATTEMPTS", "ERROR"], &rows));
        if let Some(next) = next {
            eprintln!("there are more; go on with --cursor {next}");
        }
        Ok(())
    }
}

fn row(job: &Value) -> Vec<String> {
    let held = if job["held"] == true { " (held)" } else { "" };
    vec![
        cell(&job["id"]),
        format!("{}{held}", cell(&job["state"])),
        cell(&job["queue"]),
        if job["unreadable"] == true { "(unreadable)".to_owned() } else { cell(&job["task"]) },
        when(&job["at"]),
        cell(&job["attempts"]),
        cell(&job["error"]),
    ]
}

/// One job for people: a fact a line, then its attempts that did not succeed.
pub(super) fn described(job: &Value) -> String {
    let mut out = String::new();
    let mut fact = |name: &str, text: String| {
        if !text.is_empty() {
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            out += &format!("{name:<10}{text}\n");
        }
    };
    let time =
        |value: &Value| if value.is_string() { format!("{}  ({})", cell(value), when(value)) } else { String::new() };
    let by = |request: &Value| {
        let reason = request["reason"].as_str().map_or(String::new(), |reason| format!(": {reason}"));
        format!("by {}{reason}", cell(&request["by"]))
    };
    fact("id", cell(&job["id"]));
    fact("task", cell(&job["task"]));
    fact("queue", cell(&job["queue"]));
    let held = if job["held"] == true { ", held: its task is paused, or a limit has no room for it" } else { "" };
    fact("state", format!("{}{held}", cell(&job["state"])));
    fact("why", cell(&job["why"]));
    if job["flow"].is_object() {
        fact("flow", format!("{} of {}", cell(&job["flow"]["name"]), cell(&job["flow"]["id"])));
    }
    if job["purged"].is_object() {
        let (purge, queue) = (cell(&job["purged"]["purge"]), cell(&job["queue"]));
        fact("purged", format!("until {}: jobsd undo {queue} {purge}", cell(&job["purged"]["until"])));
    }
    if job["cancel_requested"].is_object() {
        fact("cancel", format!("requested {}", by(&job["cancel_requested"])));
    }
    if job["priority"].as_i64().is_some_and(|steps| steps != 0) {
        fact("priority", cell(&job["priority"]));
    }
    match &job["args"] {
        Value::Null => fact("args", format!("{} bytes; --full shows them", cell(&job["args_bytes"]))),
        args => fact("args", args.to_string()),
    }
    fact("enqueued", time(&job["enqueued_at"]));
    fact("due", time(&job["due"]));
    let attempt = &job["attempt"];
    if attempt.is_object() {
        fact(
            "running",
            format!("attempt {} on {}, since {}", attempt["number"], cell(&attempt["node"]), time(&attempt["started"])),
        );
    }
    let progress = &job["progress"];
    if progress.is_object() {
        fact("progress", format!("{}  ({})", output::progress(progress), when(&progress["at"])));
    }
    let lines = |section: &Value| section["lines"].as_array().map_or(0, Vec::len);
    let said: usize = job["log"].as_array().into_iter().flatten().map(lines).sum();
    if said > 0 {
        fact("log", format!("{said} lines; jobsd log {} shows them", cell(&job["id"])));
    }
    let end = &job["end"];
    fact("ended", time(&end["at"]));
    if let Some(seconds) = end["duration_seconds"].as_f64() {
        fact("took", format!("{seconds:.3} s on {}", cell(&end["node"])));
    }
    fact("cause", cell(&end["cause"]));
    fact("reason", cell(&end["reason"]));
    if !end["result"].is_null() {
        fact("result", end["result"].to_string());
    }
    for (number, result) in (1..).zip(job["history"]["steps"].as_array().into_iter().flatten()) {
        fact("step done", format!("{number}: {result}"));
    }
    for mishap in job["history"]["mishaps"].as_array().into_iter().flatten() {
        let (at, kind) = (cell(&mishap["at"]), cell(&mishap["kind"]));
        let words = format!("{}: {}", cell(&mishap["name"]), cell(&mishap["message"]));
        fact("attempt", format!("{} {kind} at {at}: {words}", mishap["attempt"]));
    }
    out
}
