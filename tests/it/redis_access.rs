//! Redis behind TLS, with certificates on both sides, and for a user who may do no more than the README says.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::bench::{Daemon, Home, Jobs, Redis, free_port, get, push, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\"]\n[tasks.echo]\nnames = [\"app.echo\"]\nqueue = \"work\"\n\
    params = { n = \"int\" }\nprobe = \"echo\"\n";

/// Writes `NAME.crt` and `NAME.key` for 127.0.0.1; the certificate is its own authority.
fn certificate(dir: &Path, name: &str) -> String {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(dir)
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    dir.join(name).display().to_string()
}

#[track_caller]
fn why_not_ready(daemon: &Daemon) -> String {
    until("/readyz to say 503", || {
        let answer = get(daemon.admin, "/readyz");
        (answer.status == 503).then_some(answer.body)
    })
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (server, other) = (certificate(dir.path(), "server"), certificate(dir.path(), "other"));
    let port = free_port();
    let redis = Redis::with_settings(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &format!("{server}.crt"),
        "--tls-key-file",
        &format!("{server}.key"),
        "--tls-ca-cert-file",
        &format!("{server}.crt"),
    ]);
    let url = format!("rediss://127.0.0.1:{port}/0");
    let home = |tls: &str| Home::on(&url, &format!("{tls}{CONFIG}"));
    let ca = format!("redis.ca_file = \"{server}.crt\"\n");
    let own = format!("redis.cert_file = \"{server}.crt\"\nredis.key_file = \"{server}.key\"\n");

    let whole = home(&format!("{ca}{own}"));
    let daemon = whole.start();
    let id = push(&mut redis.client(), "work", "app.echo", &json!({"n": 1}));
    Jobs::of(&redis, "work").ended(&id, "completed");
    let shown = get(daemon.admin, "/api/v1/redis").json();
    assert_eq!((&shown["url"], &shown["up"]), (&json!(url), &json!(true)), "{shown:#}");
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis.client()).expect("Redis answers");
    let encrypted = clients.lines().filter(|line| line.contains(&format!("laddr=127.0.0.1:{port}"))).count();
    assert!(encrypted >= 3, "the link, the listener and the reads are all encrypted:\n{clients}");
    assert!(daemon.stop().success());

    let refused =
        [(own.clone(), "redis.ca_file"), (format!("redis.ca_file = \"{other}.crt\"\n{own}"), "redis.ca_file")];
    for (tls, remedy) in refused {
        let home = home(&tls);
        let daemon = home.start();
        let why = why_not_ready(&daemon);
        assert!(why.contains(remedy), "with {tls}: {why}");
        assert!(daemon.stop().success());
    }
    // Why a server turns a client without a certificate away is told by the one who connects first.
    let home = home(&ca);
    let mut daemon = home.start();
    why_not_ready(&daemon);
    daemon.wait_for_log("set redis.cert_file and redis.key_file");
    assert!(daemon.stop().success());
}

/// The line of the README that begins with `ACL SETUSER jobsd`, as words.
fn acl_of_the_readme() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let (_, line) = readme.split_once("ACL SETUSER jobsd").expect("the README names the permissions");
    let line = line.split("```").next().expect("it begins somewhere").replace("\\\n", " ");
    format!("SETUSER jobsd {line}").split_whitespace().map(str::to_owned).collect()
}

/// The commands of every script, as the source spells them.
fn commands_of_the_scripts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/broker/scripts");
    let files = |folder: &Path| std::fs::read_dir(folder).expect("the folder is there");
    let is_file = |entry: &std::io::Result<std::fs::DirEntry>| entry.as_ref().is_ok_and(|entry| entry.path().is_file());
    let mut commands = Vec::new();
    for entry in files(&folder).chain(files(&folder.join("lib"))).filter(is_file) {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a text");
        let calls = text.split("redis.call('").skip(1).chain(text.split("redis.pcall('").skip(1));
        commands.extend(calls.filter_map(|rest| rest.split('\'').next()).map(str::to_owned));
    }
    commands.sort();
    commands.dedup();
    commands
}

#[test]
fn the_permissions_of_the_readme_suffice() {
    let redis = Redis::start();
    let mut client = redis.client();
    redis::cmd("ACL").arg(acl_of_the_readme()).exec(&mut client).expect("the line is valid");
    let commands = commands_of_the_scripts();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        // With as many arguments as it takes.
        let allowed = (0..6).any(|count| {
            let filler = vec![if command == "PUBLISH" { "celery-task-meta-x" } else { "jobsd:x" }; count];
            let tried =
                redis::cmd("ACL").arg("DRYRUN").arg("jobsd").arg(&command).arg(filler).query::<String>(&mut client);
            tried.is_ok_and(|reply| reply == "OK")
        });
        assert!(allowed, "a script uses {command}, which the line of the README does not allow");
    }

    let url = redis.url().replace("redis://", "redis://jobsd:PASSWORD@");
    let config = "[queues.emails]\nwires = [\"celery\", \"rq\"]\n[tasks.echo]\nnames = [\"app.echo\"]\nqueue = \"emails\"\n\
        params = { n = \"int\" }\nprobe = \"echo\"\n\
        [schedules.often]\ncron = \"* * * * *\"\ntask = \"echo\"\nargs = { n = 1 }\n";
    let daemon = Home::on(&url, config);
    let running = daemon.start();
    let id = push(&mut client, "emails", "app.echo", &json!({"n": 1}));
    let mut jobs = Jobs::of(&redis, "emails");
    jobs.ended(&id, "completed");
    until("the result to be stored", || {
        redis::cmd("EXISTS")
            .arg(format!("celery-task-meta-{id}"))
            .query::<bool>(&mut client)
            .ok()
            .filter(|there| *there)
    });
    assert_eq!(get(running.admin, "/readyz").status, 200);
    let shown = get(running.admin, "/api/v1/redis").json();
    assert!(shown["url"].as_str().expect("a text").starts_with("redis://jobsd:***@127.0.0.1:"), "{shown:#}");
    let codes: Vec<&str> =
        shown["findings"].as_array().expect("a list").iter().filter_map(|finding| finding["code"].as_str()).collect();
    assert_eq!(codes, ["no-persistence"], "nothing is hidden from this user");
    assert!(running.stop().success());
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query(&mut client).expect("Redis answers");
    assert!(denied.is_empty(), "{denied:?}");
}
