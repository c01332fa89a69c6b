//! `jobsd cancel`, `retry`, `delete` and `promote`: jobs by id, or all that a filter means.

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::jobs::Filter;
use super::{CliError, Common, enqueue, offline, output};

/// Which jobs: some by id, or all that a filter means.
#[derive(Debug, clap::Args)]
struct Which {
    /// The jobs, if not by a filter.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long)]
    limit: Option<u64>,
    /// Only say which ones are meant.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: Which,
    /// Why: kept with the job.
    #[arg(long)]
    reason: Option<String>,
    /// Go to Redis without a daemon, by the configuration: the jobs do not run when one comes back.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    which: Which,
    /// Other arguments for the one job: '{…}', @FILE, or - for standard input. A secret that is *** stays as it was.
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    /// The jobs.
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl Cancel {
    pub(super) async fn run(self) -> Result<(), CliError> {
        self.which.check()?;
        if self.offline {
            if self.which.ids.is_empty() {
                return Err(CliError::Usage("--offline cancels jobs by id".to_owned()));
            }
            return offline::cancel(&self.common, &self.which.ids, self.reason).await;
        }
        let client = self.common.at.connect()?;
        let mut body = json!({});
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        let done = change(&client, &self.which, "cancel", &body, self.common.json).await;
        done.map_err(|error| match error {
            CliError::Unreachable(words) if !self.which.ids.is_empty() => CliError::Unreachable(format!(
                "{words}\nwith --offline the jobs are cancelled in Redis, without a daemon"
            )),
            other => other,
        })
    }
}

impl Retry {
    pub(super) async fn run(self) -> Result<(), CliError> {
        self.which.check()?;
        let mut body = json!({});
        if let Some(args) = &self.args {
            if self.which.ids.len() != 1 {
                return Err(CliError::Usage("--args are for one job, by its id".to_owned()));
            }
            body["args"] = enqueue::read_json(args)?;
        }
        change(&self.common.at.connect()?, &self.which, "retry", &body, self.common.json).await
    }
}

impl Delete {
    pub(super) async fn run(self) -> Result<(), CliError> {
        self.which.check()?;
        let client = self.common.at.connect()?;
        if self.which.ids.is_empty() && !self.which.dry_run && !self.yes {
            let meant = by_filter(&client, &self.which, "delete", &json!({"dry_run": true})).await?;
            let more = if meant["next"].is_null() { "" } else { " or more" };
            let count = self.which.limit.map_or(meant["matched"].to_string(), |limit| {
                meant["matched"].as_u64().map_or(limit, |matched| matched.min(limit)).to_string()
            });
            output::confirm(&format!("Delete {count}{more} jobs for good?"), false)?;
        }
        change(&client, &self.which, "delete", &json!({}), self.common.json).await
    }
}

impl Promote {
    pub(super) async fn run(self) -> Result<(), CliError> {
        by_id(&self.common.at.connect()?, &self.ids, "promote", &json!({}), self.common.json).await
    }
}

impl Which {
    fn check(&self) -> Result<(), CliError> {
        let by_filter = !self.filter.is_empty() || self.limit.is_some() || self.dry_run;
        match (self.ids.is_empty(), by_filter) {
            (true, false) => Err(CliError::Usage("name jobs by id, or by a filter such as --state dead".to_owned())),
            (false, true) => Err(CliError::Usage("name jobs by id or by a filter, not both".to_owned())),
            _ => Ok(()),
        }
    }
}

async fn change(client: &Client, which: &Which, verb: &str, body: &Value, as_json: bool) -> Result<(), CliError> {
    if !which.ids.is_empty() {
        return by_id(client, &which.ids, verb, body, as_json).await;
    }
    let mut body = body.clone();
    if which.dry_run {
        body["dry_run"] = true.into();
    }
    let done = by_filter(client, which, verb, &body).await?;
    if as_json {
        output::json(&done);
        return Ok(());
    }
    let count = |what: &str| done[what].as_u64().unwrap_or(0);
    if which.dry_run {
        output::line(&format!("{} jobs match; nothing was changed", count("matched")));
        return Ok(());
    }
    let mut words = format!("{} {}", count("changed"), done["outcome"].as_str().unwrap_or("changed"));
    for (what, told) in [("requested", "asked to end"), ("unfit", "had changed meanwhile and were left alone")] {
        if count(what) > 0 {
            words += &format!(", {} {told}", count(what));
        }
    }
    output::line(&words);
    Ok(())
}

/// Each of the jobs by itself: one that cannot be changed does not keep the others from it.
async fn by_id(client: &Client, ids: &[String], verb: &str, body: &Value, as_json: bool) -> Result<(), CliError> {
    let (mut done, mut failed) = (Vec::new(), false);
    for id in ids {
        let path = format!("/api/v1/jobs/{}", escaped(id));
        let answer = match verb {
            "delete" => client.delete(&path).await,
            _ => client.post(&format!("{path}/{verb}"), body).await,
        };
        match answer {
            Ok(answer) if as_json => done.push(answer),
            Ok(answer) => output::line(&told(id, &answer)),
            Err(CliError::Failed(words)) => {
                eprintln!("jobsd: {id}: {words}");
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    if as_json {
        output::json(&Value::Array(done));
    }
    if failed { Err(CliError::Told) } else { Ok(()) }
}

/// What became of one job, in a line.
pub(super) fn told(id: &str, answer: &Value) -> String {
    match answer["outcome"].as_str() {
        Some("cancel-requested") => format!("{id} runs; its node was asked to end it"),
        Some(outcome) => format!("{id} {outcome}"),
        None => id.to_owned(),
    }
}

/// Request by request, until there is nothing more or the limit is reached. The numbers are summed up.
async fn by_filter(client: &Client, which: &Which, verb: &str, extra: &Value) -> Result<Value, CliError> {
    let mut body = which.filter.body();
    for (name, value) in extra.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    if let Some(limit) = which.limit {
        body["limit"] = limit.into();
    }
    let path = format!("/api/v1/jobs/{verb}");
    let mut sum = client.post(&path, &body).await?;
    while which.limit.is_none()
        && let Some(next) = sum["next"].as_str().map(str::to_owned)
    {
        body["cursor"] = next.into();
        let step = client.post(&path, &body).await?;
        for name in ["matched", "changed", "requested", "unfit", "scanned"] {
            let both = sum[name].as_u64().unwrap_or(0) + step[name].as_u64().unwrap_or(0);
            sum[name] = both.into();
        }
        sum["next"] = step["next"].clone();
    }
    Ok(sum)
}
