//! The roll-ups of the shipped file on a PostgreSQL in which nobody has made their tables: one dead job of each says so,
//! its schedule adds no more, and once the tables are there it is retried and all goes on.

use std::time::{Duration, SystemTime};

use redis::Commands;

use crate::bench::{Home, Jobs, Postgres, Redis, post, shipped, until, until_within};

#[test]
fn a_missing_table_is_one_dead_job_and_not_one_each_hour() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let home = Home::with_whole(shipped(&[("cron = \"5 * * * *\"", "cron = \"* * * * *\"")]))
        .with_env("REDIS_URL", redis.url())
        .with_env("DATABASE_URL", postgres.url());
    let (mut jobs, mut client) = (Jobs::of(&redis, "analytics"), redis.client());
    // As if it had last fired three minutes ago: that is caught up at once, and the next one comes within a minute.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    client
        .hset::<_, _, _, ()>(jobs.key("fires"), "roll-up-hourly-events", (now / 60 - 3) * 60_000)
        .expect("Redis takes it");
    let daemon = home.start();
    let (cause, message) = jobs.only_dead();
    assert_eq!(cause, "not-retryable");
    assert!(
        message.contains("relation \"user_events_hourly\" does not exist")
            && message.contains("the README, \"Analytics\""),
        "{message}"
    );
    let dead = jobs.ids("dead");
    until_within(Duration::from_secs(90), "a fire to be left out", || {
        daemon.log().contains("left out: its unique key is held by").then_some(())
    });
    assert_eq!(jobs.ids("dead"), dead);

    let readme = include_str!("../../README.md");
    let (_, behind) = readme.split_once("```sql\n").expect("the README's tables");
    postgres.sql(behind.split_once("```").expect("the block ends").0);
    postgres.sql(
        "INSERT INTO user_events (user_id, event_type, created_at) SELECT n % 3, 'login', now() - interval '2 hours' \
         FROM generate_series(1, 7) AS n",
    );
    let retried = post(daemon.admin, "/api/v1/jobs/retry", &serde_json::json!({"state": "dead", "queue": "analytics"}));
    assert_eq!(retried.status, 200, "{retried:?}");
    jobs.ended(&dead[0], "completed");
    assert_eq!(postgres.sql("SELECT sum(events), max(users) FROM user_events_hourly"), "7|3");
    until_within(Duration::from_secs(90), "the next fire to be done", || (jobs.count("completed") == 2).then_some(()));
    until("nothing to be dead", || (jobs.count("dead") == 0).then_some(()));
}
