//! `jobsd flow` and `jobsd flows`: submitting flows, looking at them, cancelling and retrying them.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::output::{cell, table, when};
use super::{CliError, Common, enqueue, output};

/// Pauses between two looks at a flow that is waited for.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Flows in one page.
const PAGE: usize = 200;

/// `jobsd flow ID`, or one of the verbs.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Flow {
    #[command(subcommand)]
    verb: Option<FlowVerb>,
    /// The flow to show: its jobs, their states, and what blocks it.
    #[arg(required = true)]
    id: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Subcommand)]
enum FlowVerb {
    /// Submit a flow; prints its id.
    Submit(Submit),
    /// Cancel a flow: what has not started never does, what waits or runs is cancelled.
    Cancel(Cancel),
    /// Send its dead and cancelled jobs off once more, so that the flow goes on.
    Retry(Retry),
}

#[derive(Debug, clap::Args)]
struct Submit {
    /// The flow as JSON: a file, or - for standard input.
    file: String,
    /// Wait until nothing of it goes on; exit code 1 unless it is completed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Cancel {
    #[arg(required = true)]
    ids: Vec<String>,
    /// Why: kept with the flow.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Retry {
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListFlows {
    /// running, blocked, completed, dead or cancelled.
    #[arg(long)]
    state: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Where to go on: the cursor that the list before ended with.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Flow {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.verb {
            Some(FlowVerb::Submit(submit)) => submit.run().await,
            Some(FlowVerb::Cancel(cancel)) => cancel.run().await,
            Some(FlowVerb::Retry(retry)) => change(&retry.common, &retry.ids, "retry", &json!({})).await,
            None => {
                let id = self.id.unwrap_or_default();
                let flow = self.common.at.connect()?.get(&path(&id)).await?;
                show(&flow, self.common.json);
                Ok(())
            }
        }
    }
}

impl Submit {
    async fn run(self) -> Result<(), CliError> {
        let (source, flow) = enqueue::read_file(&self.file)?;
        // The daemon reads it as it was written; here it is only seen that it is JSON, so that the place can be told.
        if let Err(error) = serde_json::from_str::<IgnoredAny>(&flow) {
            return Err(CliError::Usage(format!("{source} cannot be read as JSON: {error}")));
        }
        let client = self.common.at.connect()?;
        let accepted = client.post_text("/api/v1/flows", flow).await?;
        let id = cell(&accepted["id"]);
        if !self.wait {
            if self.common.json {
                output::json(&accepted)
            } else {
                output::line(&id)
            }
            return Ok(());
        }
        if !self.common.json {
            output::line(&id);
        }
        let ended = ended(&client, &id).await?;
        show(&ended, self.common.json);
        if ended["state"] == "completed" { Ok(()) } else { Err(CliError::Told) }
    }
}

impl Cancel {
    async fn run(self) -> Result<(), CliError> {
        let mut body = json!({});
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        change(&self.common, &self.ids, "cancel", &body).await
    }
}

impl ListFlows {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        let most = self.limit as usize;
        let (mut flows, mut next) = (Vec::new(), self.cursor.clone());
        loop {
            let limit = (most - flows.len()).clamp(1, PAGE);
            let state = self.state.as_ref().map_or(String::new(), |state| format!("&state={}", escaped(state)));
            let cursor = next.as_ref().map_or(String::new(), |next| format!("&cursor={}", escaped(next)));
            let page = client.get(&format!("/api/v1/flows?limit={limit}{state}{cursor}")).await?;
            flows.extend(page["flows"].as_array().cloned().unwrap_or_default());
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() || flows.len() >= most {
                break;
            }
        }
        if self.common.json {
            output::json(&json!({"flows": flows, "next": next}));
            return Ok(());
        }
        let rows: Vec<Vec<String>> = flows.iter().map(row).collect();
        let headings = ["ID", "STATE", "NAME", "SUBMITTED", "JOBS", "COMPLETED", "STARTED", "BLOCKED", "DEAD"];
        output::print(&table(&headings, &rows));
        if let Some(next) = next {
            eprintln!("there are more; go on with --cursor {next}");
        }
        Ok(())
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/flows/{}", escaped(id))
}

/// Each of the flows by itself: one that cannot be changed does not keep the others from it.
async fn change(common: &Common, ids: &[String], verb: &str, body: &Value) -> Result<(), CliError> {
    let client = common.at.connect()?;
    let (mut done, mut failed) = (Vec::new(), false);
    for id in ids {
        match client.post(&format!("{}/{verb}", path(id)), body).await {
            Ok(answer) if common.json => done.push(answer),
            Ok(answer) => output::line(&told(id, &answer)),
            Err(CliError::Failed(words)) => {
                eprintln!("jobsd: {id}: {words}");
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    if common.json {
        output::json(&Value::Array(done));
    }
    if failed { Err(CliError::Told) } else { Ok(()) }
}

fn told(id: &str, answer: &Value) -> String {
    let jobs: Vec<String> = answer["jobs"].as_array().into_iter().flatten().map(cell).collect();
    let which = if jobs.is_empty() { String::new() } else { format!(": {}", jobs.join(", ")) };
    format!("{id} {}{which}", cell(&answer["outcome"]))
}

/// The flow, once nothing of it goes on by itself.
async fn ended(client: &Client, id: &str) -> Result<Value, CliError> {
    let mut pause = LOOKS.0;
    loop {
        let Some(flow) = client.find(&path(id)).await? else {
            return Err(CliError::Failed(format!("{id} is gone: it has ended and was deleted by its retention")));
        };
        if flow["state"] != "running" && flow["jobs"]["started"] == 0 {
            return Ok(flow);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

fn row(flow: &Value) -> Vec<String> {
    let jobs = &flow["jobs"];
    vec![
        cell(&flow["id"]),
        cell(&flow["state"]),
        cell(&flow["name"]),
        when(&flow["submitted_at"]),
        cell(&jobs["total"]),
        cell(&jobs["completed"]),
        cell(&jobs["started"]),
        cell(&jobs["blocked"]),
        cell(&jobs["dead"]),
    ]
}

fn show(flow: &Value, as_json: bool) {
    if as_json { output::json(flow) } else { output::print(&described(flow)) }
}

/// One flow for people: the sentence, then its jobs as they stand inside each other.
fn described(flow: &Value) -> String {
    let mut lines = Vec::new();
    let mut fact = |name: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("{name:<10}{text}"));
        }
    };
    fact("id", cell(&flow["id"]));
    fact("name", cell(&flow["name"]));
    fact("state", cell(&flow["summary"]));
    fact(
        "submitted",
        format!("{}  ({}) by {}", cell(&flow["submitted_at"]), when(&flow["submitted_at"]), cell(&flow["by"])),
    );
    lines.push(String::new());
    match &flow["flow"] {
        Value::Array(jobs) => jobs.iter().for_each(|one| lines.push(job(one, 0))),
        part => draw(part, 0, &mut lines),
    }
    for callback in flow["callbacks"].as_array().into_iter().flatten() {
        lines.push(job(callback, 0));
    }
    lines
        .iter()
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>() + "\n")
        .collect()
}

fn draw(part: &Value, depth: usize, lines: &mut Vec<String>) {
    let kind = ["chain", "group"].into_iter().find(|kind| part[*kind].is_array());
    let Some(kind) = kind else { return lines.push(job(part, depth)) };
    lines.push(format!("{}{kind}", "  ".repeat(depth)));
    for one in part[kind].as_array().into_iter().flatten() {
        draw(one, depth + 1, lines);
    }
}

fn job(job: &Value, depth: usize) -> String {
    let after: Vec<String> = job["after"].as_array().into_iter().flatten().map(cell).collect();
    let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(", ")) };
    let why = [&job["error"], &job["why"]].into_iter().find(|why| why.is_string());
    let why = why.map_or(String::new(), |why| format!(": {}", cell(why)));
    format!(
        "{}{} [{}]{after}  {}{why}",
        "  ".repeat(depth),
        cell(&job["name"]),
        cell(&job["task"]),
        cell(&job["state"])
    )
}
