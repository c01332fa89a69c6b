//! What a job says while it runs can be read at once, on every node, and after its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, get_with, until};

/// `talk` says something, waits until the file `open` is there, and fails at its first attempt.
const CONFIG: &str = "[queues.work]\nconcurrency = 4\n\
    [tasks.talk]\nqueue = \"work\"\nparams = { password = \"string\" }\nretry = { limit = 1, delay = \"1s\" }\n\
    exec = { program = \"/bin/sh\", args = [\"talk.sh\", \"{{ password }}\"] }\n\
    [tasks.chatter]\nqueue = \"work\"\nexec = { program = \"/bin/sh\", args = [\"-c\", 'i=0; while ! [ -e open ]; do i=$((i+1)); echo line $i >&2; done; echo last >&2'] }\n\
    [tasks.steps]\nqueue = \"work\"\nparams = { seconds = \"number\", report = \"int\" }\nsteps = [{ probe = \"noop\" }, { probe = \"sleep\" }]\n\
    [tasks.quiet]\nqueue = \"work\"\nprobe = \"noop\"\n";

const TALK: &str = "echo '{\"jobsd\": {\"progress\": 40, \"message\": \"halfway\"}}'\n\
    echo the password is \"$1\"\necho a warning\n\
    while ! [ -e open ]; do sleep 0.05; done\n\
    if [ \"$JOBSD_ATTEMPT\" = 1 ]; then echo giving up >&2; exit 1; fi\n\
    echo '{\"jobsd\": {\"progress\": 100}}'\n";

fn open(home: &Home) {
    std::fs::write(home.path("open"), "").expect("it can be written");
}

fn shown(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

/// A stream of events that is read as it comes.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn of(address: SocketAddr, id: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the port is open");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        write!(stream, "GET /api/v1/jobs/{id}/events HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("it is read");
        Self(BufReader::new(stream))
    }

    /// The next event, its id and its data.
    fn next(&mut self) -> (String, String, Value) {
        let (mut name, mut id) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("it goes on"), 0, "the stream ended");
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim().to_owned();
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (name, id, serde_json::from_str(text).expect("JSON"));
            }
        }
    }

    /// The next event of this name.
    fn until(&mut self, wanted: &str) -> (String, Value) {
        loop {
            let (name, id, data) = self.next();
            if name == wanted {
                return (id, data);
            }
            assert_ne!(name, "end", "no {wanted} came: {data}");
        }
    }
}

#[test]
fn a_running_job_is_heard_on_every_node_and_what_it_said_stays() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    std::fs::write(home.path("talk.sh"), TALK).expect("it can be written");
    let daemon = home.start();
    let other_home =
        Home::new(&redis, "[queues.work]\nconcurrency = 1\n[tasks.talk]\nqueue = \"work\"\nprobe = \"noop\"\n");
    let other = other_home.start();
    // It is not to run there.
    let nodes = get(other.admin, "/api/v1/nodes").json();
    let this = nodes["nodes"].as_array().expect("nodes").iter().find(|node| node["this"] == true).cloned();
    let this = this.expect("it is on the list")["node"].as_str().expect("a name").to_owned();
    other_home.type_to(&other, &["drain", "--node", &this]).well();

    let id = home.enqueue(&daemon, &["talk", "password=hunter-two"]);
    let mut follower = Follower::of(other.admin, &id);
    let (_, progress) = follower.until("progress");
    assert_eq!((&progress["percent"], &progress["message"]), (&json!(40), &json!("halfway")));
    let (first, line) = follower.until("line");
    assert_eq!((&*first, &line["text"], &line["source"]), ("1", &json!("the password is ***"), &json!("stdout")));
    assert_eq!(follower.until("line").1["text"], "a warning");
    let running = shown(&daemon, &id);
    assert_eq!((&running["state"], &running["progress"]["percent"]), (&json!("active"), &json!(40)), "{running}");
    let why = home.type_to(&daemon, &["why", &id]).well().out;
    assert!(why.starts_with("running: attempt 1 on "), "{why}");

    // The first attempt fails, the second one goes on below it.
    open(&home);
    assert_eq!(follower.until("line").1["text"], "giving up");
    let second = follower.until("line").1;
    assert_eq!((&second["attempt"], &second["number"]), (&json!(2), &json!(4)));
    let (last, end) = follower.until("end");
    assert_eq!((&*last, &end["state"], &end["attempt"]), ("5.end", &json!("completed"), &json!(2)));
    let mut rest = String::new();
    follower.0.read_to_string(&mut rest).expect("it ends");
    assert_eq!(rest.trim(), "", "nothing follows the end");

    let done = shown(&daemon, &id);
    assert_eq!((&done["progress"]["percent"], &done["log"][1]["lines"][1]["text"]), (&json!(100), &json!("a warning")));
    let log = get(other.admin, &format!("/api/v1/jobs/{id}/log")).body;
    let texts: Vec<&str> = log.lines().filter(|line| !line.starts_with("── attempt ")).collect();
    assert_eq!(
        texts,
        ["the password is ***", "a warning", "giving up", "the password is ***", "a warning"],
        "the last words of a failed attempt are there: {log}"
    );
    assert!(!redis_holds(&redis, "hunter-two", "notes"));
    assert_eq!(home.type_to(&daemon, &["log", &id]).well().out, log);

    // Whoever comes back goes on where he was; whoever has seen the end is told that there is nothing more.
    let path = format!("/api/v1/jobs/{id}/events");
    let back = get_with(other.admin, &path, "Last-Event-ID: 4\r\n").body;
    assert_eq!((back.matches("event: line").count(), back.contains("id: 5\n")), (1, true), "{back}");
    assert_eq!(get_with(other.admin, &path, "Last-Event-ID: 5.end\r\n").status, 204);
    assert_eq!(get(other.admin, "/api/v1/jobs/nobody/events").status, 404);
    let followed = home.type_to(&daemon, &["job", &id, "--follow"]).well().out;
    assert!(followed.contains("  | giving up\n") && followed.ends_with("completed\n"), "{followed}");
    let followed = home.type_to(&daemon, &["log", &id, "--follow"]).well().out;
    assert_eq!(followed.lines().collect::<Vec<_>>(), texts);
}

fn redis_holds(redis: &Redis, text: &str, what: &str) -> bool {
    use redis::Commands as _;
    let values: Vec<String> = redis.client().hvals(Jobs::of(redis, "work").key(what)).expect("Redis answers");
    assert!(!values.is_empty(), "nothing was written");
    values.iter().any(|value| value.contains(text))
}

#[test]
fn however_much_a_program_says_only_its_end_is_kept_at_little_cost() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let scripts = || -> u64 {
        let info: String = redis::cmd("INFO").arg("commandstats").query(&mut redis.client()).expect("Redis answers");
        let calls =
            info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    };
    let before = scripts();
    let began = std::time::Instant::now();
    let id = home.enqueue(&daemon, &["chatter"]);
    let lines = |job: &Value| job["log"][0]["lines"].as_array().map_or(0, Vec::len) as u64;
    until("it to have said a lot", || (shown(&daemon, &id)["log"][0]["left_out"].as_u64()? > 20_000).then_some(()));
    open(&home);
    until("its end", || (shown(&daemon, &id)["state"] == "completed").then_some(()));
    let (seconds, calls) = (began.elapsed().as_secs() + 1, scripts() - before);
    // The node's own life costs some too.
    assert!(calls < 30 + 15 * seconds, "{calls} scripts were called in {seconds} s");
    let job = shown(&daemon, &id);
    assert!(lines(&job) <= 200, "{job}");
    let log = get(daemon.admin, &format!("/api/v1/jobs/{id}/log")).body;
    assert!(log.ends_with("\nlast\n") && log.contains(" lines left out\n"), "{log}");
    // Numbers go on behind what is left out.
    let events = get(daemon.admin, &format!("/api/v1/jobs/{id}/events")).body;
    let numbers: Vec<u64> = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok()?["number"].as_u64())
        .collect();
    let left_out = job["log"][0]["left_out"].as_u64().expect("many");
    assert_eq!((numbers.len() as u64, numbers[0]), (lines(&job), left_out + 1));
    // Somebody who says nothing leaves nothing.
    let quiet = home.enqueue(&daemon, &["quiet", "--wait"]);
    let quiet: Value = shown(&daemon, quiet.lines().next().expect("an id").split_whitespace().next().expect("an id"));
    assert_eq!((quiet.get("log"), quiet.get("progress")), (None, None));
}

#[test]
fn a_task_of_several_steps_says_which_one_it_is_at() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let id = home.enqueue(&daemon, &["steps", "seconds=3", "report=2"]);
    let progress = until("its second step", || {
        let progress = shown(&daemon, &id)["progress"].clone();
        (progress["step"] == 2 && progress["percent"] == 50).then_some(progress)
    });
    assert_eq!((&progress["steps"], &progress["message"]), (&json!(2), &json!("1 of 2")));
    let followed = home.type_to(&daemon, &["job", &id, "--follow"]).well().out;
    assert!(followed.contains("step 2 of 2, 100 %, 2 of 2\n"), "{followed}");
    assert!(home.type_to(&daemon, &["job", &id]).well().out.contains("progress  step 2 of 2, 100 %"));
}

#[test]
fn a_follower_does_not_hold_up_the_end_of_the_daemon() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    home.type_to(&daemon, &["pause", "work"]).well();
    let id = home.enqueue(&daemon, &["quiet"]);
    let mut follower = Follower::of(daemon.admin, &id);
    assert_eq!(follower.until("state").1["state"], "pending");
    // Cancelled by somebody else, in Redis.
    home.type_to(&daemon, &["cancel", &id]).well();
    assert_eq!(follower.until("end").1["state"], "cancelled");
    let waiting = home.enqueue(&daemon, &["quiet"]);
    let mut follower = Follower::of(daemon.admin, &waiting);
    follower.until("state");
    assert!(daemon.stop().success());
    let mut rest = String::new();
    let _ = follower.0.read_to_string(&mut rest);
    assert!(!rest.contains("event: end"), "{rest}");
}
