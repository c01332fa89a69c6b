//! Mail from outside: SES as moto's server plays it, which checks signatures; and the mails of the shipped file as
//! `jobsd email preview` writes them, read by a strict HTML parser.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::bench::{Child, Daemon, Home, Jobs, Moto, Python, Redis, get, post, shipped, until};

const SENDER: &str = "no-reply@hireme.test";

fn with_ses(moto: &Moto, from: &str, credentials: &Value) -> String {
    let text = |key: &str| credentials[key].as_str().unwrap_or_default().to_owned();
    let token = credentials["token"].as_str().map(|token| format!("session_token = \"{token}\"\n")).unwrap_or_default();
    format!(
        "[email]\nprovider = \"ses\"\nfrom = \"HireMe <{from}>\"\n[email.ses]\nregion = \"eu-west-1\"\n{token}\
         access_key = \"{}\"\nsecret_key = \"{}\"\nendpoint = \"{}\"\n\
         [queues.emails]\nretry = false\n[tasks.greet]\nqueue = \"emails\"\nparams = {{ to = \"email\" }}\n\
         email = {{ to = \"{{{{ to }}}}\", bcc = \"archive@hireme.test\", subject = \"Héllo\", text = \"Words\" }}\n",
        text("access_key"),
        text("secret_key"),
        moto.url(),
    )
}

#[test]
fn ses_takes_what_is_signed_by_a_user_or_a_session_and_nothing_else() {
    let (redis, mut moto) = (Redis::start(), Moto::start("eu-west-1", SENDER));
    let mut wrong = moto.credentials("user").clone();
    wrong["secret_key"] = json!("hunter2");
    let cases = [
        (SENDER, moto.credentials("user").clone(), Ok(())),
        (SENDER, moto.credentials("session").clone(), Ok(())),
        (SENDER, wrong, Err(("MailCredentialsError", "SignatureDoesNotMatch"))),
        (SENDER, moto.credentials("powerless").clone(), Err(("MailCredentialsError", "is not authorized to perform"))),
        ("stranger@hireme.test", moto.credentials("user").clone(), Err(("MailRejected", "Did not have authority"))),
    ];
    let mut jobs = Jobs::of(&redis, "emails");
    let mut keys = Vec::new();
    for (from, credentials, expected) in cases {
        let home = Home::new(&redis, &with_ses(&moto, from, &credentials));
        let daemon = home.start();
        let answer = post(daemon.admin, "/api/v1/jobs", &json!({"task": "greet", "args": {"to": "ann@example.bs"}}));
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        match expected {
            Ok(()) => {
                let result = jobs.ended(&id, "completed")["end"]["result"].clone();
                assert!(result["provider_id"].is_string(), "{result:#}");
                keys.push(result["key"].as_str().expect("a key").to_owned());
            }
            // Nobody's mail is taken: the job waits for the service.
            Err((kind, words)) if kind == "MailCredentialsError" => {
                let history = until("the attempt to be over", || {
                    jobs.history(&id).filter(|history| !history["mishaps"][0].is_null())
                });
                assert_eq!(
                    (&history["mishaps"][0]["name"], &history["failures"]),
                    (&json!(kind), &Value::Null),
                    "{history:#}"
                );
                assert_shown(&daemon, &id, words);
                home.type_to(&daemon, &["cancel", &id]).well();
            }
            Err((kind, words)) => {
                let history = jobs.ended(&id, "dead");
                assert_eq!(history["mishaps"][0]["name"], kind, "{history:#}");
                assert_shown(&daemon, &id, words);
            }
        }
        assert!(daemon.stop().success());
    }
    let mails = moto.mails();
    assert_eq!(mails.len(), 2, "{mails:#?}");
    for (mail, key) in mails.iter().zip(&keys) {
        let to: Vec<_> = mail["destinations"].as_array().expect("an array").iter().filter_map(Value::as_str).collect();
        assert!(to.contains(&"ann@example.bs") && to.contains(&"archive@hireme.test"), "{to:?}");
        let raw = mail["raw"].as_str().expect("a text");
        assert!(raw.contains(&format!("X-Jobsd-Key: {key}\r\n")) && raw.contains("\r\n\r\nWords"), "{raw}");
        assert!(!raw.contains("archive@"), "a bcc is not shown: {raw}");
    }
}

fn assert_shown(daemon: &Daemon, id: &str, words: &str) {
    let shown = get(daemon.admin, &format!("/api/v1/jobs/{id}")).body;
    assert!(shown.contains(words) && !shown.contains("hunter2"), "{shown}");
}

/// Arguments that show what a mail does with long and foreign words.
fn previews() -> [(&'static str, Value); 5] {
    let long = "Would you come on Thursday, around three? ".repeat(5);
    [
        ("send_welcome_email", json!(["a@b.test", "Zoë & <Ann>", "ann1"])),
        (
            "send_job_application_email",
            json!(["b@c.test", "Bob \"Bo\" O'Neil", "Chef & cook", "Ann", "ann@x.test", 17]),
        ),
        ("send_message_notification_email", json!(["a@b.test", "Ann", "Bob <b>", long])),
        ("send_password_reset_email", json!(["a@b.test", "Ann", "a/b+c=&d"])),
        ("send_email_task", json!(["a@b.test", "Hi", "", "welcome", {"user_name": "Ann", "username": "ann"}])),
    ]
}

/// Prints what a strict parser has to say, and how wide the lines of the text part are.
const READER: &str = r#"
import email, email.policy, html5lib, json, pathlib, sys
folder, task = pathlib.Path(sys.argv[1]), sys.argv[2]
page, text = (folder / f"{task}.html").read_text(), (folder / f"{task}.txt").read_text()
html5lib.HTMLParser(strict=True, tree=html5lib.getTreeBuilder("etree")).parse(page)
mail = email.message_from_bytes((folder / f"{task}.eml").read_bytes(), policy=email.policy.default)
same = lambda part, text: mail.get_body((part,)).get_content().replace("\r\n", "\n").strip() == text.strip()
print(json.dumps({
    "same": same("html", page) and same("plain", text), "text": text, "subject": mail["subject"],
    "defects": [str(d) for p in mail.walk() for d in p.defects], "bytes": len(page.encode()),
}))
"#;

#[test]
fn the_shipped_mails_are_valid_html_and_readable_text() {
    let home = Home::with_whole(shipped(&[]));
    for (task, args) in previews() {
        let said = home.type_with(&["email", "preview", task, "--args", &args.to_string(), "--json"], &[], "").well();
        let files = said.json()[0]["files"].as_array().expect("an array").clone();
        assert_eq!(files, ["eml", "html", "txt"].map(|ending| json!(format!("./{task}.{ending}"))), "{said:?}");
        let mut reader = Child::command(Python::for_mail());
        let output = reader.args(["-c", READER]).arg(home.path("")).arg(task).stderr(Stdio::inherit()).output();
        let output = output.expect("Python starts");
        assert!(output.status.success(), "{task}: the HTML is not valid");
        let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&read["same"], &read["defects"]), (&json!(true), &json!([])), "{task}: {read:#}");
        let text = read["text"].as_str().expect("a text");
        assert!(!text.contains(['<', '\t']) || text.contains("<Ann>") || text.contains("<b>"), "{task}: {text}");
        assert!(!text.contains("\n\n\n") && !text.contains("{{") && text.contains("\n-- \n"), "{task}: {text:?}");
        // Gmail cuts a mail at 102 KiB.
        assert!(read["bytes"].as_u64().is_some_and(|bytes| bytes < 16 * 1024), "{task}: {read:#}");
    }
    assert!(!home.path("state").exists(), "nothing is sent, and nothing else written");
}

#[test]
fn a_preview_says_what_is_wrong() {
    let home = Home::with_whole(shipped(&[]));
    let preview = |args: &[&str]| home.type_with(&[&["email", "preview"], args].concat(), &[], "");
    for (args, code, words) in [
        (
            &["send_no_mail"][..],
            2,
            "the task send_no_mail is not in the configuration; those that send mail: send_email_task",
        ),
        (&["track_user_event_job"], 2, "sends no mail"),
        (
            &["send_welcome_email", "user_name=Ann"],
            2,
            "missing 2 required positional arguments: 'user_email' and 'username'",
        ),
        (&["send_welcome_email", "user_email=nobody", "user_name=A", "username=a"], 2, "must be a mail address"),
        (&["send_welcome_email", "--args", "7"], 2, "must be an object"),
        (&["send_email_task", "recipient_email=a@b.c", "subject=a\nBcc: x", "body=x"], 1, "it holds a line break"),
        (
            &["send_welcome_email", "user_email=a@b.c", "user_name=A", "username=a", "--dir", "none"],
            1,
            "failed to write none/",
        ),
    ] {
        let said = preview(args);
        assert!(said.code == code && said.err.contains(words), "{args:?}: {said:?}");
    }
    let by_wire_name =
        ["backend_app.core.celery_tasks.send_welcome_email", "user_email=a@b.c", "user_name=A", "username=a"];
    let said = preview(&by_wire_name).well();
    assert_eq!(said.out.lines().next(), Some("To a@b.c: Welcome to HireMeBahamas, A!"));
    assert!(home.path("send_welcome_email.eml").exists());
}
