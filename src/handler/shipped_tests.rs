//! The shipped `jobsd.toml` through the real handlers: each of its tasks does its work on SQLite and on PostgreSQL.

mod analytics;

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Handlers;
use super::sql::Named;
use crate::config::{self, Config, Dialect, EmailProvider, PushProvider, Statement};
use crate::job::{Job, JobId, Outcome, TaskName};
use crate::testing::{attempt, fixture, postgres};

/// The shipped file, with everything it writes moved below `dir`.
fn shipped(dir: &Path, database: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobsd.toml");
    let mut config = config::load(&path, &|name| (name == "DATABASE_URL").then(|| database.to_owned()))
        .expect("the shipped file is valid")
        .config;
    config.email.provider = EmailProvider::Outbox { folder: dir.join("mail") };
    config.push.provider = PushProvider::Outbox { folder: dir.join("push") };
    config
}

/// Calls a task as its producer does, with positional arguments.
async fn call(config: &Config, handlers: &Handlers, task: &str, args: Value) -> Value {
    match run(config, handlers, task, args, &format!("job-{}", uuid::Uuid::new_v4())).await {
        Outcome::Success(result) => result,
        other => panic!("{task}: {other:?}"),
    }
}

/// An attempt at the job `id`.
async fn run(config: &Config, handlers: &Handlers, task: &str, args: Value, id: &str) -> Outcome {
    let task = &config.tasks[&TaskName::parse(task).expect("a valid name")];
    let positional = args.as_array().expect("an array");
    let args = config::bind(task, positional, Map::new()).unwrap_or_else(|error| panic!("{}: {error}", task.name));
    let id = JobId::parse(id).expect("a valid id");
    handlers.perform(&attempt::first(&Job { id, ..fixture::job(Value::Object(args)) }, task)).await
}

/// Every task that needs mail, push or the database only.
async fn whole_workload(config: &Config) {
    let handlers = Handlers::new(config).expect("the handlers are built");
    let long = "x".repeat(200);
    for (task, args) in [
        ("send_email_task", json!(["a@b.test", "Hi", "<p>Hello</p>"])),
        ("send_email_task", json!(["a@b.test", "Hi", "", "welcome", {"user_name": "Ann", "username": "ann"}])),
        ("send_welcome_email", json!(["a@b.test", "Ann", "ann"])),
        ("send_job_application_email", json!(["b@c.test", "Bob", "Chef", "Ann", "a@b.test", 17])),
        ("send_message_notification_email", json!(["a@b.test", "Ann", "Bob", long])),
        ("send_password_reset_email", json!(["a@b.test", "Ann", "t0k3n"])),
        ("send_push_notification_job", json!([1, "Title", "Body", "system", {"k": 1}])),
        ("send_new_follower_notification_job", json!([2, "Bob", 1])),
        ("send_new_like_notification_job", json!([2, "Bob", 1, 17])),
        ("send_new_comment_notification_job", json!([2, "Bob", 1, 17, long])),
        ("send_new_message_notification_job", json!([2, "Bob", 1, long])),
        ("track_user_event_job", json!([1, "login", {"from": "web"}])),
        ("track_user_event_job", json!(["1", "logout"])),
        ("cleanup_old_notifications", json!([])),
    ] {
        let result = call(config, &handlers, task, args).await;
        assert_eq!(result["success"], true, "{task}: {result}");
    }
    let stats = json!({"posts": 0, "followers": 0, "following": 0, "likes_received": 0, "comments_received": 0});
    for _ in 0..2 {
        let result = call(config, &handlers, "aggregate_user_stats_job", json!([1])).await;
        assert_eq!(result, json!({"success": true, "user_id": 1, "stats": stats}), "the second run updates the row");
    }
    let sql = super::sql::Sql::new(&config.database).expect("the database");
    let statement = |text: &str| Statement::parse(text, config.database.dialect()).expect("a valid statement");
    let count = async |query: &str| sql.column(&statement(query), &Named::args(&Map::new())).await.expect("it runs");
    assert_eq!(
        count("SELECT count(*) AS n FROM notifications WHERE user_id = 1 AND is_read = FALSE").await,
        [json!(5)]
    );
    assert_eq!(count("SELECT count(*) AS n FROM user_events").await, [json!(2)]);
    let comment = count("SELECT content FROM notifications WHERE notification_type = 'comment'").await;
    assert_eq!(comment, [json!(format!("Bob commented: {}", "x".repeat(50)))]);

    let old = "UPDATE notifications SET is_read = TRUE, created_at = :at WHERE notification_type IN ('like', 'follow')";
    let named = Map::from_iter([("at".to_owned(), json!("2020-01-01T00:00:00.000Z"))]);
    sql.run(&[statement(old)], &Named::args(&named)).await.expect("it runs");
    let cleaned = call(config, &handlers, "cleanup_old_notifications", json!([])).await;
    assert_eq!(cleaned, json!({"success": true, "deleted_count": 2}));
}

#[tokio::test]
async fn the_shipped_workload_runs_on_sqlite() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let database = format!("sqlite:{}", dir.path().join("app.db").display());
    let config = shipped(dir.path(), &database);
    whole_workload(&config).await;
    analytics::counts_are_those_of_the_rows(&config).await;
    let files = |folder: &str| std::fs::read_dir(dir.path().join(folder)).expect("the folder").count();
    assert_eq!((files("mail"), files("push")), (6, 5));
}

#[tokio::test]
async fn the_shipped_workload_runs_on_postgres() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let server = postgres::Server::start();
    let config = shipped(dir.path(), &server.url());
    analytics::what_is_missing_is_named(&config).await;
    let sql = super::sql::Sql::new(&config.database).expect("the database");
    // As an app's own migrations would make them, and as the README says.
    let tables = [
        "CREATE TABLE notifications (id bigserial PRIMARY KEY, user_id int NOT NULL, actor_id int, notification_type \
            varchar(50) NOT NULL, content text NOT NULL, related_id int, is_read boolean NOT NULL, created_at timestamptz NOT NULL)",
        "CREATE TABLE posts (id serial PRIMARY KEY, user_id int)",
        "CREATE TABLE follows (follower_id int, followed_id int)",
        "CREATE TABLE likes (user_id int, post_id int)",
        "CREATE TABLE comments (id serial PRIMARY KEY, user_id int, post_id int)",
        // Hours and days are those of UTC, wherever the server believes to be.
        "ALTER ROLE jobsd SET timezone = 'America/St_Johns'",
    ];
    let tables: Vec<Statement> = tables
        .into_iter()
        .chain(readme_tables())
        .map(|text| Statement::parse(text, Dialect::Postgres).expect("a valid statement"))
        .collect();
    sql.run(&tables, &Named::args(&Map::new())).await.expect("the tables are made");
    drop(sql);
    whole_workload(&config).await;
    analytics::counts_are_those_of_the_rows(&config).await;
}

/// What the README gives to those who have PostgreSQL.
fn readme_tables() -> impl Iterator<Item = &'static str> {
    let (_, behind) = include_str!("../../README.md").split_once("```sql\n").expect("the README's tables");
    let (tables, _) = behind.split_once("```").expect("the block ends");
    tables.split_inclusive(";\n")
}

/// The template sees the whole preview: one that was cut before it would never show that something is missing.
#[tokio::test]
async fn the_preview_of_a_message_shows_that_it_was_cut() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = shipped(dir.path(), "sqlite");
    let handlers = Handlers::new(&config).expect("the handlers are built");
    for (length, cut) in [(100, false), (104, true)] {
        let preview = "x".repeat(length);
        call(&config, &handlers, "send_message_notification_email", json!(["a@b.test", "Ann", "Bob", preview])).await;
        let file = std::fs::read_dir(dir.path().join("mail")).expect("the folder").next().expect("a mail");
        let path = file.expect("it can be listed").path();
        // In quoted-printable (RFC 2045, 6.7) a line may go on behind a `=`.
        let mail = std::fs::read_to_string(&path).expect("the mail").replace("=\r\n", "");
        std::fs::remove_file(&path).expect("it can be removed");
        let shown = "x".repeat(100);
        for (open, hellip, close) in [("\"", "=E2=80=A6", "\""), ("&ldquo;", "&hellip;", "&rdquo;")] {
            let expected = format!("{open}{shown}{}{close}", if cut { hellip } else { "" });
            assert!(mail.contains(&expected), "{length} characters:\n{mail}");
        }
    }
}

#[test]
fn the_configuration_knows_the_built_in_mail_templates() {
    assert!(super::email::builtin_template_names().eq(config::MAIL_TEMPLATES));
}
