//! `jobsd demo` as a user runs it: the real binary, and everything that it says it has made is looked at with other
//! programs: mails with Python's mail parser, rows with its SQLite, videos with ffprobe and ffmpeg.

mod run;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use run::{Demo, processes_naming, python, tool};
use serde_json::{Value, json};

#[test]
fn once_leaves_every_artefact_and_no_process() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().canonicalize().expect("it is there").join("demo");
    let mut demo = Demo::start(&["--once", "--dir", plain(&folder)]);
    demo.until("a private Redis runs", |_| processes_naming(&folder).iter().any(|line| line.contains("redis-server")));
    let ended = demo.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert_eq!(processes_naming(&folder), Vec::<String>::new(), "nothing of it runs any more");

    check_printed_paths(&ended.stdout, &folder);
    let token = check_mails(&folder.join("outbox/email"));
    check_rows(&folder.join("app.sqlite"));
    check_videos(&folder);
    assert_eq!(fs::read_dir(folder.join("outbox/push")).expect("the folder").count(), 1);
    let log = fs::read_to_string(folder.join("jobsd.log")).expect("the log is there");
    assert!(log.contains("stopped"), "it stopped in order: {log}");
    assert!(!log.contains(&token) && !ended.stdout.contains(&token), "the reset token is a secret");
    assert!(ended.stdout.contains(r#""processed_at":"2"#), "{}", ended.stdout);
    let (summary, states) =
        (ended.stdout.contains("8 jobs done: 5 mails"), ended.stdout.matches("Celery  SUCCESS").count());
    assert!(summary && states == 5, "{}", ended.stdout);
}

#[test]
fn without_once_the_admin_port_stays_up_until_it_is_interrupted() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().canonicalize().expect("it is there").join("demo");
    let mut demo = Demo::start(&["--dir", plain(&folder)]);
    demo.until("it says how to end it", |said| said.contains("Ctrl-C ends it"));
    let said = demo.said();
    let address =
        said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("the address of the admin port");
    let mut connection = TcpStream::connect(address).expect("the admin port is up");
    connection
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\nUser-Agent: curl/8\r\n\r\n")
        .expect("it takes a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("video_processing"), "{answer}");
    demo.interrupt();
    let ended = demo.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.contains("Stopped."), "{}", ended.stdout);
    assert_eq!(processes_naming(&folder), Vec::<String>::new());
}

#[test]
fn a_job_that_fails_ends_it_with_the_reason() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().canonicalize().expect("it is there").join("demo");
    // Without its helper beside it, jobsd has nothing to make videos with.
    let alone = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the same file system");
    let jobsd = alone.path().join("jobsd");
    fs::hard_link(env!("CARGO_BIN_EXE_jobsd"), &jobsd).expect("a second name for jobsd");
    let mut command = Command::new(&jobsd);
    command.args(["demo", "--once", "--dir", plain(&folder)]);
    let ended = Demo::start_command(command).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    for word in ["failed to finish the job process_video_job", "jobsd-video", plain(&folder.join("jobsd.log"))] {
        assert!(ended.stderr.contains(word), "no {word} in: {}", ended.stderr);
    }
    assert_eq!(processes_naming(&folder), Vec::<String>::new());
}

#[test]
fn somebody_elses_folder_is_left_alone() {
    let home = tempfile::tempdir().expect("a temporary folder");
    fs::write(home.path().join("letter.txt"), "Dear Ann").expect("a file of somebody's");
    let ended = Demo::start(&["--once", "--dir", plain(home.path())]).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("it holds files that no demo has made"), "{}", ended.stderr);
    assert_eq!(fs::read_dir(home.path()).expect("the folder").count(), 1);
}

/// Every path that the report names is there.
#[track_caller]
fn check_printed_paths(stdout: &str, folder: &Path) {
    let words = stdout.split_whitespace().map(|word| word.trim_end_matches(','));
    let paths: Vec<&str> = words.filter(|word| word.starts_with(plain(folder))).collect();
    // The database, the log, the clip, five mails, the push message, two videos and the picture.
    assert!(paths.len() >= 12, "{stdout}");
    for path in paths {
        assert!(Path::new(path).exists(), "{path} was printed and is not there");
    }
}

/// One mail per mail task, each complete. Returns the token in the link of the password mail.
#[track_caller]
fn check_mails(outbox: &Path) -> String {
    let mails = python(
        "import email, email.policy, html, json, pathlib, sys\n\
         def read(path):\n\
         \x20   mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)\n\
         \x20   parts = {part.get_content_type(): html.unescape(part.get_content()) for part in mail.walk() if not part.is_multipart()}\n\
         \x20   return [mail['Subject'], {'to': mail['To'], 'from': mail['From'], 'id': mail['Message-ID'],\n\
         \x20           'date': mail['Date'], 'type': mail.get_content_type(), 'defects': len(mail.defects), 'parts': parts}]\n\
         print(json.dumps(dict(read(path) for path in pathlib.Path(sys.argv[1]).iterdir())))",
        &[plain(outbox)],
    );
    let mails: BTreeMap<String, Value> = serde_json::from_value(mails).expect("mails by their subject");
    let expected = [
        ("Your weekly summary", "keisha@example.com", "Three jobs match your profile."),
        ("Welcome to HireMeBahamas, Keisha Rolle!", "keisha@example.com", "keisha"),
        ("New application for Front desk agent", "hiring@example.com", "/jobs/42"),
        ("New message from Marcus Bethel", "keisha@example.com", "on Tuesday at ten?"),
        ("Reset your HireMeBahamas password", "keisha@example.com", "/reset-password?token="),
    ];
    assert_eq!(fs::read_dir(outbox).expect("the outbox").count(), expected.len());
    for (subject, to, words) in expected {
        let mail = mails.get(subject).unwrap_or_else(|| panic!("no mail `{subject}`: {:?}", mails.keys()));
        assert_eq!((mail["to"].as_str(), mail["type"].as_str()), (Some(to), Some("multipart/alternative")), "{mail:#}");
        assert!(mail["from"].as_str().is_some_and(|from| from.contains("hiremebahamas.com")), "{mail:#}");
        assert!(mail["id"].is_string() && mail["date"].is_string() && mail["defects"] == 0, "{mail:#}");
        for part in ["text/plain", "text/html"] {
            assert!(
                mail["parts"][part].as_str().is_some_and(|text| text.contains(words)),
                "no {words} in {part}: {mail:#}"
            );
        }
    }
    let text = mails["Reset your HireMeBahamas password"]["parts"]["text/plain"].as_str().expect("a text");
    let token: String =
        text.split("token=").nth(1).expect("a link").chars().take_while(|c| c.is_ascii_hexdigit()).collect();
    assert_eq!(token.len(), 32, "{text}");
    token
}

#[track_caller]
fn check_rows(database: &Path) {
    let rows = python(
        "import json, sqlite3, sys\n\
         base = sqlite3.connect(sys.argv[1])\n\
         ask = lambda query: [list(row) for row in base.execute(query)]\n\
         print(json.dumps([\n\
         \x20   ask('SELECT id, user_id, notification_type, content, is_read FROM notifications'),\n\
         \x20   ask('SELECT id, user_id, event_type, event_data FROM user_events')]))",
        &[plain(database)],
    );
    assert_eq!(rows[0], json!([[1, 7, "follow", "Marcus Bethel started following you", 0]]));
    let event = rows[1][0].as_array().expect("one event");
    assert_eq!(
        (rows[1].as_array().map(Vec::len), &event[..3]),
        (Some(1), &[json!(1), json!(7), json!("job_viewed")][..])
    );
    let data: Value = serde_json::from_str(event[3].as_str().expect("a text")).expect("JSON");
    assert_eq!(data, json!({"job_id": 42, "from": "search"}));
}

#[track_caller]
fn check_videos(folder: &Path) {
    const FRAME: f64 = 1.0 / 30.0;
    let (length, _) = probed(&folder.join("uploads/clip.mp4"));
    assert!((length - 3.0).abs() <= FRAME, "the clip has {length} s");
    for (name, height) in [("720p.mp4", 720), ("480p.mp4", 480)] {
        let path = folder.join("video/31").join(name);
        let (seconds, streams) = probed(&path);
        assert!((seconds - length).abs() <= FRAME, "{name}: {seconds} s instead of {length} s");
        let of =
            |kind: &str| streams.iter().find(|stream| stream["codec_type"] == kind).expect("a stream of this kind");
        assert_eq!(
            (of("video")["codec_name"].as_str(), of("video")["height"].as_u64()),
            (Some("h264"), Some(height)),
            "{name}"
        );
        assert_eq!(of("audio")["codec_name"], "aac", "{name}");
        let (_, complaints) = tool("ffmpeg", &["-v", "error", "-i", plain(&path), "-f", "null", "-"]);
        assert_eq!(complaints, "", "{name} plays to its end");
    }
    let picture = folder.join("video/31/thumbnail.jpg");
    assert!(fs::read(&picture).expect("the thumbnail").starts_with(&[0xff, 0xd8, 0xff]), "it is a JPEG");
    let (_, streams) = probed(&picture);
    assert_eq!((streams[0]["codec_name"].as_str(), streams[0]["height"].as_u64()), (Some("mjpeg"), Some(720)));
}

/// Playing time in seconds, and the streams.
#[track_caller]
fn probed(path: &Path) -> (f64, Vec<Value>) {
    let (text, _) = tool("ffprobe", &["-v", "error", "-show_streams", "-show_format", "-of", "json", plain(path)]);
    let facts: Value = serde_json::from_str(&text).expect("ffprobe writes JSON");
    let seconds = facts["format"]["duration"].as_str().map_or(Ok(0.0), str::parse).expect("a number");
    (seconds, facts["streams"].as_array().cloned().unwrap_or_default())
}

#[track_caller]
fn plain(path: &Path) -> &str {
    path.to_str().expect("a path of plain characters")
}
