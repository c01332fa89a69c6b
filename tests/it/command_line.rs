//! What is typed: arguments by name, verbs by id and by filter, tables, and exit codes.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis};

/// `exit` ends with the code that it is given; there are no retries.
const CONFIG: &str = "[queues.work]\nretry = false\n\
    [tasks.exit]\nqueue = \"work\"\nparams = { code = \"int\", reset_token = { type = \"string?\", secret = true } }\n\
    exec = { program = \"/bin/sh\", args = [\"-c\", 'exit $1', \"exit\", \"{{ code }}\"] }\n\
    [tasks.echo]\nqueue = \"work\"\nparams = { n = \"int\", name = \"string\", tags = \"array?\" }\nprobe = \"echo\"\n";

fn result(home: &Home, daemon: &Daemon, args: &[&str], input: &str) -> Value {
    let url = format!("http://{}", daemon.admin);
    let said = home.type_with(&[&["enqueue"], args, &["--wait", "--json"]].concat(), &[("JOBSD_URL", &url)], input);
    said.well().json()["end"]["result"]["args"].clone()
}

#[test]
fn arguments_have_the_types_of_the_task() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let expected = json!({"n": 5, "name": "5", "tags": null});
    assert_eq!(result(&home, &daemon, &["echo", "n=5", "name=5"], ""), expected);
    let tagged = json!({"n": -5, "name": "a=b", "tags": ["x", 1]});
    assert_eq!(result(&home, &daemon, &["echo", "n=-5", "name=a=b", r#"tags=["x", 1]"#], ""), tagged);
    fs::write(home.path("args.json"), r#"{"n": 5, "name": "5"}"#).expect("it can be written");
    let url = format!("http://{}", daemon.admin);
    for (args, input) in [(r#"{"n": 5, "name": "5"}"#, ""), ("@args.json", ""), ("-", r#"[5, "5"]"#)] {
        let said = home.type_with(&["enqueue", "echo", "--wait", "--json", args], &[("JOBSD_URL", &url)], input);
        assert_eq!(said.well().json()["end"]["result"]["args"], expected, "{args}");
    }
    for args in [["--json", "echo", "n=5", "name=5", "--wait"], ["echo", "--wait", "--json", "n=5", "name=5"]] {
        let said = home.type_to(&daemon, &[&["enqueue"], &args[..]].concat()).well();
        assert_eq!(said.json()["end"]["result"]["args"], expected, "{args:?}");
    }
    for (args, code, words) in [
        (vec!["echo", "n=five", "name=x"], 2, "n is of the type int, which \"five\" does not fit"),
        (vec!["echo", "n"], 2, "\"n\" is no argument; write it as KEY=VALUE"),
        (vec!["echo", "n=5", "--json", "{}"], 2, "not both"),
        (vec!["echo", "--json", "{"], 2, "cannot be read as JSON"),
        (vec!["echo", "--json", "@nowhere"], 2, "cannot read nowhere"),
        (vec!["echo", "n=5", "nam=x"], 1, "unexpected keyword argument 'nam'"),
        (vec!["ecko", "n=5"], 1, "did you mean \"echo\"?"),
        (vec!["echo", "n=5", "name=x", "--in", "soon"], 1, "is not a duration"),
        (vec!["echo", "n=5", "name=x", "--priority", "-10"], 1, "\"priority\" must be a whole number"),
        (vec!["echo", "n=5", "name=x", "--in", "1m", "--at", "2030-01-01T00:00:00Z"], 2, "cannot be used with"),
    ] {
        let said = home.type_to(&daemon, &[&["enqueue"], &args[..]].concat());
        assert_eq!((said.code, said.err.contains(words)), (code, true), "{args:?}: {said:?}");
    }
    let mut jobs = Jobs::of(&redis, "work");
    assert_eq!(jobs.count("jobs"), 7, "nothing else was enqueued");
    jobs.until("completed", 7);
    let failed = home.type_to(&daemon, &["enqueue", "exit", "code=3", "--wait"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.out.contains("state     dead"), "{failed:?}");
}

#[test]
fn the_dead_are_retried_edited_and_deleted() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let ids: Vec<String> =
        (0..6).map(|_| home.enqueue(&daemon, &["exit", "code=3", "reset_token=s3cret-token"])).collect();
    jobs.until("dead", 6);
    // With other arguments, the secret as it was shown.
    let args = r#"{"code": 0, "reset_token": "***"}"#;
    let said = home.type_to(&daemon, &["retry", &ids[0], "--args", args]).well();
    assert_eq!(said.out, format!("{} retried\n", ids[0]));
    jobs.until("completed", 1);
    let mut client = redis.client();
    let record: String = redis::Commands::hget(&mut client, jobs.key("jobs"), &ids[0]).expect("Redis answers");
    assert!(record.contains("s3cret-token") && record.contains("\"code\":0"), "{record}");
    let wrong = home.type_to(&daemon, &["retry", &ids[1], "--args", r#"{"code": "x"}"#]);
    assert_eq!((wrong.code, wrong.err.contains("'code' must be an integer")), (1, true), "{wrong:?}");

    let listed = home.type_to(&daemon, &["jobs", "--state", "dead"]).well().out;
    assert_eq!(listed.lines().count(), 6, "{listed}");
    assert!(!listed.contains("s3cret") && listed.contains(&ids[1]), "{listed}");
    let page = home.type_to(&daemon, &["jobs", "--state", "dead", "--limit", "2", "--json"]).well().json();
    assert_eq!(page["jobs"].as_array().map(Vec::len), Some(2));
    assert!(page["next"].is_string());

    let dry = home.type_to(&daemon, &["retry", "--state", "dead", "--task", "exit", "--dry-run"]).well();
    assert_eq!(dry.out, "5 jobs match; nothing was changed\n");
    assert_eq!(home.type_to(&daemon, &["retry", "--state", "dead", "--limit", "3"]).well().out, "3 retried\n");
    until_settled(&mut jobs, 5);
    let asked = home.type_to(&daemon, &["delete", "--state", "dead"]);
    assert_eq!((asked.code, asked.err.contains("Delete 5 jobs for good?")), (2, true), "{asked:?}");
    assert_eq!(home.type_to(&daemon, &["delete", &ids[1]]).well().out, format!("{} deleted\n", ids[1]));
    assert_eq!(home.type_to(&daemon, &["delete", "--state", "dead", "--yes"]).well().out, "4 deleted\n");
    assert_eq!((jobs.count("dead"), jobs.count("completed"), jobs.count("jobs")), (0, 1, 1));
    // Of several, those that can be done are.
    let mixed = home.type_to(&daemon, &["retry", &ids[1], &ids[0]]);
    assert_eq!((mixed.code, mixed.out.as_str()), (1, format!("{} retried\n", ids[0]).as_str()), "{mixed:?}");
    assert!(mixed.err.contains("no job has this id"), "{mixed:?}");
    let later = home.enqueue(&daemon, &["exit", "code=0", "--in", "1h"]);
    assert_eq!(home.type_to(&daemon, &["promote", &later]).well().out, format!("{later} promoted\n"));
    jobs.ended(&later, "completed");
}

/// Those that were retried are dead again.
#[track_caller]
fn until_settled(jobs: &mut Jobs, dead: usize) {
    crate::bench::until("them to be dead again", || {
        (jobs.count("dead") == dead && jobs.count("pending") + jobs.count("active") == 0).then_some(())
    });
}

#[test]
fn exit_codes_say_whose_mistake_it_was() {
    let redis = Redis::start();
    let token = "admin-token-of-the-test";
    let home = Home::new(&redis, &format!("admin.token = \"{token}\"\n{CONFIG}"));
    let daemon = home.start();
    let url = format!("http://{}", daemon.admin);
    let typed = |args: &[&str], environment: &[(&str, &str)]| home.type_with(args, environment, "");

    let refused = typed(&["queues"], &[("JOBSD_URL", &url)]);
    assert_eq!((refused.code, refused.err.contains("--token, JOBSD_TOKEN")), (1, true), "{refused:?}");
    let queues = typed(&["queues"], &[("JOBSD_URL", &url), ("JOBSD_TOKEN", token)]).well();
    assert!(queues.out.starts_with("QUEUE  STATE"), "{queues:?}");
    typed(&["queues", "--url", &url, "--token", token], &[]).well();
    // This configuration leaves the port to the system.
    let no_port = typed(&["queues"], &[]);
    assert_eq!((no_port.code, no_port.err.contains("give the daemon's address with --url")), (78, true), "{no_port:?}");
    // Address and token from the configuration.
    let text = fs::read_to_string(home.config()).expect("it is there");
    fs::write(home.path("fixed.toml"), text.replace("127.0.0.1:0", &daemon.admin.to_string()))
        .expect("it can be written");
    typed(&["tasks", "-c", "fixed.toml"], &[]).well();
    let nobody = typed(&["queues", "--url", "http://127.0.0.1:9"], &[]);
    assert_eq!(nobody.code, 69, "{nobody:?}");
    for words in ["no jobsd answers at http://127.0.0.1:9", "--url or JOBSD_URL", "jobsd run"] {
        assert!(nobody.err.contains(words), "{nobody:?}");
    }
    fs::write(home.path("bad.toml"), "quues = 1").expect("it can be written");
    let bad = typed(&["queues", "-c", "bad.toml"], &[]);
    assert_eq!((bad.code, bad.err.contains("bad.toml:1:1")), (78, true), "{bad:?}");
    for (args, words) in [
        (vec!["retry"], "name jobs by id, or by a filter"),
        (vec!["cancel", "x", "--state", "dead"], "not both"),
        (vec!["retry", "--state", "dead", "--args", "{}"], "--args are for one job"),
        (vec!["cancel", "--state", "pending", "--offline"], "--offline cancels jobs by id"),
        (vec!["queues", "--url", "localhost:9180"], "is no address of a daemon"),
        (vec!["drain"], "required"),
        (vec!["pause"], "required"),
    ] {
        let said = typed(&args, &[]);
        assert_eq!((said.code, said.err.contains(words)), (2, true), "{args:?}: {said:?}");
    }
    let unknown = typed(&["job", "nothing", "--url", &url, "--token", token], &[]);
    assert_eq!((unknown.code, unknown.err.contains("no job has this id")), (1, true), "{unknown:?}");
    let filter = typed(&["jobs", "--state", "daed", "--url", &url, "--token", token], &[]);
    assert_eq!((filter.code, filter.err.contains("did you mean \"dead\"?")), (1, true), "{filter:?}");
}
