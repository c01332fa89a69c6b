//! Real programs: small scripts for `/bin/sh`.

mod hostile;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::config::{ExecLimits, ExecUser, Step};
use crate::handler::{Attempt, Handlers, Notepad};
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{self, failure};
use crate::testing::fixture::{self, template};
use crate::testing::process::{lives, pid_in};
use crate::testing::wait::until;

fn script(dir: &Path, body: &str) -> ExecStep {
    let path = dir.join("script");
    // Read by the shell, not started: a file that another test's fork still has open for writing cannot be started.
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("the script is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    ExecStep {
        program: "/bin/sh".into(),
        args: vec![template(path.to_str().expect("a UTF-8 path"))],
        env: Vec::new(),
        dir: None,
        user: None,
        limits: ExecLimits::default(),
        allow_options: false,
    }
}

/// The programs of these tests run under guards, and a guard is the test's own executable: told so, it does not become a
/// harness.
#[used]
#[unsafe(link_section = ".init_array")]
static BE_THE_GUARD: extern "C" fn() = be_the_guard;

extern "C" fn be_the_guard() {
    guard_if_told(std::env::args_os());
}

/// With a state folder below `dir`, as a daemon has one.
fn handlers(dir: &Path) -> Handlers {
    let config = fixture::config(dir);
    std::fs::create_dir_all(&config.node.state_dir).expect("a state folder");
    Handlers::new(&config).expect("the handlers are built")
}

async fn perform(step: ExecStep, args: Value) -> Outcome {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = handlers(dir.path());
    let task = fixture::task(vec![Step::Exec(step)]);
    handlers.perform(&Attempt { attempt: 3, ..attempt::first(&fixture::job(args), &task) }).await
}

#[tokio::test]
async fn the_program_gets_the_job_and_gives_the_result() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let outcome = perform(script(dir.path(), "cat"), json!({"name": "Ann"})).await;
    let job = json!({"id": fixture::JOB_ID, "task": "greet", "queue": "emails", "attempt": 3, "args": {"name": "Ann"}});
    assert_eq!(outcome, Outcome::Success(job));
    assert_eq!(perform(script(dir.path(), "echo two words"), Value::Null).await, Outcome::Success(json!("two words")));
    assert_eq!(perform(script(dir.path(), ":"), Value::Null).await, Outcome::Success(Value::Null));
}

#[tokio::test]
async fn what_it_says_while_it_runs_is_written_down_and_its_progress_is_no_part_of_the_result() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let script_text = r#"
        echo '{"jobsd": {"progress": 40.7, "message": "half"}}'
        echo '{'
        echo 'a warning' >&2
        echo '{"jobsd": {"progress": 90}}' >&2
        echo '"n": 1,'
        echo '{"jobsd": {"progress": 80}}'
        echo '"progress": 5}'"#;
    let (task, pad) = (fixture::task(vec![Step::Exec(script(dir.path(), script_text))]), Notepad::default());
    let (handlers, job) = (handlers(dir.path()), fixture::job(Value::Null));
    let attempt = Attempt { notepad: pad.clone(), ..attempt::first(&job, &task) };
    assert_eq!(handlers.perform(&attempt).await, Outcome::Success(json!({"n": 1, "progress": 5})));
    let page = pad.take(true).expect("it has said something");
    let said = |source| -> Vec<&str> {
        page.lines.iter().filter(|line| line.source == source).map(|line| line.text.as_str()).collect()
    };
    assert_eq!(said(Source::Stdout), ["{", "\"n\": 1,", "\"progress\": 5}"]);
    assert_eq!(said(Source::Stderr), ["a warning", r#"{"jobsd": {"progress": 90}}"#], "only stdout is listened to");
    assert_eq!(page.progress.and_then(|progress| progress.percent), Some(80));
}

#[test]
fn only_a_line_that_is_meant_for_us_is_progress() {
    assert_eq!(progress(br#" {"jobsd": {"message": "x"}} "#), Some((None, Some("x".to_owned()))));
    assert_eq!(progress(br#"{"jobsd": {"progress": 0, "message": null}}"#), Some((Some(0), None)));
    for line in [
        r#"{"progress": 40}"#,
        r#"{"jobsd": {"progress": 40}, "x": 1}"#,
        r#"{"jobsd": {"progress": 101}}"#,
        r#"{"jobsd": {"progress": "40"}}"#,
        r#"{"jobsd": {"progress": 40, "x": 1}}"#,
        r#"{"jobsd": {}}"#,
        r#"{"jobsd": 40}"#,
        r#"[{"jobsd": {"progress": 40}}]"#,
        r#"{"jobsd": {"progress": 40}"#,
        "",
    ] {
        assert_eq!(progress(line.as_bytes()), None, "{line}");
    }
}

#[tokio::test]
async fn arguments_are_not_read_by_a_shell() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut step = script(dir.path(), "printf '%s|' \"$@\"");
    step.args.extend([template("{{ x }}"), template("a b")]);
    let outcome = perform(step, json!({"x": "$(touch /tmp/never); `id` * '"})).await;
    assert_eq!(outcome, Outcome::Success(json!("$(touch /tmp/never); `id` * '|a b|")));
}

#[tokio::test]
async fn the_environment_is_what_was_allowed() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut step = script(dir.path(), "env | cut -d= -f1 | sort | tr '\\n' ' '; echo \"$JOBSD_JOB_ID $JOBSD_ATTEMPT\"");
    // Set by cargo for every test.
    step.env = vec!["CARGO_PKG_NAME".into(), "NEVER_SET".into()];
    let Outcome::Success(result) = perform(step, Value::Null).await else { panic!("it runs") };
    let words: Vec<&str> = result.as_str().expect("text").split_whitespace().collect();
    let (names, ids) = words.split_at(words.len() - 2);
    assert_eq!(ids, [fixture::JOB_ID, "3"]);
    let allowed = ["CARGO_PKG_NAME", "JOBSD_ATTEMPT", "JOBSD_JOB_ID", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    assert!(names.contains(&"CARGO_PKG_NAME") && names.contains(&"PATH"), "{names:?}");
}

#[tokio::test]
async fn the_program_runs_in_the_folder_of_the_step() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut step = script(dir.path(), "pwd -P");
    step.dir = Some(dir.path().to_owned());
    let folder = std::fs::canonicalize(dir.path()).expect("it is there");
    assert_eq!(perform(step.clone(), Value::Null).await, Outcome::Success(json!(folder)));
    step.dir = Some(dir.path().join("missing"));
    let failed = failure(perform(step, Value::Null).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("ExecStartError", Retryable::ByPolicy), "{}", failed.message);
}

#[tokio::test]
async fn exit_codes_say_whether_to_try_again() {
    let dir = tempfile::tempdir().expect("a temp dir");
    for (body, kind, retry, how) in [
        ("echo no >&2; exit 1", "ExecError", Retryable::ByPolicy, "ended with exit code 1"),
        ("echo no >&2; exit 65", "ExecError", Retryable::Never, "ended with exit code 65"),
        ("echo no >&2; kill -SEGV $$", "ExecKilled", Retryable::ByPolicy, "was ended by signal 11 (SIGSEGV)"),
    ] {
        let failed = failure(perform(script(dir.path(), body), Value::Null).await);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{body}");
        assert_eq!(failed.message, format!("failed to run /bin/sh: it {how}"));
        assert_eq!(failed.detail.as_deref(), Some("no\n"));
    }
}

#[tokio::test]
async fn exit_code_75_puts_the_job_off() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let wrong = "not yet (its `retry_after` is \"soon\", which is neither seconds nor a duration such as \"5m\")";
    let silent = "the program asked to be run later (exit code 75)";
    for (says, delay, reason) in [
        ("echo working; echo 'the feed is not ready' >&2", None, "the feed is not ready"),
        ("echo 'the feed is not ready'", None, "the feed is not ready"),
        (r#"echo '{"retry_after": 90, "reason": "not yet"}'"#, seconds(90), "not yet"),
        (r#"echo step 1; echo '{"retry_after": 90, "reason": "not yet"}'"#, seconds(90), "not yet"),
        (r#"printf '{\n  "retry_after": 90,\n  "reason": "not yet"\n}\n'"#, seconds(90), "not yet"),
        (r#"echo '[90]'"#, None, "[90]"),
        (r#"echo '{"retry_after": "1h 30m"}'; echo 'not yet' >&2"#, seconds(5400), "not yet"),
        (r#"echo '{"retry_after": "soon", "reason": "not yet"}'"#, None, wrong),
        (r#"echo '{"retry_after": 90}'"#, seconds(90), silent),
        (":", None, silent),
    ] {
        let outcome = perform(script(dir.path(), &format!("{says}; exit 75")), Value::Null).await;
        assert_eq!(outcome, Outcome::Snoozed { delay, reason: reason.to_owned() }, "{says}");
    }
    let long = perform(script(dir.path(), "head -c 3000000 /dev/zero | tr '\\0' x; exit 75"), Value::Null).await;
    let Outcome::Snoozed { reason, .. } = long else { panic!("{long:?}") };
    assert_eq!(reason.len(), MAX_REASON);
}

#[tokio::test]
async fn output_is_bounded_and_never_blocks_the_program() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let noisy =
        "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' e >&2; echo last >&2; exit 1";
    let failed = failure(perform(script(dir.path(), noisy), Value::Null).await);
    let detail = failed.detail.expect("stderr is kept");
    assert!(detail.len() == MAX_STDERR && detail.ends_with("elast\n"), "{} bytes", detail.len());
    let failed = failure(perform(script(dir.path(), "head -c 3000000 /dev/zero | tr '\\0' x"), Value::Null).await);
    assert_eq!(
        (failed.message.as_str(), failed.retry),
        ("failed to run /bin/sh: its answer is longer than 256 KiB", Retryable::Never)
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let step = ExecStep { program: "/nowhere/tool".into(), ..script(dir.path(), "") };
    let failed = failure(perform(step, Value::Null).await);
    assert_eq!(failed.kind, "ExecStartError");
    assert_eq!(failed.message, "failed to start /nowhere/tool: No such file or directory (os error 2)");
}

/// A process that had left the group used to outlive its job.
#[tokio::test]
async fn nothing_is_left_of_a_program_that_has_ended() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let [near, far] = ["near", "far"].map(|name| dir.path().join(name));
    let script_text = format!(
        "sleep 600 & echo $! > {}; setsid sh -c 'sleep 600 & echo $! > {}; wait' & while [ ! -s {} ]; do sleep 0.01; done; echo done",
        near.display(),
        far.display(),
        far.display()
    );
    assert_eq!(perform(script(dir.path(), &script_text), Value::Null).await, Outcome::Success(json!("done")));
    for file in [near, far] {
        let pid = pid_in(&file).await;
        assert!(!lives(pid), "{} is left", file.display());
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_program_that_was_stopped() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let [first, far, cleaned] = ["first", "far", "cleaned"].map(|name| dir.path().join(name));
    let script_text = format!(
        "trap 'echo yes > {}; exit 1' TERM; echo $$ > {}; \
         setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done' & while :; do sleep 0.05; done",
        cleaned.display(),
        first.display(),
        far.display()
    );
    let step = script(dir.path(), &script_text);
    let running = tokio::spawn(perform(step, Value::Null));
    let pids = [pid_in(&first).await, pid_in(&far).await];
    running.abort();
    for pid in pids {
        until("the process to end", || (!lives(pid)).then_some(())).await;
    }
    assert!(cleaned.exists(), "it had its time to clean up");
}

#[test]
fn nothing_is_left_when_the_runtime_ends() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let far = dir.path().join("far");
    let script_text = format!("trap '' TERM; setsid sh -c 'echo $$ > {}; sleep 600' & sleep 600", far.display());
    let step = script(dir.path(), &script_text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pid = runtime.block_on(async {
        tokio::spawn(perform(step, Value::Null));
        pid_in(&far).await
    });
    assert!(lives(pid));
    drop(runtime);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while lives(pid) {
        assert!(std::time::Instant::now() < deadline, "the process outlives the runtime");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_program_has_no_more_than_it_may() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut limited = script(dir.path(), "ulimit -n; ulimit -c; ulimit -d");
    limited.limits = ExecLimits { files: Some(64), memory: Some(256 << 20), cpu: None };
    assert_eq!(perform(limited, Value::Null).await, Outcome::Success(json!("64\n0\n262144")));

    // tail holds what has no line end.
    let mut hungry = script(dir.path(), "head -c 300000000 /dev/zero | tail -n 1 > /dev/null");
    hungry.limits.memory = Some(64 << 20);
    let failed = failure(perform(hungry, Value::Null).await);
    assert_eq!(failed.kind, "ExecError");
    assert!(failed.message.ends_with("and none may hold more than 64 MiB"), "{}", failed.message);

    let mut busy = script(dir.path(), "while :; do :; done");
    busy.limits.cpu = Some(Duration::from_secs(1));
    let failed = failure(perform(busy, Value::Null).await);
    let expected =
        "failed to run /bin/sh: it was ended by signal 24 (SIGXCPU); it had used up its 1s of processor time";
    assert_eq!((failed.kind.as_str(), failed.message.as_str()), ("ExecKilled", expected));

    let failed = failure(perform(script(dir.path(), "kill -9 $$"), Value::Null).await);
    assert!(
        failed.message.contains("(SIGKILL); if nobody did that, the machine was out of memory"),
        "{}",
        failed.message
    );
}

#[tokio::test]
async fn a_program_runs_as_the_user_of_the_step_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temp dir");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut step = script(dir.path(), "echo $(id -u) $(id -g) $(id -G)");
    step.user = Some(ExecUser { uid: 65534, gid: 65534 });
    let outcome = perform(step, Value::Null).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(outcome, Outcome::Success(json!("65534 65534 65534")), "and in no further group of ours");
    } else {
        let failed = failure(outcome);
        assert_eq!(failed.kind, "ExecStartError");
        assert!(failed.message.contains("only root may become another user"), "{}", failed.message);
    }
}

/// Each is one argument, word for word, or refused.
#[tokio::test]
async fn no_argument_becomes_an_option_or_another_argument() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let show = "printf '%s\\n' \"n=$#\" \"$@\"";
    for hostile in [
        "$(id)",
        "`id`",
        "; id",
        "| id",
        "&& id",
        "a b",
        "'\"",
        "*",
        "~",
        "../../etc/passwd",
        "a\nb",
        "{{ 7*7 }}",
        "${HOME}",
        "",
        "\u{1b}[2J",
    ] {
        let mut step = script(dir.path(), show);
        step.args.push(template("{{ x }}"));
        let outcome = perform(step, json!({"x": hostile})).await;
        assert_eq!(outcome, Outcome::Success(json!(format!("n=1\n{hostile}").trim_end())), "{hostile}");
    }
    for (args, x, refused) in [
        (vec!["{{ x }}"], "--rsh=/bin/sh", true),
        (vec!["{{ x }}"], "-", true),
        (vec!["{{ x }}/sub"], "-rf", true),
        (vec!["{{ x }}"], "-12.5", false),
        (vec!["--to={{ x }}"], "--rsh=/bin/sh", false),
        (vec!["--", "{{ x }}"], "--rsh=/bin/sh", false),
        (vec!["{{ x }}"], "a\0b", true),
    ] {
        let mut step = script(dir.path(), show);
        step.args.extend(args.iter().map(|arg| template(arg)));
        let outcome = perform(step.clone(), json!({"x": x})).await;
        if refused {
            let failed = failure(outcome);
            assert_eq!((failed.kind.as_str(), failed.retry), ("ExecArgumentRefused", Retryable::Never), "{args:?} {x}");
        } else {
            assert!(matches!(outcome, Outcome::Success(_)), "{args:?} {x}: {outcome:?}");
        }
        if !x.contains('\0') {
            step.allow_options = true;
            assert!(matches!(perform(step, json!({"x": x})).await, Outcome::Success(_)), "{args:?} {x}");
        }
    }
}
