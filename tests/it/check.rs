//! `jobsd check` and a start with a bad file, by the executable: every message word for word, and the exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// EX_CONFIG of sysexits(3).
const CONFIG: Option<i32> = Some(78);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check")
}

fn jobsd(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobsd"));
    command.args(arguments).current_dir(dir).env_clear().output().expect("jobsd starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text_of(said: &Output) -> String {
    text(&said.stdout) + &text(&said.stderr)
}

#[test]
fn every_invalid_file_gets_its_message_and_78() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("plain names"))
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 40, "only {} files", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let expected =
            fs::read_to_string(folder().join(name).with_extension("expected")).expect("its message is beside it");
        let said = jobsd(&["check", "--config", name], &folder());
        if said.status.code() != CONFIG || text(&said.stderr) != expected || !said.stdout.is_empty() {
            wrong.push(format!("=== {name}: {}\n{}--- instead of\n{expected}", said.status, text(&said.stderr)));
        }
        let json = jobsd(&["check", "--json", "--config", name], &folder());
        let answer: Value =
            serde_json::from_slice(&json.stdout).unwrap_or_else(|_| panic!("{name}: {}", text(&json.stdout)));
        let problems = expected.matches(": error: ").count();
        let found =
            answer["diagnostics"].as_array().map_or(0, |all| all.iter().filter(|d| d["severity"] == "error").count());
        if json.status.code() != CONFIG || answer["valid"] != false || found != problems {
            wrong.push(format!("=== {name} as JSON: {}, {problems} problems expected\n{answer:#}", json.status));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

#[test]
fn a_daemon_does_not_start_with_a_bad_file() {
    let said = jobsd(&["run", "--config", "unknown-key.toml"], &folder());
    assert_eq!(said.status.code(), CONFIG);
    let expected = fs::read_to_string(folder().join("unknown-key.expected")).expect("its message is beside it");
    assert_eq!(text(&said.stderr), expected);
}

/// What the file names is looked at too, and nothing is called valid with which a daemon would not start.
#[test]
fn what_a_file_names_must_work() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("templates")).expect("a folder");
    fs::write(dir.path().join("templates/welcome.html"), "<p>{{ user_name </p>").expect("written");
    fs::write(dir.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\nno\n").expect("written");
    fs::write(dir.path().join("broken.json"), "{\"type\": \"service_account\"}").expect("written");
    let smtp = "[email]\nprovider = \"smtp\"\n[email.smtp]\nhost = \"localhost\"\nca_file = ";
    let query = "SELECT token FROM devices WHERE user_id = :user_id";
    let fcm = format!("[push]\nprovider = \"fcm\"\ntokens_query = \"{query}\"\n[push.fcm]\ncredentials = ");
    let http = "[http]\nca_file = ";
    let cases = [
        ("[email]\ntemplates = \"templates\"\n".to_owned(), "read the mail template welcome.html: syntax error"),
        (format!("{smtp}\"missing.pem\"\n"), "jobsd.toml:5:11: error: cannot read the file missing.pem: No such file"),
        (format!("{smtp}\"broken.pem\"\n"), "read the certificate authority broken.pem"),
        (format!("{fcm}\"missing.json\"\n"), "jobsd.toml:5:15: error: cannot read the file missing.json: No such file"),
        (format!("{fcm}\"broken.json\"\n"), "read the service account broken.json"),
        (format!("{http}\"missing.pem\"\n"), "jobsd.toml:2:11: error: cannot read the file missing.pem: No such file"),
        (format!("{http}\"broken.json\"\n"), "prepare the HTTP client: read the certificates in broken.json"),
    ];
    for (text, expected) in cases {
        fs::write(dir.path().join("jobsd.toml"), &text).expect("written");
        for verb in ["check", "run"] {
            let said = jobsd(&[verb], dir.path());
            assert_eq!(said.status.code(), CONFIG, "{verb} of\n{text}{}", text_of(&said));
            assert!(text_of(&said).contains(expected), "{verb} of\n{text}{}", text_of(&said));
        }
        let json = jobsd(&["check", "--json"], dir.path());
        let answer: Value = serde_json::from_slice(&json.stdout).expect("JSON");
        assert_eq!((&answer["valid"], answer["diagnostics"].as_array().map(Vec::len)), (&Value::Bool(false), Some(1)));
    }
}

#[test]
fn a_missing_file_is_named() {
    let said = jobsd(&["check", "--config", "no-such-file.toml"], &folder());
    assert_eq!(said.status.code(), CONFIG);
    assert!(text(&said.stderr).contains("no-such-file.toml"), "{}", text(&said.stderr));
}

#[test]
fn the_shipped_file_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = jobsd(&["check", "--config", "jobsd.toml"], root);
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(text(&said.stdout), "jobsd.toml: valid\n");
    let json = jobsd(&["check", "--json", "--config", "jobsd.toml"], root);
    let answer: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&answer["valid"], &answer["diagnostics"]), (&Value::Bool(true), &Value::Array(Vec::new())));
}
