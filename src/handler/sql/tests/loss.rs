//! A connection that is lost, before, between and after any two messages to PostgreSQL: nothing is half done, nothing that
//! was said to be done is missing, what is not done is tried again, and the key of the job makes it once.

use super::cutter::{Cut, Cutter};
use super::*;

const SHORT: Duration = Duration::from_millis(300);
/// More than any of these transactions has.
const MOST_MESSAGES: usize = 200;

struct Setting {
    server: postgres::Server,
    cutter: Cutter,
    /// Past the proxy.
    watcher: Sql,
}

impl Setting {
    async fn new(tables: &[&str]) -> Self {
        let server = postgres::Server::start();
        let watcher = postgres_at(&server.url(), SECONDS);
        run(&watcher, tables, json!({})).await.expect("the tables are made");
        let cutter = Cutter::before(server.port()).await;
        Self { server, cutter, watcher }
    }

    /// With a connection in its pool that is in order so far.
    async fn warm(&self, timeout: Duration) -> Sql {
        let url = self.server.url().replace(&format!(":{}/", self.server.port()), &format!(":{}/", self.cutter.port));
        let sql = postgres_at(&url, timeout);
        run(&sql, &["SELECT 1"], json!({})).await.expect("it runs");
        sql
    }
}

/// Returns when the server has done what it was sent on connections that are lost.
async fn nobody_else_is_served(setting: &Setting) {
    let others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let alone = async {
        while rows(&setting.watcher, others).await != json!([]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SECONDS, alone).await.expect("the server has nobody else to serve");
}

/// Both rows of a job, or none.
async fn both(setting: &Setting, job: &str) -> bool {
    let counts =
        "SELECT (SELECT count(*) FROM done WHERE job = :job) AS a, (SELECT count(*) FROM lines WHERE job = :job) AS b";
    let result = run(&setting.watcher, &[counts], json!({"job": job})).await.expect("it runs");
    match (result["rows"][0]["a"].as_u64(), result["rows"][0]["b"].as_u64()) {
        (Some(0), Some(0)) => false,
        (Some(1), Some(1)) => true,
        other => panic!("{job} is half done: {other:?}"),
    }
}

const TABLES: [&str; 2] =
    ["CREATE TABLE done (job text PRIMARY KEY)", "CREATE TABLE lines (job text PRIMARY KEY, n int)"];
const STEP: [&str; 3] = [
    "INSERT INTO done VALUES (:job) ON CONFLICT DO NOTHING",
    "INSERT INTO lines VALUES (:job, 2) ON CONFLICT DO NOTHING",
    "SELECT n FROM lines WHERE job = :job",
];

#[tokio::test]
async fn a_step_is_done_whole_or_not_at_all() {
    let setting = Setting::new(&TABLES).await;
    let (mut cuts, mut lost, mut unclear) = (0, 0, 0);
    for how in [Cut::Unsent, Cut::Unanswered] {
        for messages in 0..MOST_MESSAGES {
            let (job, sql) = (format!("{how:?} {messages}"), setting.warm(SECONDS).await);
            setting.cutter.cut_after(messages, how);
            let first = run(&sql, &STEP, json!({"job": job})).await;
            let has_cut = setting.cutter.has_cut();
            match first {
                Ok(result) => assert_eq!(result["rows"], json!([{"n": 2}])),
                Err(error) => {
                    // BEGIN and the timeout are the first two: without them nothing was asked of the server.
                    assert!(messages >= 2, "an attempt was spent before anything was sent: {error}");
                    lost += 1;
                    let at_commit = error.to_string().contains("COMMIT");
                    let failure = failure(Err(error));
                    nobody_else_is_served(&setting).await;
                    assert_eq!((failure.kind.as_str(), failure.retry), ("OperationalError", Retryable::ByPolicy));
                    unclear += usize::from(both(&setting, &job).await);
                    assert!(at_commit || !both(&setting, &job).await, "only COMMIT leaves it unclear: {failure:?}");
                    let again = run(&sql, &STEP, json!({"job": job})).await.expect("the next attempt is whole");
                    assert_eq!(again["rows"], json!([{"n": 2}]));
                }
            }
            cuts += usize::from(has_cut);
            assert!(both(&setting, &job).await, "what was said to be done is done");
            run(&sql, &["SELECT 1"], json!({})).await.expect("the pool is in order");
            if !has_cut {
                assert!(messages > 10, "{messages} messages");
                break;
            }
        }
    }
    println!("{cuts} cuts: {lost} attempts were lost, of which {unclear} were done");
    assert!(lost > 20 && unclear == 1, "{lost} {unclear}");
}

#[tokio::test]
async fn a_connection_that_has_gone_dead_in_the_pool_costs_no_attempt() {
    let setting = Setting::new(&TABLES).await;
    for (messages, lost) in [(0, false), (1, false), (4, true)] {
        let (job, sql) = (messages.to_string(), setting.warm(SHORT).await);
        setting.cutter.cut_after(messages, Cut::Silent);
        let first = run(&sql, &STEP, json!({"job": job})).await;
        assert!(setting.cutter.has_cut());
        assert_eq!(first.is_err(), lost, "{first:?}");
        if lost {
            assert_eq!(failure(first).retry, Retryable::ByPolicy);
            assert!(!both(&setting, &job).await);
            run(&sql, &STEP, json!({"job": job})).await.expect("the next attempt is whole");
        }
        assert!(both(&setting, &job).await);
    }
}

/// Eight jobs, of which the sixth has a row that is refused. Each run of the batch is cut at one message.
#[tokio::test]
async fn each_job_of_a_batch_keeps_its_outcome() {
    const BAD: usize = 5;
    let setting = Setting::new(&["CREATE TABLE rows (cut text, n int CHECK (n <> 5), PRIMARY KEY (cut, n))"]).await;
    let text = "INSERT INTO rows VALUES (:cut, :n) ON CONFLICT DO NOTHING";
    let statement = Statement::parse(text, Dialect::Postgres).expect("it parses");
    let form = statement.multi_row.as_ref().expect("it has a form for many rows");
    let (mut cuts, mut kept) = (0, 0);
    for how in [Cut::Unsent, Cut::Unanswered] {
        for messages in 0..MOST_MESSAGES {
            let (name, sql) = (format!("{how:?} {messages}"), setting.warm(SECONDS).await);
            let all: Vec<Vec<Value>> = (0..8).map(|n| vec![json!(name), json!(n)]).collect();
            let stored = async || -> Vec<usize> {
                let query = "SELECT array_agg(n ORDER BY n) AS n FROM rows WHERE cut = :cut";
                let result = run(&setting.watcher, &[query], json!({"cut": name})).await.expect("it runs");
                serde_json::from_value(result["rows"][0]["n"].clone()).unwrap_or_default()
            };
            setting.cutter.cut_after(messages, how);
            let results = sql.run_rows(&statement, form, &all).await;
            let has_cut = setting.cutter.has_cut();
            let there = stored().await;
            let mut again = Vec::new();
            for (n, result) in results.into_iter().enumerate() {
                match result.map_err(Failure::from) {
                    Ok(_) => assert!(there.contains(&n), "{name}: job {n} was said to be done"),
                    Err(failure) if failure.retry == Retryable::Never => {
                        assert_eq!((n, failure.kind.as_str()), (BAD, "IntegrityError"), "{name}: {}", failure.message);
                    }
                    Err(_) => again.push(n),
                }
            }
            cuts += usize::from(has_cut);
            kept += usize::from(has_cut && !again.is_empty() && again.len() < 8);
            let rest: Vec<Vec<Value>> = again.iter().map(|n| all[*n].clone()).collect();
            let second = sql.run_rows(&statement, form, &rest).await;
            for (n, result) in again.into_iter().zip(second) {
                assert_eq!(result.is_ok(), n != BAD, "{name}: job {n}: {result:?}");
            }
            assert_eq!(stored().await, [0, 1, 2, 3, 4, 6, 7], "{name}: each once, and not the bad one");
            if !has_cut {
                break;
            }
        }
    }
    println!("{cuts} cuts; after {kept} of them some jobs of the batch had their outcomes and others went again");
    assert!(cuts > 40 && kept > 20, "{cuts} {kept}");
}
