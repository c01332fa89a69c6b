//! Flows by the real program: chains and groups, results that travel on, callbacks, what blocks and what helps, a crash in
//! the middle, and the words for what is no flow.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, post, until};

/// `exit` ends with the code that stands in a file; `note` writes a line; `echo` gives its arguments back.
fn config() -> &'static str {
    "[queues.work]\nretry = false\nconcurrency = 20\n\
     [queues.other]\nretry = false\nconcurrency = 5\n\
     [tasks.echo]\nqueue = \"other\"\nparams = { n = \"int\", of = \"any?\" }\nprobe = \"echo\"\n\
     [tasks.sleep]\nqueue = \"work\"\nparams = { seconds = \"number\" }\nprobe = \"sleep\"\n\
     [tasks.note]\nqueue = \"work\"\nparams = { line = \"string\" }\n\
     exec = { program = \"/bin/sh\", args = [\"-c\", 'echo \"$1\" >> notes', \"note\", \"{{ line }}\"] }\n\
     [tasks.check]\nqueue = \"work\"\nparams = { file = \"string\" }\n\
     exec = { program = \"/bin/sh\", args = [\"-c\", 'test -e \"$1\"', \"check\", \"{{ file }}\"] }\n\
     [queues.turns]\nretry = false\nlimit = { key = \"{{ user }}\", concurrency = 5, points = \"{{ size }}\" }\n\
     [tasks.turn]\nqueue = \"turns\"\nparams = { user = \"id\", size = \"int\", seconds = \"number\" }\nprobe = \"sleep\"\n\
     [tasks.lone]\nqueue = \"work\"\nunique = \"one\"\nprobe = \"echo\"\n\
     [tasks.mail]\nqueue = \"work\"\nparams = { to = \"email\", reset_token = { type = \"string\", secret = true } }\nprobe = \"fail\"\n"
}

/// The lines that `note` has written.
fn notes(home: &Home) -> Vec<String> {
    let found = ["notes", "state/notes"].iter().find_map(|name| fs::read_to_string(home.path(name)).ok());
    found.unwrap_or_default().lines().map(str::to_owned).collect()
}

#[track_caller]
fn submit(daemon: &Daemon, flow: &Value) -> String {
    let said = post(daemon.admin, "/api/v1/flows", flow);
    assert_eq!(said.status, 201, "{}", said.body);
    said.json()["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn shown(daemon: &Daemon, id: &str) -> Value {
    let said = get(daemon.admin, &format!("/api/v1/flows/{id}"));
    assert_eq!(said.status, 200, "{}", said.body);
    said.json()
}

/// The flow, once it is in this state.
#[track_caller]
fn until_state(daemon: &Daemon, id: &str, state: &str) -> Value {
    until(format!("the flow {id} to be {state}"), || Some(shown(daemon, id)).filter(|flow| flow["state"] == state))
}

fn job(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

#[test]
fn a_chain_of_groups_runs_in_order_and_results_travel_on() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let flow = json!({
        "name": "numbers",
        "flow": {"chain": [
            {"task": "echo", "name": "first", "args": {"n": 7}},
            {"group": [
                {"task": "echo", "name": "left", "args": {"n": {"$result": "first", "path": "/args/n"}}},
                {"chain": [
                    {"task": "echo", "args": [8]},
                    {"task": "echo", "name": "right", "args": {"n": 9, "of": [{"$result": "3", "path": "/args/n"}]}},
                ]},
            ]},
            {"task": "echo", "name": "last", "args": {"n": 1, "of": {"$result": ["left", "right"], "path": "/args"}}},
        ]},
        "on_success": {"task": "echo", "args": {"n": 2, "of": {"$result": "last", "path": "/args/of/0/n"}}},
        "on_complete": {"task": "echo", "args": {"n": 3}},
        "on_death": {"task": "echo", "args": {"n": 4}},
    });
    let id = submit(&daemon, &flow);
    let mut jobs = Jobs::of(&redis, "other");
    jobs.ended(&format!("flow:{id}:on_success"), "completed");
    jobs.ended(&format!("flow:{id}:on_complete"), "completed");
    let ended = until_state(&daemon, &id, "completed");
    assert_eq!(ended["summary"], "completed: all 5 jobs", "{ended:#}");
    assert_eq!(ended["flow"]["chain"][1]["group"][1]["chain"][0]["name"], "3");
    let last = job(&daemon, &format!("flow:{id}:last"));
    assert_eq!(last["args"]["of"], json!([{"n": 7, "of": null}, {"n": 9, "of": [8]}]), "{last:#}");
    assert_eq!(last["flow"], json!({"id": id, "name": "last"}));
    assert_eq!(job(&daemon, &format!("flow:{id}:on_success"))["args"], json!({"n": 2, "of": 7}));
    // Nobody died.
    let uncalled = job(&daemon, &format!("flow:{id}:on_death"));
    assert_eq!(
        (&uncalled["state"], &uncalled["why"]),
        (&json!("blocked"), &json!("it starts when a job of the flow dies"))
    );
    assert_eq!(jobs.count("jobs"), 7);
    let began = |name: &str| job(&daemon, &format!("flow:{id}:{name}"))["end"]["started"].as_str().map(str::to_owned);
    let end = |name: &str| job(&daemon, &format!("flow:{id}:{name}"))["end"]["at"].as_str().map(str::to_owned);
    for (before, after) in [("first", "left"), ("first", "3"), ("3", "right"), ("left", "last"), ("right", "last")] {
        assert!(end(before) <= began(after), "{after} began before {before} had ended");
    }
}

#[test]
fn a_blocked_flow_names_its_culprit_and_goes_on_when_that_is_retried() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let gate = home.path("gate").display().to_string();
    let flow = json!({
        "id": "nightly-1",
        "jobs": {
            "fetch": {"task": "note", "args": {"line": "fetch"}, "timeout": "1m", "priority": -1},
            "check": {"task": "check", "args": {"file": gate}, "after": ["fetch"]},
            "report": {"task": "note", "args": {"line": "report"}, "after": "check"},
            "clean": {"task": "note", "args": {"line": "clean"}, "after": ["check"], "allow_failure": true},
        },
        "on_death": {"task": "note", "args": {"line": "on_death"}},
        "on_complete": {"task": "note", "args": {"line": "on_complete"}},
        "on_success": {"task": "note", "args": {"line": "on_success"}},
    });
    assert_eq!(submit(&daemon, &flow), "nightly-1");
    let again = post(daemon.admin, "/api/v1/flows", &flow);
    assert_eq!((again.status, again.body.contains("was left as it is")), (409, true), "{again:?}");
    let mut jobs = Jobs::of(&redis, "work");
    jobs.ended("flow:nightly-1:on_complete", "completed");
    jobs.ended("flow:nightly-1:clean", "completed");
    let blocked = until_state(&daemon, "nightly-1", "blocked");
    let summary = blocked["summary"].as_str().expect("a sentence");
    assert!(summary.starts_with("blocked: one job waits for \"check\", which is dead (ExecError: "), "{summary}");
    assert_eq!(blocked["culprits"][0]["id"], "flow:nightly-1:check", "{blocked:#}");
    let report = job(&daemon, "flow:nightly-1:report");
    assert_eq!(report["state"], "blocked");
    assert_eq!(report["why"], "it follows \"check\", which is dead; retry that, and the flow goes on");
    let refused = post(daemon.admin, "/api/v1/jobs/flow:nightly-1:report/cancel", &json!({}));
    assert_eq!((refused.status, refused.body.contains("jobsd flow cancel nightly-1")), (409, true), "{refused:?}");
    // Still dead, then cured.
    let retried = home.type_to(&daemon, &["flow", "retry", "nightly-1"]).well();
    assert_eq!(retried.out, "nightly-1 retried: flow:nightly-1:check\n");
    until("it to be dead once more", || {
        let history = jobs.history("flow:nightly-1:check")?;
        (history["mishaps"].as_array()?.len() == 2 && !history["end"].is_null()).then_some(())
    });
    until_state(&daemon, "nightly-1", "blocked");
    fs::write(home.path("gate"), "").expect("it can be written");
    home.type_to(&daemon, &["retry", "flow:nightly-1:check"]).well();
    jobs.ended("flow:nightly-1:on_success", "completed");
    let whole = until_state(&daemon, "nightly-1", "completed");
    assert_eq!(whole["jobs"]["completed"], 4);
    let mut written = notes(&home);
    written.sort();
    assert_eq!(written, ["clean", "fetch", "on_complete", "on_death", "on_success", "report"], "each of them once");
    let nothing = post(daemon.admin, "/api/v1/flows/nightly-1/retry", &json!({}));
    assert_eq!((nothing.status, nothing.body.contains("no job of the flow is dead")), (409, true), "{nothing:?}");
}

#[test]
fn a_cancelled_flow_starts_nothing_more() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let flow = json!({
        "flow": {"chain": [
            {"group": [
                {"task": "sleep", "name": "running", "args": {"seconds": 600}},
                {"task": "sleep", "name": "later", "args": {"seconds": 0}, "in": "1h"},
            ]},
            {"task": "note", "name": "never", "args": {"line": "never"}},
        ]},
        "on_complete": {"task": "note", "args": {"line": "on_complete"}},
    });
    let id = submit(&daemon, &flow);
    let mut jobs = Jobs::of(&redis, "work");
    jobs.until("active", 1);
    jobs.until("scheduled", 1);
    let said = home.type_to(&daemon, &["flow", "cancel", &id, "--reason", "wrong night"]).well();
    assert_eq!(said.out, format!("{id} cancelled\n"));
    jobs.until("cancelled", 2);
    let cancelled =
        until("everything to have ended", || Some(shown(&daemon, &id)).filter(|flow| flow["jobs"]["started"] == 0));
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["summary"], "cancelled by ann: wrong night: 0 of 3 jobs had completed");
    assert_eq!(
        job(&daemon, &format!("flow:{id}:never"))["why"],
        "the flow was cancelled by ann: wrong night; this job never starts"
    );
    assert_eq!(jobs.count("jobs"), 2, "neither the last job nor the callback was put in");
    let retried = home.type_to(&daemon, &["flow", "retry", &id]);
    assert_eq!((retried.code, retried.err.contains("submit it anew")), (1, true), "{retried:?}");
    let listed = home.type_to(&daemon, &["flows", "--state", "cancelled", "--json"]).well().json();
    assert_eq!(listed["flows"][0]["id"], json!(id));
    let none = home.type_to(&daemon, &["flows", "--state", "running", "--json"]).well().json();
    assert_eq!(none, json!({"flows": [], "next": null}));
}

#[test]
fn a_result_that_does_not_fit_kills_the_job_with_its_reason() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let chain = |args: Value| json!({"flow": {"chain": [{"task": "echo", "name": "a", "args": [1]}, {"task": "echo", "name": "b", "args": args}]}});
    let mut jobs = Jobs::of(&redis, "other");
    for (args, reason) in [
        (json!({"n": {"$result": "a", "path": "/args/m"}}), "the result of \"a\" has nothing at /args/m"),
        (json!({"n": {"$result": "a"}}), "echo() argument 'n' must be an integer, not an object"),
    ] {
        let id = submit(&daemon, &chain(args));
        let name = format!("flow:{id}:b");
        let history = jobs.ended(&name, "dead");
        assert_eq!((&history["end"]["cause"], &history["end"]["reason"]), (&json!("bad-arguments"), &json!(reason)));
        let blocked = until_state(&daemon, &id, "dead");
        assert_eq!(
            blocked["summary"],
            json!(format!("ended, 1 of 2 jobs completed: \"b\" is dead (UnboundResult: {reason})"))
        );
        // Alone it would run with a reference instead of a value.
        let refused = post(daemon.admin, &format!("/api/v1/jobs/{name}/retry"), &json!({}));
        assert_eq!((refused.status, refused.body.contains("retry its flow")), (409, true), "{refused:?}");
        let anew = post(daemon.admin, &format!("/api/v1/flows/{id}/retry"), &json!({}));
        assert_eq!((anew.status, &anew.json()["jobs"]), (200, &json!([name])), "{anew:?}");
        until_state(&daemon, &id, "dead");
        let given = post(daemon.admin, &format!("/api/v1/jobs/{name}/retry"), &json!({"args": {"n": 5}}));
        assert_eq!(given.status, 200, "{given:?}");
        until_state(&daemon, &id, "completed");
    }
}

/// Whom a job's limits count it to may be a result: that is known when its turn has come, and so is whether it fits.
#[test]
fn limits_count_a_job_by_the_results_that_it_got() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let turn = |name: &str, size: &Value| {
        let args = json!({"user": {"$result": "a", "path": "/args/n"}, "size": size, "seconds": 600});
        json!({"task": "turn", "name": name, "args": args})
    };
    let a = json!({"task": "echo", "name": "a", "args": [7]});
    let group = json!({"group": [turn("b", &json!(3)), turn("c", &json!(3))]});
    let id = submit(&daemon, &json!({"flow": {"chain": [&a, group]}}));
    let held = until("one of the two to run, and the other to wait for it", || {
        let pair = ["b", "c"].map(|name| job(&daemon, &format!("flow:{id}:{name}")));
        let runs = pair.iter().any(|job| job["state"] == "active");
        pair.into_iter().find(|job| runs && job["held"] == true)
    });
    assert_eq!((&held["blocked"]["limit"], &held["blocked"]["key"]), (&json!("*/user"), &json!("7")), "{held:#}");

    let size = json!({"$result": "a", "path": "/args/n"});
    let id = submit(&daemon, &json!({"flow": {"chain": [&a, turn("b", &size)]}}));
    let history = Jobs::of(&redis, "turns").ended(&format!("flow:{id}:b"), "dead");
    let reason = history["end"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("7 points of the limit */user, which has no more than 5"), "{history:#}");
    until_state(&daemon, &id, "dead");
}

/// 200 jobs in three layers behind joins, with the daemon killed again and again: each has its effect, the callback once.
#[test]
fn a_large_flow_survives_kill_9_in_its_middle() {
    const WIDTH: usize = 66;
    let redis = Redis::durable();
    let home = Home::new(&redis, config());
    let layer = |name: &str| -> Value {
        let jobs: Vec<Value> = (0..WIDTH)
            .map(|n| json!({"task": "note", "name": format!("{name}{n}"), "args": {"line": format!("{name}{n}")}}))
            .collect();
        json!({ "group": jobs })
    };
    let flow = json!({
        "id": "layers",
        "flow": {"chain": [layer("a"), layer("b"), {"task": "note", "args": {"line": "middle"}}, layer("c")]},
        "on_success": {"task": "note", "args": {"line": "on_success"}},
        "on_complete": {"task": "note", "args": {"line": "on_complete"}},
    });
    let daemon = home.start();
    assert_eq!(submit(&daemon, &flow), "layers");
    let mut jobs = Jobs::of(&redis, "work");
    let mut daemon = Some(daemon);
    for done in [20, 70, 100, 140, 180] {
        until("some of it to be done", || (jobs.count("completed") >= done).then_some(()));
        daemon.take().expect("it runs").kill();
        daemon = Some(home.start());
    }
    let daemon = daemon.expect("it runs");
    jobs.ended("flow:layers:on_success", "completed");
    jobs.ended("flow:layers:on_complete", "completed");
    let whole = until_state(&daemon, "layers", "completed");
    let total = 3 * WIDTH + 1;
    assert_eq!(whole["jobs"]["completed"], total);
    assert_eq!((jobs.count("jobs"), jobs.count("completed")), (total + 2, total + 2));
    let written = notes(&home);
    let first =
        |line: &str| written.iter().position(|one| one == line).unwrap_or_else(|| panic!("{line} had no effect"));
    let last = |layer: char| (0..WIDTH).map(|n| first(&format!("{layer}{n}"))).max();
    for n in 0..WIDTH {
        assert!(last('a') < Some(first(&format!("b{n}"))), "b{n} came before the first layer was through");
        assert!(first("middle") < first(&format!("c{n}")));
    }
    assert!(last('b') < Some(first("middle")));
    // What ran when the daemon died runs again; a callback that was started twice would be a second job.
    println!("{total} jobs, 5 kills, {} effects", written.len());
}

#[test]
fn what_is_no_flow_is_refused_whole_and_the_place_is_named() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let a = || json!({"task": "echo", "args": [1]});
    let with = |extra: Value| {
        let mut job = a();
        job.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        job
    };
    let deep = (0..40).fold(a(), |part, _| json!({"group": [part]}));
    let cases = [
        (json!({}), "", "a flow needs jobs"),
        (json!([]), "", "the body must be an object"),
        (json!({"flow": a(), "jobs": {"a": a()}}), "/jobs", "not both"),
        (json!({"flow": {"chain": []}}), "/flow/chain", "at least one part"),
        (json!({"flow": {"chain": [a()], "timeout": "5m"}}), "/flow/timeout", "options belong to its jobs"),
        (json!({"flow": {"chain": [a(), 5]}}), "/flow/chain/1", "a part of a flow is a job"),
        (json!({"flow": {"chain": [a(), {"task": "ecko"}]}}), "/flow/chain/1/task", "did you mean \"echo\"?"),
        (
            json!({"flow": {"group": [{"task": "echo", "args": {"n": "x"}}]}}),
            "/flow/group/0/args",
            "must be an integer",
        ),
        (json!({"flow": with(json!({"id": "x"}))}), "/flow/id", "has no id of its own"),
        (json!({"flow": with(json!({"unique": "x"}))}), "/flow/unique", "a job of a flow cannot be unique"),
        (json!({"flow": {"chain": [a(), {"task": "lone"}]}}), "/flow/chain/1/unique", "the task \"lone\" is unique"),
        (
            json!({"flow": {"task": "turn", "args": {"user": 1, "size": 9, "seconds": 0}}}),
            "/flow/args",
            "which has no more than 5",
        ),
        (json!({"flow": with(json!({"name": "on_death"}))}), "/flow/name", "the name of a callback"),
        (json!({"flow": with(json!({"name": "17"}))}), "/flow/name", "a name needs a letter"),
        (
            json!({"flow": {"chain": [with(json!({"name": "x"})), with(json!({"name": "x"}))]}}),
            "/flow/chain/1/name",
            "two jobs are called \"x\"",
        ),
        (json!({"flow": with(json!({"in": "soon"}))}), "/flow/in", "is not a duration"),
        (json!({"flow": deep}), "/flow/group/0", "32 deep"),
        (json!({"flow": a(), "on_sucess": a()}), "/on_sucess", "did you mean \"on_success\"?"),
        (json!({"flow": a(), "on_success": {"task": "none"}}), "/on_success/task", "no task is called \"none\""),
        (json!({"flow": a(), "id": "a/b"}), "/id", "allowed are letters"),
        (
            json!({"jobs": {"a": a(), "b": with(json!({"after": ["a", "aa"]}))}}),
            "/jobs/b/after/1",
            "no job of this flow is called \"aa\"; did you mean \"a\"?",
        ),
        (json!({"jobs": {"a": with(json!({"after": ["a"]}))}}), "/jobs/a/after/0", "\"a\" cannot follow itself"),
        (json!({"jobs": {"a": a(), "b": with(json!({"after": ["a", "a"]}))}}), "/jobs/b/after/1", "stands twice"),
        (
            json!({"jobs": {
                "a": with(json!({"after": ["c"]})), "b": with(json!({"after": ["a"]})),
                "c": with(json!({"after": ["b"]})), "d": with(json!({"after": ["a"]})),
            }}),
            "/jobs/a/after",
            "the jobs wait for each other in a circle: \"a\" follows \"c\", \"c\" follows \"b\", \"b\" follows \"a\"",
        ),
        (
            json!({"flow": {"group": [with(json!({"name": "x"})), {"task": "echo", "args": {"n": {"$result": "x"}}}]}}),
            "/flow/group/1/args/n",
            "this job does not follow \"x\"",
        ),
        (json!({"flow": {"task": "echo", "args": {"n": {"$result": "1"}}}}), "/flow/args/n", "its own result"),
        (
            json!({"flow": {"task": "echo", "args": {"n": {"$result": "y"}}}}),
            "/flow/args/n",
            "no job of this flow is called \"y\"",
        ),
        (
            json!({"flow": {"task": "echo", "args": {"n": {"$result": "1", "pth": "/x"}}}}),
            "/flow/args/n",
            "no field \"pth\"",
        ),
    ];
    for (flow, place, words) in cases {
        let said = post(daemon.admin, "/api/v1/flows", &flow);
        assert_eq!(said.status, 422, "{flow}: {said:?}");
        let errors = said.json()["errors"].as_array().cloned().unwrap_or_default();
        let named = errors.iter().any(|error| {
            let (at, detail) = (error["pointer"].as_str().unwrap_or("?"), error["detail"].as_str().unwrap_or("?"));
            (at == place || place == "/flow/group/0" && at.starts_with(place)) && detail.contains(words)
        });
        assert!(named, "{flow}: {place}: {words}: {errors:#?}");
    }
    // Reading JSON as a map forgets the first of two jobs of one name.
    let twice = r#"{"jobs": {"a": {"task": "echo", "args": [1]}, "a": {"task": "echo", "args": [2]}}}"#;
    fs::write(home.path("twice.json"), twice).expect("it can be written");
    let said = home.type_to(&daemon, &["flow", "submit", "twice.json"]);
    assert_eq!((said.code, said.err.contains("two jobs are called \"a\"")), (1, true), "{said:?}");
    let id = submit(&daemon, &json!({"flow": {"chain": [a(), with(json!({"in": "1h"}))]}}));
    let delayed = until("the second to be put in", || {
        Some(job(&daemon, &format!("flow:{id}:2"))).filter(|job| job["state"] == "scheduled")
    });
    let first = job(&daemon, &format!("flow:{id}:1"));
    let (due, ended) = (delayed["due"].as_str().expect("a time"), first["end"]["at"].as_str().expect("a time"));
    let hour =
        |text: &str| text[11..13].parse::<u64>().expect("an hour") * 60 + text[14..16].parse::<u64>().expect("minutes");
    assert!((59..=62).contains(&((hour(due) + 24 * 60 - hour(ended)) % (24 * 60))), "{due} is an hour after {ended}");
    // Two of them side by side: neither holds a key.
    let lone = || json!({"task": "lone", "unique": false});
    let id = submit(&daemon, &json!({"flow": {"group": [lone(), lone()]}}));
    until_state(&daemon, &id, "completed");
    let unknown = get(daemon.admin, "/api/v1/flows/none");
    assert_eq!((unknown.status, unknown.body.contains("no flow has this id")), (404, true));
    let reserved = post(daemon.admin, "/api/v1/jobs", &json!({"task": "echo", "args": [1], "id": "flow:x:1"}));
    assert_eq!((reserved.status, reserved.body.contains("belong to the jobs of flows")), (422, true), "{reserved:?}");
}

#[test]
fn the_command_line_draws_a_flow() {
    let redis = Redis::start();
    let home = Home::new(&redis, config());
    let daemon = home.start();
    let flow = json!({
        "name": "letters",
        "flow": {"chain": [
            {"task": "echo", "name": "first", "args": [1]},
            {"group": [{"task": "mail", "args": {"to": "a@b.c", "reset_token": "s3cret-token"}}, {"task": "echo", "args": [2]}]},
            {"task": "echo", "args": [3]},
        ]},
    });
    fs::write(home.path("flow.json"), flow.to_string()).expect("it can be written");
    let said = home.type_to(&daemon, &["flow", "submit", "flow.json", "--wait"]);
    assert_eq!(said.code, 1, "{said:?}");
    let id = said.out.lines().next().expect("the id").to_owned();
    for line in ["name      letters", "chain", "  first [echo]  completed", "  group", "    3 [echo]  completed"] {
        assert!(said.out.lines().any(|one| one == line), "{line}: {}", said.out);
    }
    assert!(
        said.out.contains("state     blocked: one job waits for \"2\", which is dead (ProbeFailure"),
        "{}",
        said.out
    );
    assert!(said.out.contains("  4 [echo]  blocked: it follows \"2\""), "{}", said.out);
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    let list = home.type_to(&daemon, &["flows"]).well();
    assert!(list.out.contains(&id) && list.out.contains("blocked"), "{}", list.out);
    let job = home.type_to(&daemon, &["job", &format!("flow:{id}:4")]).well();
    assert!(job.out.contains("state     blocked\nwhy       it follows \"2\""), "{}", job.out);
    let url = format!("http://{}", daemon.admin);
    let piped = home.type_with(
        &["flow", "submit", "-", "--wait", "--json"],
        &[("JOBSD_URL", &url)],
        &json!({"flow": {"task": "echo", "args": [1]}}).to_string(),
    );
    assert_eq!(piped.well().json()["state"], "completed");
}
