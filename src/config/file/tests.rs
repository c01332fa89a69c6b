//! The shipped file, the folder of invalid ones, and files that nobody would write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{SlotOrder, SlotRules, diff};

/// The shipped file.
const SHIPPED: &str = include_str!("../../../jobsd.toml");
/// Where its examples begin, which are no defaults.
const EXAMPLES: &str = "# ==== Examples";

fn no_environment(_: &str) -> Option<String> {
    None
}

fn checked(text: &str) -> Result<Loaded, Problems> {
    parse(text, Path::new("jobsd.toml"), &no_environment, &MAIL_TEMPLATES)
}

fn valid(text: &str) -> Loaded {
    checked(text).unwrap_or_else(|problems| panic!("the file has problems:\n{problems}"))
}

/// The file with its commented keys and tables in force; `keep` says which lines.
fn uncommented(text: &str, keep: impl Fn(&str) -> bool) -> String {
    let is_key = |line: &str| {
        let name = line.split(['=', ']']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.[ ".contains(c);
        line.contains(['=', ']']) && !line.starts_with(' ') && name.chars().all(plain)
    };
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if is_key(key) && keep(line) => key.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn has_default(line: &str) -> bool {
    !line.contains("# no default")
}

#[test]
fn the_shipped_file_is_valid_in_an_empty_environment() {
    let Loaded { config, warnings } = valid(SHIPPED);
    assert_eq!(warnings, []);
    assert_eq!((config.queues.len(), config.tasks.len(), config.schedules.len()), (4, 17, 3));
}

#[test]
fn uncommenting_a_default_changes_nothing() {
    let (defaults, _) = SHIPPED.split_once(EXAMPLES).expect("the examples are marked");
    // A daemon of a shell's, and the one of the shipped unit.
    let shell: Environment<'_> = &no_environment;
    let systemd: Environment<'_> = &|name| (name == "STATE_DIRECTORY").then(|| "/var/lib/jobsd".to_owned());
    let keys: Environment<'_> = &|name| name.starts_with(['A', 'M', 'S']).then(|| "us-east-1".to_owned());
    let providers = [("smtp", shell), ("sendgrid", keys), ("ses", keys), ("mailgun", keys)];
    for (provider, env) in [("outbox", shell), ("outbox", systemd)].into_iter().chain(providers) {
        let config =
            |text: &str| parse(text, Path::new("jobsd.toml"), env, &MAIL_TEMPLATES).expect("it is valid").config;
        let written = defaults.replace("${EMAIL_PROVIDER:-outbox}", provider);
        let spelled_out = uncommented(&written, has_default);
        assert_ne!(written, spelled_out);
        assert_eq!(diff(&config(&written), &config(&spelled_out)).to_string(), "nothing changed");
    }
}

#[test]
fn uploads_are_in_the_state_folder_unless_a_variable_says_where() {
    let roots = |text: &str, variable: &'static str, value: &'static str| {
        let env = |name: &str| (name == variable).then(|| value.to_owned());
        parse(text, Path::new("jobsd.toml"), &env, &MAIL_TEMPLATES).expect("it is valid").config.video.input_roots
    };
    let cases = [
        (SHIPPED, "", "", "./state/uploads"),
        (SHIPPED, "STATE_DIRECTORY", "/var/lib/jobsd", "/var/lib/jobsd/uploads"),
        (SHIPPED, "UPLOAD_ROOT", "/srv/uploads", "/srv/uploads"),
        ("", "STATE_DIRECTORY", "/var/lib/jobsd", "/var/lib/jobsd/uploads"),
        ("video.input_roots = [\"${UPLOAD_ROOT:-}\", \"/srv/b\"]", "", "", "/srv/b"),
    ];
    for (text, variable, value, expected) in cases {
        assert_eq!(roots(text, variable, value), [Path::new(expected)], "{variable}={value}");
    }
    assert_eq!(roots("video.input_roots = []", "", ""), Vec::<PathBuf>::new());
    assert!(checked("video.input_roots = [\"\"]").is_err());
}

/// Every key that the walk asks for stands in the shipped file, commented or not, in a table of the same kind.
#[test]
fn every_key_is_shown() {
    let all = uncommented(SHIPPED, |_| true)
        // Pairs of which only one may be given; each is looked for by its name below.
        .replace("retry.delays", "shown_delays")
        .replace("retry.for", "shown_for")
        .replace("retry.never", "shown_never");
    let tree = DeTable::parse(&all).expect("un-commented, the file is still TOML");
    let mut shown = BTreeSet::new();
    collect(tree.get_ref(), "", &mut shown);
    let asked = walk(SHIPPED, Path::new("jobsd.toml"), &no_environment, &MAIL_TEMPLATES).1;
    let examples = uncommented(SHIPPED, |_| true);
    let asked: BTreeSet<_> = asked
        .into_iter()
        .chain(walk(&examples, Path::new("jobsd.toml"), &no_environment, &MAIL_TEMPLATES).1)
        .map(|(table, key)| kind(&format!("{table}.{key}")))
        .collect();
    let missing: Vec<_> = asked.difference(&shown).collect();
    assert!(missing.is_empty(), "jobsd.toml does not show: {missing:#?}");
    assert!(asked.len() > 90, "the walk asked for {} keys only", asked.len());
}

/// The path of a key with what the operator chose replaced: `queues.emails.timeout` → `queues.*.timeout`.
fn kind(path: &str) -> String {
    let path = path.trim_start_matches('.');
    let mut parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    if parts.len() > 1 && ["queues", "tasks", "schedules"].contains(&parts[0]) {
        parts[1] = "*";
    }
    // A step is the same alone and in a list, as is a statement; a parameter is the same whatever it is called.
    parts.retain(|part| !part.starts_with("steps["));
    for part in parts.iter_mut().filter(|part| part.starts_with("statements[")) {
        *part = "statements";
    }
    if parts.first() == Some(&"tasks") && parts.len() > 3 && parts[2] == "params" {
        parts[3] = "*";
    }
    let path = parts.join(".");
    let path = path.replace("queues.*.shown_", "queues.*.retry.").replace("tasks.*.retry", "queues.*.retry");
    path.replace("tasks.*.limit", "queues.*.limit")
}

fn collect(table: &DeTable<'_>, path: &str, shown: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{path}.{}", key.get_ref());
        shown.insert(kind(&path));
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => collect(inner, &path, shown),
            toml::de::DeValue::Array(items) => {
                for item in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    collect(item, &path.replace(".steps", ""), shown);
                }
            }
            _ => {}
        }
    }
}

/// Each invalid file has its exact messages beside it. With `JOBSD_BLESS=1` they are written instead of compared.
#[test]
fn invalid_files_are_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 40, "only {} files", files.len());
    let mut wrong = String::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("it can be read");
        let name = PathBuf::from(file.file_name().expect("it has a name"));
        let outcome = match std::str::from_utf8(&bytes) {
            Ok(text) => parse(text, &name, &no_environment, &MAIL_TEMPLATES),
            Err(error) => Err(not_utf8(&bytes, error.valid_up_to(), &name)),
        };
        let problems = match outcome {
            Err(problems) => format!("{problems}\n"),
            Ok(_) => panic!("{} has no problem", file.display()),
        };
        assert!(!problems.contains("hunter2"), "{} lets out a secret:\n{problems}", file.display());
        let expected = file.with_extension("expected");
        if std::env::var_os("JOBSD_BLESS").is_some() {
            std::fs::write(&expected, &problems).expect("it can be written");
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(&problems) {
            wrong += &format!("=== {}\n{problems}", file.display());
        }
    }
    assert!(wrong.is_empty(), "these differ from the .expected beside them:\n{wrong}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let problems = load(Path::new("/nonexistent/jobsd.toml"), &no_environment).expect_err("there is none");
    assert_eq!(
        problems.to_string(),
        "/nonexistent/jobsd.toml: error: cannot read the file: No such file or directory (os error 2)\n  \
         help: name the file with --config, and let the user of jobsd read it\n\n1 problem in /nonexistent/jobsd.toml"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("jobsd.toml");
    std::fs::write(&large, vec![b'#'; 5 << 20]).expect("written");
    assert!(load(&large, &no_environment).is_err());
    std::fs::write(&large, SHIPPED).expect("written");
    assert!(load(&large, &no_environment).is_ok());
}

#[test]
fn a_folder_of_mail_templates_adds_its_names() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("farewell.html"), "bye").expect("written");
    let file = |template: &str| {
        format!(
            "[email]\ntemplates = {:?}\n[queues.q]\n[tasks.t]\nqueue = \"q\"\n\
             email = {{ to = \"a@b.c\", subject = \"x\", template = \"{template}\" }}\n",
            folder.path()
        )
    };
    valid(&file("farewell"));
    valid(&file("welcome"));
    valid(&file("{{ 'chosen' }}"));
    assert!(checked(&file("farewel")).is_err());
}

/// What people copy out of the README works as it stands.
#[test]
fn the_readmes_examples_are_valid() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(!blocks.is_empty(), "the README shows no configuration");
    for block in blocks {
        valid(block);
    }
}

#[test]
fn a_nodes_name_is_the_hosts() {
    let config = valid("").config;
    let host = std::process::Command::new("uname").arg("-n").output().expect("uname starts").stdout;
    let host = String::from_utf8_lossy(&host);
    let same = |(ours, theirs): (char, char)| ours == theirs || ours == '_';
    assert!(config.node.name.chars().zip(host.chars()).all(same), "{} on {host}", config.node.name);
}

/// A generator good enough to hurt: xorshift, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).expect("it is below a usize")
    }
}

const FRAGMENTS: [&str; 28] = [
    "\"",
    "'",
    "\"\"\"",
    "{",
    "}",
    "[",
    "]",
    "[[",
    "=",
    ",",
    "\n",
    "#",
    "{{",
    "}}",
    "{%",
    "${",
    "$$",
    "é",
    "\u{1F980}",
    "-1",
    "99999999999999999999",
    "nan",
    "true",
    "cred:",
    ":x",
    "0x_",
    "1e999",
    "\u{0}",
];

#[test]
fn no_mutation_of_the_file_panics() {
    let everything = uncommented(SHIPPED, |_| true);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..1500 {
        let mut text: Vec<char> = if round % 2 == 0 { everything.chars().collect() } else { SHIPPED.chars().collect() };
        // Short files are quick, and keep a mutation from being the only thing of note in a long one.
        let start = random.below(text.len());
        text.rotate_left(if round % 3 == 0 { 0 } else { start });
        text.truncate(200 + random.below(6000));
        for _ in 0..=random.below(6) {
            let at = random.below(text.len());
            let end = (at + random.below(12)).min(text.len());
            match random.below(3) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, FRAGMENTS[random.below(FRAGMENTS.len())].chars())),
                _ => drop(text.splice(at..end, FRAGMENTS[random.below(FRAGMENTS.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = checked(&text) {
            assert!(!problems.diagnostics.is_empty());
            assert!(problems.to_string().ends_with("in jobsd.toml"));
        }
    }
}

/// Whole lines lost, doubled or swapped keep the file TOML, so that the checks behind the syntax are reached.
#[test]
fn no_shuffle_of_its_lines_panics() {
    let everything = uncommented(SHIPPED, |_| true);
    let values = [
        "1",
        "\"x\"",
        "[]",
        "{}",
        "true",
        "1.5",
        "[1, \"${X}\"]",
        "1979-05-27",
        "\"{{ x | y }}\"",
        "{ a = { b = 1 } }",
    ];
    let mut random = Random(42);
    for _ in 0..200 {
        let mut lines: Vec<String> = everything.lines().map(str::to_owned).collect();
        for _ in 0..=random.below(30) {
            let at = random.below(lines.len());
            match (random.below(2), lines[at].split_once('=').map(|(key, _)| key.to_owned())) {
                (0, Some(key)) => lines[at] = format!("{key} = {}", values[random.below(values.len())]),
                _ => drop(lines.remove(at)),
            }
        }
        let _ = checked(&lines.join("\n"));
    }
}

#[test]
fn a_secret_of_the_environment_is_in_no_message() {
    let env = |name: &str| match name {
        "REDIS_URL" => Some("http://:hunter2@host".to_owned()),
        "DATABASE_URL" => Some("mysql://u:hunter2@host".to_owned()),
        "TOKEN" => Some("hunter2".to_owned()),
        _ => None,
    };
    let text = format!("{SHIPPED}\n").replace("[admin]\n", "[admin]\ntoken = \"${TOKEN}\"\n");
    let problems = parse(&text, Path::new("jobsd.toml"), &env, &MAIL_TEMPLATES).expect_err("all three are unfit");
    assert_eq!(problems.diagnostics.len(), 3, "{problems}");
    assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");
}

/// Whatever breaks around them: a fragment between any two tokens of a file full of literal secrets.
#[test]
fn no_broken_file_shows_its_secrets() {
    const FILE: &str = r#"
[redis]
url = "redis://user:hunter2@host:6379/0" # the cache
[admin]
token = 'hunter2'
max_body = 5
[database]
url = "postgres://app:hunter2@host/app"
[email]
smtp = { host = "h", password = "hunter2", tls = "tsl" }
[vars]
"api_key" = "hunter2"
cookie = """
hunter2
hunter2"""
nested = { client_secret = ["hunter2", "hunter2"], x = 1 }
[tasks.t]
queue = "q"
http = { url = "x", headers = { Authorization = "Bearer hunter2", X-Api-Key = "hunter2" } }
"#;
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let chars: Vec<char> = FILE.chars().collect();
    let gaps = (1..chars.len()).filter(|&at| !(is_word(chars[at - 1]) && is_word(chars[at])));
    for at in gaps {
        // Every third fragment, another third in the next gap. The name of a credential is no secret.
        for fragment in FRAGMENTS.into_iter().skip(at % 3).step_by(3).filter(|&fragment| fragment != "cred:") {
            let text: String =
                chars[..at].iter().copied().chain(fragment.chars()).chain(chars[at..].iter().copied()).collect();
            let problems = checked(&text).expect_err("it was broken from the start").to_string();
            assert!(!problems.contains("hunter2"), "{fragment:?} at {at} lets out a secret of\n{text}\n{problems}");
        }
    }
}

#[test]
fn secrets_come_from_files_and_credentials() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("admin-token"), "0123456789abcdef\n").expect("written");
    let path = folder.path().display().to_string();
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| path.clone());
    let by_file = format!("admin.token_file = \"{path}/admin-token\"");
    for text in ["admin.token = \"cred:admin-token\"", &by_file] {
        let loaded = parse(text, Path::new("jobsd.toml"), &env, &[]).expect("it is valid");
        assert_eq!(loaded.warnings, []);
        let token = loaded.config.admin.token.expect("a token");
        assert_eq!(token.expose(), "0123456789abcdef", "{text}");
    }
    let problems = parse("admin.token = \"cred:other\"", Path::new("jobsd.toml"), &env, &[]).expect_err("no such one");
    assert!(problems.to_string().contains("cannot read the secret in"), "{problems}");
}

#[test]
fn what_deserves_a_look_is_a_warning() {
    let text = "[admin]\ntoken = \"hunter2-hunter2-hunter2\"\n[redis]\nurl = \"redis://u:hunter2@h/0\"\n\
                [queues.q]\n[tasks.t]\nqueue = \"q\"\nnames = [\"a.b\"]\nprobe = \"echo\"\n";
    let warnings = valid(text).warnings;
    let shown: String = warnings.iter().map(Diagnostic::to_string).collect();
    assert_eq!(warnings.len(), 3, "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.starts_with("jobsd.toml:2:9: warning: `admin.token` is written into the file\n  2 | token = \"***\"\n"),
        "{shown}"
    );
}

#[test]
fn keys_of_redis_that_have_no_effect_are_warned_of() {
    let text = "[redis]\nurl = \"redis://h/0\"\nsentinel_password = \"cred:s\"\nca_file = \"/nonexistent/ca.pem\"\n";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("s"), "hunter2").expect("written");
    let path = folder.path().display().to_string();
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| path.clone());
    let warnings = parse(text, Path::new("jobsd.toml"), &env, &[]).expect("it is valid").warnings;
    let shown: Vec<String> = warnings.iter().map(Diagnostic::to_string).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].contains("`redis.sentinel_password` has no effect: redis.url names no Sentinels"), "{shown:?}");
    assert!(shown[1].contains("`redis.ca_file` has no effect: redis.url does not ask for TLS"), "{shown:?}");
}

#[test]
fn what_has_no_effect_without_a_bound_of_the_node_is_a_warning() {
    let text = "[node]\norder = \"strict\"\nstarve_after = \"5s\"\n[queues.q]\nweight = 3\n";
    let shown: String = valid(text).warnings.iter().map(Diagnostic::to_string).collect();
    assert_eq!(shown.matches("has no effect").count(), 3, "{shown}");
    assert!(shown.contains("jobsd.toml:5:1: warning: `weight` has no effect"), "{shown}");
    let loaded = valid(&text.replace("[node]", "[node]\nconcurrency = 2"));
    assert_eq!(loaded.warnings, []);
    let order = SlotOrder::Strict { starve_after: std::time::Duration::from_secs(5) };
    assert_eq!(loaded.config.node.slots, SlotRules { bound: Some(2), order });
    assert_eq!(loaded.config.queues.values().map(|queue| queue.weight).collect::<Vec<_>>(), [3]);
}

#[test]
fn what_is_left_out_of_retry_comes_from_the_queue() {
    let text = "[queues.q]\nretry = { limit = 7, backoff = \"fixed\", delay = \"5s\" }\n\
                [tasks.t]\nqueue = \"q\"\nprobe = \"echo\"\nretry = { limit = 1 }\n\
                [tasks.u]\nqueue = \"q\"\nprobe = \"echo\"\nretry = { delays = [\"1s\", \"2s\"] }\n";
    let config = valid(text).config;
    let retry = |task: &str| config.tasks.get(task).and_then(|task| task.retry.clone()).expect("it has its own");
    let seconds = std::time::Duration::from_secs;
    assert_eq!((retry("t").limit, retry("t").backoff), (1, crate::job::Backoff::Fixed { delay: seconds(5) }));
    let list = crate::job::Backoff::List { delays: vec![seconds(1), seconds(2)] };
    assert_eq!((retry("u").limit, retry("u").backoff), (2, list));
}

#[test]
fn retry_has_short_forms() {
    let env = |name: &str| (name == "RETRIES").then(|| "7".to_owned());
    let (seconds, hours) = (std::time::Duration::from_secs, |hours: u64| std::time::Duration::from_secs(hours * 3600));
    let cases = [
        ("5", 5, None, hours(1)),
        ("0", 0, None, hours(1)),
        ("false", 0, None, hours(1)),
        ("\"${RETRIES}\"", 7, None, hours(1)),
        ("[\"5s\", \"2h\"]", 2, Some(crate::job::Backoff::List { delays: vec![seconds(5), hours(2)] }), hours(2)),
        ("{ backoff = \"sidekiq\" }", 25, Some(crate::job::Backoff::Sidekiq), hours(720)),
        ("{ for = \"24h\" }", 1000, None, hours(1)),
    ];
    for (written, limit, backoff, max_delay) in cases {
        let text = format!("[queues.q]\nretry = {written}\n");
        let config = parse(&text, Path::new("jobsd.toml"), &env, &[]).expect("it is valid").config;
        let policy = config.queues["q"].retry.clone();
        let usual = super::retry::default_policy();
        let backoff = backoff.unwrap_or(usual.backoff);
        assert_eq!((policy.limit, policy.backoff, policy.max_delay), (limit, backoff, max_delay), "{written}");
        assert_eq!(policy.span, written.contains("for").then(|| hours(24)));
    }
}

#[test]
fn a_failure_that_no_handler_reports_is_a_warning() {
    let text = "[queues.q]\nretry.never = [\"InvalidRecipient\", \"SmtpRejectd\", \"Http4*\", \"TimeLimitExceeded\"]\n";
    let warnings = valid(text).warnings;
    let shown: String = warnings.iter().map(Diagnostic::to_string).collect();
    assert_eq!(warnings.len(), 2, "{shown}");
    for words in ["2:16: warning: no handler reports a failure \"InvalidRecipient\"", "did you mean \"SmtpRejected\"?"]
    {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
}

#[test]
fn a_numbers_variable_may_hold_it() {
    let env = |name: &str| (name == "N").then(|| "7".to_owned());
    let text = "[queues.q]\nconcurrency = \"${N}\"\n[queues.r]\nconcurrency = \"${M:-9}\"\n";
    let config = parse(text, Path::new("jobsd.toml"), &env, &[]).expect("it is valid").config;
    assert_eq!(config.queues.values().map(|queue| queue.concurrency.max).collect::<Vec<_>>(), [7, 9]);
}
