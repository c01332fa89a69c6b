//! `jobsd scale`: how many jobs of a queue may run at once, set by hand.

use serde_json::{Value, json};

use super::client::escaped;
use super::output::cell;
use super::{CliError, Common, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// The queue.
    queue: String,
    /// How many: 5, or 3-10 to follow the load between the two.
    #[arg(value_parser = slots, required_unless_present = "reset")]
    slots: Option<Slots>,
    /// As many as the configuration says.
    #[arg(long, conflicts_with = "slots")]
    reset: bool,
    /// Why: shown wherever the number is.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy)]
enum Slots {
    Fixed(u64),
    Between(u64, u64),
}

/// Only the form is looked at here: what numbers make sense is the daemon's to say.
fn slots(text: &str) -> Result<Slots, String> {
    let number = |text: &str| text.trim().parse().map_err(|_| "write a number, like 5, or two, like 3-10".to_owned());
    match text.split_once('-') {
        Some((min, max)) => Ok(Slots::Between(number(min)?, number(max)?)),
        None => Ok(Slots::Fixed(number(text)?)),
    }
}

impl Scale {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let mut body = match self.slots {
            Some(Slots::Fixed(slots)) => json!({ "concurrency": slots }),
            Some(Slots::Between(min, max)) => json!({"concurrency": {"min": min, "max": max}}),
            None => json!({"concurrency": "configured"}),
        };
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        let path = format!("/api/v1/queues/{}", escaped(&self.queue));
        let answer = self.common.at.connect()?.patch(&path, &body).await?;
        if self.common.json {
            output::json(&answer);
            return Ok(());
        }
        let set = &answer["slots"];
        let (node, now) = (cell(&set["node"]), words(&set["concurrency"]));
        if self.reset {
            output::line(&format!("{} has {now} slots on {node}, as the configuration says", self.queue));
        } else {
            let file = words(&set["configured"]);
            output::line(&format!(
                "{} has {now} slots on {node} until its next reload or restart; the configuration says {file}",
                self.queue
            ));
        }
        Ok(())
    }
}

/// `5`, or `3 to 10`.
fn words(concurrency: &Value) -> String {
    match concurrency {
        Value::Object(bounds) => format!("{} to {}", cell(&bounds["min"]), cell(&bounds["max"])),
        fixed => cell(fixed),
    }
}
