//! `jobsd nodes`, and how many jobs a node runs.

use serde_json::Value;

use super::client::Client;
use super::output::{cell, table, when};
use super::queue::list;
use super::{CliError, Common, output};

#[derive(Debug, clap::Args)]
pub(crate) struct ListNodes {
    #[command(flatten)]
    common: Common,
}

impl ListNodes {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let nodes = self.common.at.connect()?.get("/api/v1/nodes").await?;
        if self.common.json {
            output::json(&nodes);
            return Ok(());
        }
        let rows: Vec<Vec<String>> = list(&nodes["nodes"]).iter().map(row).collect();
        output::print(&table(&["NODE", "STATE", "RUNNING", "HOST", "PID", "VERSION", "STARTED", "SEEN"], &rows));
        Ok(())
    }
}

fn row(node: &Value) -> Vec<String> {
    let state = match (node["alive"] == true, node["draining"] == true) {
        (false, _) => "silent",
        (true, true) => "draining",
        (true, false) => "running",
    };
    vec![
        cell(&node["node"]),
        state.to_owned(),
        sum(node).to_string(),
        cell(&node["host"]),
        cell(&node["pid"]),
        cell(&node["version"]),
        when(&node["started"]),
        when(&node["seen"]),
    ]
}

fn sum(node: &Value) -> u64 {
    list(&node["queues"]).iter().filter_map(|queue| queue["running"].as_u64()).sum()
}

/// How many jobs a node runs, once it has said that it claims nothing more; `None` before. A node that is gone runs none.
pub(super) async fn running(client: &Client, name: &str) -> Result<Option<u64>, CliError> {
    let nodes = client.get("/api/v1/nodes").await?;
    let Some(node) = list(&nodes["nodes"]).iter().find(|node| node["node"] == name) else { return Ok(Some(0)) };
    Ok((node["draining"] == true || node["alive"] == false).then(|| sum(node)))
}
