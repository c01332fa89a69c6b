//! Arguments of somebody who wants another program to run than the one that was meant: each is one argument, word for
//! word, or refused. Long form: `JOBSD_HOSTILE=100000 cargo test --bin jobsd hostile -- --nocapture`.

use super::*;
use crate::testing::dice::{self, Dice};

/// What hostile texts are made of; `CANARY` is a file that nobody may make.
const PIECES: [&str; 40] = [
    "\n",
    "\r",
    "\t",
    " ",
    "\0",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{2028}",
    "é",
    "🏝",
    "-",
    "--",
    "-e",
    "--help",
    "--version",
    "--rsh=/bin/sh",
    "-rf",
    "=",
    "/",
    "../",
    "/etc/passwd",
    "~",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "'",
    "\"",
    "\\",
    "%s",
    "%n",
    "$HOME",
    "${IFS}",
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY",
    "| touch CANARY",
    "&& touch CANARY",
    "> CANARY",
    "{{ 7 * 7 }}",
];

/// Ends what printf(1) writes of one argument.
const END: char = '\u{1}';

#[tokio::test]
async fn hostile_arguments_are_arguments() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let canary = dir.path().join("canary");
    let mut step = script(dir.path(), "");
    step.program = "/usr/bin/printf".into();
    step.args = [&*format!("[%s{END}"), "{{ x }}", "--to={{ y }}", "-{{ z }}"].map(template).to_vec();
    let (handlers, task) = (handlers(dir.path()), fixture::task(vec![Step::Exec(step)]));
    let (rounds, mut dice) = (dice::hostile(200), Dice::new());
    let (count, mut refused) = (rounds.len(), 0);
    for round in rounds {
        let mut args = json!({"x": "a", "y": "b", "z": "c"});
        let hostile = dice.text(&PIECES).replace("CANARY", &canary.to_string_lossy());
        args[["x", "y", "z"][round % 3]] = json!(hostile);
        match attempt::perform(&handlers, &task, args.clone()).await {
            Outcome::Success(result) => {
                let [x, y, z] = ["x", "y", "z"].map(|name| args[name].as_str().expect("a text"));
                assert_eq!(result, json!(format!("[{x}{END}[--to={y}{END}[-{z}{END}")), "{args}");
            }
            outcome => {
                let failed = failure(outcome);
                assert_eq!((failed.kind.as_str(), failed.retry), ("ExecArgumentRefused", Retryable::Never), "{args}");
                let x = args["x"].as_str().expect("a text");
                assert!(hostile.contains('\0') || x.starts_with('-'), "{args}: {}", failed.message);
                refused += 1;
            }
        }
    }
    assert!(!canary.exists(), "a shell has read an argument");
    assert!(refused > count / 50 && refused < count / 2, "{refused} of {count} refused");
    println!("{count} hostile arguments: {refused} refused, {} word for word", count - refused);
}
