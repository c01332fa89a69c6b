//! The shipped analytics against rows of chance: what they count is what is counted here from the same rows.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::clock;
use crate::handler::sql::Sql;
use crate::job::{Retryable, Timestamp};
use crate::testing::dice::Dice;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const USERS: usize = 7;
const TYPES: [&str; 3] = ["page_view", "click", "o'neil; --"];

#[derive(Debug, Clone)]
struct Event {
    user: usize,
    kind: &'static str,
    at: u64,
}

/// `(start of the hour or day, type, events, users)`.
type Count = (String, String, u64, u64);

pub(super) async fn counts_are_those_of_the_rows(config: &Config) {
    let handlers = Handlers::new(config).expect("the handlers are built");
    let sql = Sql::new(&config.database).expect("the database");
    let mut dice = Dice::new();
    execute(&sql, config, "DELETE FROM user_events", json!({})).await;
    roll_ups(config, &handlers, &sql, &mut dice).await;
    statistics(config, &handlers, &sql, &mut dice).await;
    an_event_is_one_row(config, &handlers, &sql).await;
}

/// A PostgreSQL in which nobody has made the tables: the error says which, and where they are described.
pub(super) async fn what_is_missing_is_named(config: &Config) {
    let handlers = Handlers::new(config).expect("the handlers are built");
    for (task, args, table) in [
        ("track_user_event_job", json!([1, "login"]), "user_events"),
        ("roll_up_hourly_events", json!([]), "user_events_hourly"),
        ("roll_up_daily_events", json!([]), "user_events_daily"),
        ("aggregate_user_stats_job", json!([1]), "user_stats"),
    ] {
        let failure = attempt::failure(run(config, &handlers, task, args, "early").await);
        let said = format!(
            "failed to run statement 1: relation \"{table}\" does not exist; jobsd makes no tables in PostgreSQL: those of \
             its analytics are in the README, \"Analytics\""
        );
        assert_eq!((failure.message, failure.retry), (said, Retryable::Never));
    }
}

/// Events of four days; then some more, for which nobody ran for hours, and one that came late; then nothing new.
async fn roll_ups(config: &Config, handlers: &Handlers, sql: &Sql, dice: &mut Dice) {
    // In the middle of the hour before the last whole one, so that none of this depends on the minute.
    let now = clock::now().as_millis() / HOUR * HOUR - HOUR / 2;
    let seen = now - 9 * HOUR;
    let mut events = Vec::new();
    let mut more = async |count: usize, from: u64, to: u64| {
        let span = usize::try_from(to - from).expect("a few days");
        let made: Vec<Event> = (0..count)
            .map(|_| Event { user: dice.below(USERS), kind: dice.one_of(&TYPES), at: from + dice.below(span) as u64 })
            .collect();
        insert(sql, config, &made).await;
        events.extend(made);
        events.clone()
    };
    let first = more(300, now - 4 * DAY, seen).await;
    rolled_up(config, handlers, sql, &first).await;
    // Hours in which no roll-up ran, and a late one for the hour that was counted last.
    more(200, seen, now).await;
    let latest = first.iter().map(|event| event.at / HOUR * HOUR).max().expect("there are events");
    let all = more(1, latest, latest + HOUR).await;
    let counts = rolled_up(config, handlers, sql, &all).await;
    assert_eq!(rolled_up(config, handlers, sql, &all).await, counts, "a second run changes nothing");
    // What is of the present hour is not counted yet.
    let present = clock::now().as_millis() / HOUR * HOUR;
    insert(sql, config, &[Event { user: 1, kind: "click", at: present + HOUR - 1 }]).await;
    assert_eq!(rolled_up(config, handlers, sql, &all).await, counts, "the present hour is not over");
}

/// Runs both, and compares.
async fn rolled_up(config: &Config, handlers: &Handlers, sql: &Sql, events: &[Event]) -> [Vec<Count>; 2] {
    let mut counts = [Vec::new(), Vec::new()];
    for (at, (task, table, start, length)) in [
        ("roll_up_hourly_events", "user_events_hourly", "hour", HOUR),
        ("roll_up_daily_events", "user_events_daily", "day", DAY),
    ]
    .into_iter()
    .enumerate()
    {
        let result = call(config, handlers, task, json!([])).await;
        assert_eq!(result["success"], true, "{result}");
        let start = match config.database.dialect() {
            Dialect::Sqlite => start.to_owned(),
            Dialect::Postgres => format!("to_char({start} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
        };
        let query = format!("SELECT {start} AS start, event_type, events, users FROM {table}");
        counts[at] = stored(execute(sql, config, &query, json!({})).await);
        assert_eq!(counts[at], expected(events, length), "{table}");
    }
    counts
}

fn stored(result: Value) -> Vec<Count> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    let rows = result["rows"].as_array().expect("rows");
    let count =
        |row: &Value| (text(&row["start"]), text(&row["event_type"]), number(&row["events"]), number(&row["users"]));
    let mut counts: Vec<Count> = rows.iter().map(count).collect();
    counts.sort();
    counts
}

/// Counted without a database: whole hours, or days, of UTC that are over.
fn expected(events: &[Event], length: u64) -> Vec<Count> {
    let mut groups: BTreeMap<(u64, &str), (u64, BTreeSet<usize>)> = BTreeMap::new();
    let over = clock::now().as_millis() / length * length;
    for event in events.iter().filter(|event| event.at < over) {
        let group = groups.entry((event.at / length * length, event.kind)).or_default();
        group.0 += 1;
        group.1.insert(event.user);
    }
    let count = |((start, kind), (events, users)): ((u64, &str), (u64, BTreeSet<usize>))| {
        (Timestamp::from_millis(start).to_string(), kind.to_owned(), events, users.len() as u64)
    };
    let mut counts: Vec<Count> = groups.into_iter().map(count).collect();
    counts.sort();
    counts
}

async fn statistics(config: &Config, handlers: &Handlers, sql: &Sql, dice: &mut Dice) {
    for table in ["likes", "comments", "follows", "posts"] {
        execute(sql, config, &format!("DELETE FROM {table}"), json!({})).await;
    }
    let owners: Vec<usize> = (0..40).map(|_| dice.below(USERS)).collect();
    for (post, owner) in owners.iter().enumerate() {
        let row = json!({"post": post + 1000, "owner": owner});
        execute(sql, config, "INSERT INTO posts (id, user_id) VALUES (:post, :owner)", row).await;
    }
    let mut pairs = |count: usize, below: usize| -> BTreeSet<(usize, usize)> {
        (0..count).map(|_| (dice.below(USERS), dice.below(below))).collect()
    };
    let (follows, likes, comments) = (pairs(25, USERS), pairs(120, owners.len()), pairs(90, owners.len()));
    for (pairs, shift, statement) in [
        (&follows, 0, "INSERT INTO follows (follower_id, followed_id) VALUES (:a, :b)"),
        (&likes, 1000, "INSERT INTO likes (user_id, post_id) VALUES (:a, :b)"),
        (&comments, 1000, "INSERT INTO comments (user_id, post_id) VALUES (:a, :b)"),
    ] {
        for (a, b) in pairs {
            execute(sql, config, statement, json!({"a": a, "b": b + shift})).await;
        }
    }
    for user in (0..USERS).chain(0..USERS) {
        let received = |of: &BTreeSet<(usize, usize)>| of.iter().filter(|(_, post)| owners[*post] == user).count();
        let stats = json!({
            "posts": owners.iter().filter(|owner| **owner == user).count(),
            "followers": follows.iter().filter(|(_, followed)| *followed == user).count(),
            "following": follows.iter().filter(|(follower, _)| *follower == user).count(),
            "likes_received": received(&likes),
            "comments_received": received(&comments),
        });
        let result = call(config, handlers, "aggregate_user_stats_job", json!([user])).await;
        assert_eq!(result, json!({"success": true, "user_id": user, "stats": stats}));
    }
    let rows = execute(sql, config, "SELECT user_id FROM user_stats", json!({})).await;
    assert_eq!(rows["affected"], USERS, "a second run makes no second row");
}

/// A job that runs again after it was done, which is what a lost answer to its COMMIT leads to.
async fn an_event_is_one_row(config: &Config, handlers: &Handlers, sql: &Sql) {
    execute(sql, config, "DELETE FROM user_events", json!({})).await;
    for _ in 0..2 {
        let outcome = run(config, handlers, "track_user_event_job", json!([1, "login"]), "the-same").await;
        assert_eq!(outcome, Outcome::Success(json!({"success": true})));
    }
    assert_eq!(execute(sql, config, "SELECT user_id FROM user_events", json!({})).await["affected"], 1);
}

async fn insert(sql: &Sql, config: &Config, events: &[Event]) {
    let text = "INSERT INTO user_events (user_id, event_type, created_at) VALUES (:user, :kind, :at)";
    for Event { user, kind, at } in events {
        let at = Timestamp::from_millis(*at).to_string();
        execute(sql, config, text, json!({"user": user, "kind": kind, "at": at})).await;
    }
}

async fn execute(sql: &Sql, config: &Config, text: &str, named: Value) -> Value {
    let statement = Statement::parse(text, config.database.dialect()).expect("a valid statement");
    sql.run(&[statement], &Named::args(named.as_object().expect("an object"))).await.expect("it runs")
}
