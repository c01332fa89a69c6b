//! `jobsd why`: one sentence about one job.

use super::client::escaped;
use super::output::cell;
use super::{CliError, Common, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The job's id.
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Why {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let answer = self.common.at.connect()?.get(&format!("/api/v1/jobs/{}/why", escaped(&self.id))).await?;
        if self.common.json {
            output::json(&answer);
        } else {
            output::line(&cell(&answer["sentence"]));
        }
        Ok(())
    }
}
