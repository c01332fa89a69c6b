//! The fifteen tasks of the application's modules, sent by its own producers, against the shipped jobsd.toml: each ends
//! well, with the result that the application expects, and leaves what it was for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bench::{Home, Jobs, Postgres, Python, Redis, one, shipped, until};

/// What the application's PostgreSQL holds, in its own types.
const TABLES: &str = "
    CREATE TABLE notifications (id serial PRIMARY KEY, user_id int NOT NULL, actor_id int, notification_type varchar(50),
        content text, related_id int, is_read boolean NOT NULL, created_at timestamptz NOT NULL);
    CREATE TABLE user_events (id serial PRIMARY KEY, job_id text UNIQUE, user_id int NOT NULL, event_type varchar(50),
        event_data jsonb, created_at timestamptz NOT NULL);
    CREATE TABLE posts (id serial PRIMARY KEY, user_id int NOT NULL);
    CREATE TABLE likes (user_id int, post_id int);
    CREATE TABLE comments (user_id int, post_id int);
    CREATE TABLE follows (follower_id int, followed_id int);
    CREATE TABLE user_stats (user_id int PRIMARY KEY, posts bigint, followers bigint, following bigint,
        likes_received bigint, comments_received bigint, updated_at timestamptz)";

/// User 1 has two posts, three likes on the first, a comment on the second, one follower, and follows nobody. Of the
/// notifications only the first is both read and old.
fn rows(old: &str, recent: &str) -> String {
    format!(
        "INSERT INTO posts (user_id) VALUES (1), (1);
         INSERT INTO likes (user_id, post_id) VALUES (2, 1), (3, 1), (4, 1);
         INSERT INTO comments (user_id, post_id) VALUES (2, 2);
         INSERT INTO follows (follower_id, followed_id) VALUES (2, 1);
         INSERT INTO notifications (user_id, notification_type, content, is_read, created_at) VALUES
            (9, 'old', 'read and old', TRUE, '{old}'), (9, 'old', 'unread', FALSE, '{old}'), (9, 'old', 'recent', TRUE, '{recent}')"
    )
}

fn statistics() -> Value {
    json!({"posts": 2, "followers": 1, "following": 0, "likes_received": 3, "comments_received": 1})
}

const OLD: &str = "2020-01-01T00:00:00Z";
/// Not older than ninety days for as long as anyone runs this.
const RECENT: &str = "2100-01-01T00:00:00Z";

#[test]
fn every_task_on_sqlite_and_outboxes() {
    let redis = Redis::start();
    let home = home(&redis);
    let clip = clip(&home);
    let _daemon = home.start();
    let python = Python::on(&redis.url());
    // The daemon makes the tables; after this job they are there.
    let none = one(python.produce(&["celery", "cleanup_old_notifications", "--get", "20"]));
    assert_eq!(none["result"], json!({"success": true, "deleted_count": 0}), "{none:#}");
    let database = rusqlite::Connection::open(home.path("state/app.sqlite")).expect("the SQLite file");
    database.busy_timeout(std::time::Duration::from_secs(10)).expect("a setting");
    database.execute_batch(&rows(OLD, RECENT)).expect("rows");

    let lines = python.produce(&["all", "--video", clip.to_str().expect("a plain path"), "--wait", "100"]);
    check_results(&lines);

    check_mails(&files(&home.path("state/outbox/email"), "eml"));
    check_pushes(&files(&home.path("state/outbox/push"), "json"));
    check_videos(&home.path("state/video/7"), &clip);
    let count = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).expect("the table is there") };
    assert_eq!(count("SELECT count(*) FROM notifications WHERE user_id = 1"), 5);
    assert_eq!(count("SELECT count(*) FROM notifications WHERE user_id = 9"), 2);
    assert_eq!(count("SELECT count(*) FROM notifications WHERE actor_id IS NOT NULL"), 4);
    assert_eq!(count("SELECT count(*) FROM user_events WHERE event_type = 'page_view'"), 1);
    assert_eq!(count("SELECT count(*) FROM user_stats WHERE user_id = 1 AND likes_received = 3"), 1);
    for queue in ["emails", "notifications", "analytics", "video_processing"] {
        assert_eq!(Jobs::of(&redis, queue).count("dead"), 0, "{queue}");
    }
    let health = one(python.produce(&["health"]));
    assert_eq!(health["queues"]["video_processing"], json!({"count": 0, "failed_count": 0, "started_count": 0}));
}

#[test]
fn the_tasks_of_the_database_on_postgresql() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    postgres.sql(TABLES);
    postgres.sql(&rows(OLD, RECENT));
    let home = home(&redis).with_env("DATABASE_URL", postgres.url());
    let _daemon = home.start();
    let python = Python::on(&redis.url());

    let lines = python.produce(&["all", "--video", "/nowhere.mp4"]);
    assert_eq!(lines.len(), 15);
    Jobs::of(&redis, "notifications").until("completed", 5);
    Jobs::of(&redis, "analytics").until("completed", 2);
    let cleanup = lines.iter().find(|line| line["task"] == "cleanup_old_notifications").expect("it was sent");
    let history = Jobs::of(&redis, "emails").ended(cleanup["id"].as_str().expect("an id"), "completed");
    assert_eq!(history["end"]["result"], json!({"success": true, "deleted_count": 1}));
    let stats = one(python.produce(&["app", "analytics", "aggregate_user_stats_job", "[1]", "--wait", "20"]));
    assert_eq!(stats["return_value"]["stats"], statistics(), "{stats:#}");

    let kinds =
        "SELECT string_agg(notification_type, ' ' ORDER BY notification_type) FROM notifications WHERE user_id = 1";
    assert_eq!(postgres.sql(kinds), "comment follow like message welcome");
    assert_eq!(postgres.sql("SELECT count(*) FROM notifications WHERE user_id = 9"), "2");
    assert_eq!(postgres.sql("SELECT event_data->>'page' FROM user_events"), "/jobs");
    assert_eq!(
        postgres.sql("SELECT count(*) FROM notifications WHERE user_id = 1 AND now() - created_at < '1 hour'"),
        "5"
    );
}

fn home(redis: &Redis) -> Home {
    Home::with_whole(shipped(&[("#preset = \"veryfast\"", "preset = \"ultrafast\"")]))
        .with_env("REDIS_URL", redis.url())
        .with_env("BASE_URL", "https://hireme.test")
        .with_env("MEDIA_URL", "https://media.test")
}

/// Two seconds of picture and sound in the folder that the daemon may read.
fn clip(home: &Home) -> PathBuf {
    let folder = home.path("state/uploads");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("clip.mp4");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=2"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])
        .arg(&path)
        .status()
        .expect("ffmpeg starts");
    assert!(made.success());
    path
}

fn check_results(lines: &[Value]) {
    assert_eq!(lines.len(), 15);
    for line in lines {
        let (ended, result) = match line["wire"].as_str() {
            Some("celery") => (line["state"] == "SUCCESS", &line["result"]),
            _ => (line["status"] == "finished", &line["return_value"]),
        };
        assert!(ended && result["success"] == true, "{line:#}");
        match line["task"].as_str().expect("a task") {
            "cleanup_old_notifications" => assert_eq!(*result, json!({"success": true, "deleted_count": 1})),
            "track_user_event_job" => assert_eq!(*result, json!({"success": true})),
            "aggregate_user_stats_job" => {
                assert_eq!(*result, json!({"success": true, "user_id": 1, "stats": statistics()}));
            }
            "process_video_job" => check_video_result(result),
            "generate_video_thumbnail_job" => {
                assert_eq!((&result["video_id"], result["thumbnail"].is_string()), (&json!(7), true), "{result:#}");
            }
            task if task.ends_with("_notification_job") => assert_eq!(*result, json!({"success": true, "sent": 1})),
            task => assert!(result["message_id"].as_str().is_some_and(|id| id.contains('@')), "{task}: {result:#}"),
        }
    }
}

fn check_video_result(result: &Value) {
    let keys: Vec<_> = result.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["success", "video_id", "outputs", "processed_at"]);
    assert_eq!(result["video_id"], 7);
    let outputs = result["outputs"].as_object().expect("an object");
    let mut names: Vec<_> = outputs.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["480p", "720p", "thumbnail"]);
    let urls = outputs.values().map(|url| url.as_str().unwrap_or_default());
    assert!(urls.into_iter().all(|url| url.starts_with("https://media.test/7/")), "{outputs:#?}");
}

fn check_mails(mails: &[PathBuf]) {
    assert_eq!(mails.len(), 5, "one file a mail: {mails:?}");
    let mails: Vec<String> = mails.iter().map(|path| fs::read_to_string(path).expect("a mail is text")).collect();
    for mail in &mails {
        assert!(mail.contains("Content-Type: text/html") && mail.contains("Content-Type: text/plain"), "{mail}");
    }
    // Lines of a mail are wrapped and escaped, so whole links are looked for in what its reader sees.
    let text = mails.concat().replace("=\r\n", "").replace("=3D", "=");
    for words in [
        "Subject: Hello",
        "Subject: Welcome to HireMeBahamas, Ann!",
        "Subject: New application for Diver",
        "Subject: New message from Cy",
        "Subject: Reset your HireMeBahamas password",
        "https://hireme.test/jobs/7",
        "https://hireme.test/reset-password?token=s3cret-token",
        "See you at the harbour.",
    ] {
        assert!(text.contains(words), "no mail says {words:?}");
    }
}

fn check_pushes(pushes: &[PathBuf]) {
    assert_eq!(pushes.len(), 5, "one file a push: {pushes:?}");
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a push is text");
    let mut kinds: Vec<String> = pushes
        .iter()
        .map(|path| serde_json::from_str::<Value>(&read(path)).expect("a push is JSON"))
        .map(|push| push["message"]["data"]["notification_type"].as_str().unwrap_or("none").to_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["comment", "follow", "like", "message", "welcome"]);
}

/// Playable, of the right size, in H.264 and AAC, as long as the clip within one frame; and a picture.
fn check_videos(folder: &Path, clip: &Path) {
    let whole = duration(clip);
    for height in [720, 480] {
        let path = folder.join(format!("{height}p.mp4"));
        let facts = probe(&path);
        let streams = facts["streams"].as_array().expect("streams");
        let codec = |kind: &str| streams.iter().find(|s| s["codec_type"] == kind).map(|s| s["codec_name"].clone());
        assert_eq!((codec("video"), codec("audio")), (Some(json!("h264")), Some(json!("aac"))), "{facts:#}");
        assert!(streams.iter().any(|stream| stream["height"] == height), "{facts:#}");
        let length = duration(&path);
        assert!((length - whole).abs() <= 1.0 / 30.0 + 0.001, "{length} s instead of {whole} s");
    }
    let pictures = files(folder, "jpg");
    assert_eq!(pictures.len(), 1, "{pictures:?}");
    assert_eq!(probe(&pictures[0])["streams"][0]["codec_name"], "mjpeg");
    let leftovers: Vec<_> =
        fs::read_dir(folder).expect("the folder").filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    assert_eq!(leftovers.len(), 3, "something else is left: {leftovers:?}");
}

fn duration(path: &Path) -> f64 {
    probe(path)["format"]["duration"].as_str().and_then(|text| text.parse().ok()).expect("a duration")
}

fn probe(path: &Path) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_format", "-of", "json"])
        .arg(path)
        .output()
        .expect("ffprobe (Debian package ffmpeg) starts");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON")
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = until(folder.display(), || fs::read_dir(folder).ok());
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}
