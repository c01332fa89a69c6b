//! Arguments of somebody who wants the mail to become another one: whatever is not refused comes out as the mail that was
//! meant, as a reader that is not ours sees it.

use super::*;
use crate::handler::context::{Context, Now};
use crate::handler::{Notepad, Steps};
use crate::job::Timestamp;
use crate::testing::dice::Dice;

/// Each of these is refused wherever a header is written with it.
const REFUSED: [&str; 18] = [
    "a\r\nBcc: evil@e.test",
    "a\nBcc: evil@e.test",
    "a\rBcc: evil@e.test",
    "a\r\n\r\n<script>alert(1)</script>",
    "a\r\n Bcc: evil@e.test",
    "a\0b",
    "a\u{85}Bcc: evil@e.test",
    "a\u{2028}Bcc: evil@e.test",
    "a\u{2029}b",
    "a\u{b}b",
    "a\u{c}b",
    "a\u{1b}[2Jb",
    "a\u{7f}b",
    "a\tb",
    "=?utf-8?b?DQpCY2M6IGV2aWxAZS50ZXN0?=",
    "=?utf-8?q?=0D=0ABcc=3A_evil=40e=2Etest?= x",
    "\u{202e}tset.e@live",
    "\u{202d}x",
];

/// What hostile texts are made of.
const PIECES: [&str; 44] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\u{85}",
    "\u{2028}",
    "Bcc: evil@e.test",
    "evil@e.test",
    "<",
    ">",
    ",",
    ";",
    ":",
    "\"",
    "'",
    "@",
    "e.test",
    "=?utf-8?b?",
    "?=",
    "=?",
    "\u{202e}",
    "\u{ff20}",
    "\u{ff0c}",
    "\u{560a}",
    "\u{560d}",
    "\u{10a}",
    "%0d%0a",
    "\\",
    "\\r\\n",
    "(",
    ")",
    " ",
    "  ",
    "é",
    "🏝",
    "a",
    "--",
    "Content-Type: text/html",
    "\u{200b}",
    "\u{feff}",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "../",
    "\u{1f}",
];

/// Where an argument can stand in a mail.
const SLOTS: [&str; 13] = [
    "to",
    "name",
    "cc",
    "bcc",
    "from",
    "reply_to",
    "subject",
    "header",
    "unsubscribe",
    "file",
    "file_name",
    "text",
    "context",
];

/// A mail in which every slot is an argument.
fn open_step() -> EmailStep {
    EmailStep {
        to: template("{{ name }} <{{ to }}>"),
        cc: Some(fixture::value(json!("{{ cc }}"))),
        bcc: Some(fixture::value(json!("{{ bcc }}"))),
        subject: template("{{ subject }}"),
        template: None,
        context: None,
        html: Some(template("<p>{{ text | e }}</p>")),
        text: None,
        from: Some(template("{{ from }}")),
        reply_to: Some(template("{{ reply_to }}")),
        headers: vec![("X-Tag".into(), template("{{ header }}"))],
        unsubscribe: Some(fixture::value(json!("{{ unsubscribe }}"))),
        attachments: Some(fixture::value(
            json!({"path": "{{ file }}", "name": "{{ file_name }}", "type": "text/plain"}),
        )),
    }
}

fn arguments(slot: &str, hostile: &str) -> Value {
    let mut args = json!({
        "to": "to@b.test", "name": "Ann", "cc": "cc@b.test", "bcc": "bcc@b.test", "from": "from@b.test",
        "reply_to": "re@b.test", "subject": "Hello", "header": "tag", "unsubscribe": "https://b.test/u",
        "file": "invoice.txt", "file_name": "Invoice.txt", "text": "words", "context": {"user_name": "Ann"},
    });
    match slot {
        "context" => args["context"] = json!({"user_name": hostile, hostile: hostile}),
        slot => args[slot] = json!(hostile),
    }
    args
}

struct Bench {
    email: Email,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        std::fs::write(dir.path().join("invoice.txt"), "$25").expect("written");
        let mut config = fixture::config(dir.path());
        config.email.attachments.roots = vec![dir.path().to_owned()];
        Self { email: Email::new(&config).expect("it is built"), dir }
    }

    /// The mail as it would go out: who gets it, and the bytes.
    fn compose(&self, step: &EmailStep, args: Value) -> Result<(Vec<String>, Vec<u8>), Failure> {
        self.wire(step, args).map_err(|error| match Halt::from(error) {
            Halt::Failed(failure) => failure,
            other => panic!("nobody was asked: {other:?}"),
        })
    }

    fn wire(&self, step: &EmailStep, args: Value) -> Result<(Vec<String>, Vec<u8>), EmailError> {
        let (job, task) = (fixture::job(args), fixture::task(Vec::new()));
        let attempt = attempt::first(&job, &task);
        let now = Timestamp::from_millis(1_795_430_097_158);
        let vars = json!({"base_url": "https://hireme.test"});
        let of_templates = Now::new(now);
        let context = Context::new(&attempt, &vars, &of_templates);
        let run = Run {
            job: &job,
            attempt: 1,
            params: &task.params,
            step: 0,
            context: &context,
            steps: &Steps::default(),
            notepad: &Notepad::default(),
        };
        let mut mail = self.email.compose(step, &run, now)?;
        if let Some(attachments) = &step.attachments {
            let wanted = attachments.render(context.values()).map_err(EmailError::from)?;
            mail.attachments = attachment::read(&wanted, &self.email.attachments).map_err(EmailError::from)?;
        }
        let wire = mail.into_wire()?;
        Ok((wire.envelope.to().iter().map(ToString::to_string).collect(), wire.bytes))
    }
}

#[test]
fn what_writes_headers_is_refused_in_every_slot() {
    let bench = Bench::new();
    let step = open_step();
    for slot in ["to", "name", "cc", "bcc", "from", "reply_to", "subject", "header", "unsubscribe", "file_name"] {
        for hostile in REFUSED {
            let Err(failed) = bench.compose(&step, arguments(slot, hostile)) else {
                panic!("{slot} takes {hostile:?}");
            };
            assert!(
                ["InvalidAddress", "InvalidMail"].contains(&failed.kind.as_str()),
                "{slot} {hostile:?}: {failed:?}"
            );
            assert_eq!(failed.retry, Retryable::Never, "{slot} {hostile:?}");
            let clean = !failed.message.contains(|c: char| c.is_control());
            assert!(failed.message.starts_with("failed to ") && clean, "{slot} {hostile:?}: {:?}", failed.message);
        }
    }
    for file in [
        "/etc/passwd",
        "../../etc/passwd",
        "/proc/self/environ",
        "invoice.txt/..",
        "/dev/zero",
        "~/.ssh/id_rsa",
        "file:///etc/passwd",
        "\0",
    ] {
        let failed = bench.compose(&step, arguments("file", file)).expect_err("it is refused");
        assert!(failed.kind.starts_with("Attachment") || failed.kind == "InvalidMail", "{file}: {failed:?}");
    }
    assert!(bench.dir.path().join("invoice.txt").exists());
}

/// What is left of the header fields, the recipients and the parts after an attack, for all mails at once.
const READER: &str = r#"
import sys, json, base64, email, email.policy
from email.utils import getaddresses
for line in sys.stdin:
    case = json.loads(line)
    raw = base64.b64decode(case["mail"])
    head = raw.split(b"\r\n\r\n", 1)[0]
    assert b"\0" not in head and b"\n" not in head.replace(b"\r\n", b"") and b"\r" not in head.replace(b"\r\n", b""), case
    # Only an address that is not ASCII itself needs more (SMTPUTF8).
    assert head.isascii() or not case["hostile"].isascii() and "@" in case["hostile"], case
    assert max(map(len, raw.split(b"\r\n"))) <= 998, case
    m = email.message_from_bytes(raw, policy=email.policy.default)
    names = sorted(k.lower() for k in m.keys())
    meant = ["content-type", "date", "from", "list-unsubscribe", "list-unsubscribe-post", "message-id", "mime-version",
             "reply-to", "subject", "to", "x-jobsd-key", "x-tag"]
    optional = ["cc", "list-unsubscribe", "list-unsubscribe-post"]
    assert [n for n in names if n not in optional] == [n for n in meant if n not in optional], (names, case)
    assert len(names) == len(set(names)), (names, case)
    shown = [a.addr_spec for h in ("to", "cc") for a in (m[h].addresses if m[h] else ())]
    assert sorted(shown) == sorted(case["shown"]), (shown, case)
    assert len(m["from"].addresses) == 1 and len(m["reply-to"].addresses) == 1, case
    parts = [p.get_content_type() for p in m.walk()]
    assert parts == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/plain"], (parts, case)
    assert "49" not in m["subject"] and not [d for p in m.walk() for d in p.defects], case
    html = m.get_body(("html",)).get_content()
    assert "<script" not in html and html.count("<") == 2, (html, case)
print("read")
"#;

#[test]
fn no_argument_changes_who_gets_a_mail_or_what_it_is() {
    let bench = Bench::new();
    let step = open_step();
    let mut dice = Dice::new();
    let (mut refused, mut lines) = (0, String::new());
    for round in 0..3_000 {
        let slot = SLOTS[round % SLOTS.len()];
        let hostile = dice.text(&PIECES);
        match bench.compose(&step, arguments(slot, &hostile)) {
            Err(failed) => {
                let missing = failed.kind == "AttachmentMissing";
                assert!(failed.retry == Retryable::Never || missing, "{slot} {hostile:?}: {failed:?}");
                assert!(failed.kind != "TemplateError", "{slot} {hostile:?}: {failed:?}");
                refused += 1;
            }
            Ok((to, mail)) => {
                assert!((1..=3).contains(&to.len()), "{slot} {hostile:?} goes to {to:?}");
                let meant = ["to@b.test", "cc@b.test", "bcc@b.test"];
                let unmeant: Vec<_> = to.iter().filter(|to| !meant.contains(&to.as_str())).collect();
                // The slot's own address, and one only.
                let own = usize::from(["to", "name", "cc", "bcc"].contains(&slot));
                assert!(unmeant.len() <= own, "{slot} {hostile:?} goes to {to:?}");
                // The envelope's order is to, cc, bcc.
                let hidden =
                    if slot == "bcc" { 2 } else { to.iter().position(|to| to == meant[2]).unwrap_or(to.len()) };
                let shown: Vec<_> = to.iter().take(hidden).collect();
                let case = json!({"slot": slot, "hostile": hostile, "shown": shown, "mail": base64(&mail)});
                lines += &format!("{case}\n");
            }
        }
    }
    let written = lines.lines().count();
    assert!(refused > 1_000 && written > 500, "{refused} refused, {written} written");
    assert_eq!(python(READER, lines.as_bytes()), b"read\n");
    println!("3000 hostile mails: {refused} refused, {written} as they were meant");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What an argument says stays text: it is not a template, and no tag.
#[tokio::test]
async fn an_argument_is_no_template_and_no_tag() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let hostile = "{{ 7 * 7 }}{% include 'layout.html' %}{{ vars }}<img src=x onerror=alert(1)>\"' onclick='x";
    for (name, field) in [
        ("welcome", "user_name"),
        ("welcome", "username"),
        ("job_application", "applicant_name"),
        ("job_application", "job_title"),
        ("job_application", "job_id"),
        ("job_application", "applicant_email"),
        ("message", "message_preview"),
        ("message", "sender_name"),
        ("password_reset", "reset_token"),
        ("password_reset", "user_name"),
    ] {
        let mut args = json!({
            "user_email": "a@b.test", "user_name": "Ann", "username": "ann", "employer_name": "Bob", "job_title": "Chef",
            "applicant_name": "Ann", "applicant_email": "ann@x.test", "job_id": 17, "recipient_name": "Ann",
            "sender_name": "Bob", "message_preview": "Hi", "reset_token": "t",
        });
        args[field] = json!(hostile);
        let step = EmailStep { template: Some(template(name)), subject: template("Hi"), ..step() };
        let mail = read(&success(send(&config, step, args).await));
        let (html, plain) = (text(&mail, "html"), text(&mail, "text"));
        assert!(
            !html.contains("49") || html.matches("49").count() == html.matches("#5c4949").count(),
            "{name} {field}: {html}"
        );
        assert!(!html.contains("<img") && !html.contains("' onclick"), "{name} {field}: {html}");
        assert_eq!(html.matches("<!DOCTYPE").count(), 1, "{name} {field}: nothing is included");
        assert!(!plain.contains("49") && !plain.contains("<!DOCTYPE"), "{name} {field}: {plain}");
    }
}
