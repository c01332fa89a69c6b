//! The rules of the source that the compiler does not know: which module may import which, where time and keys come
//! from, what every file begins with, and how long it may be.
//!
//! One test applies all rules to `src/`; the others give them small bad files, so that a rule that sees nothing is noticed.

mod imports;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use rules::{File, LONG_WITH_REASON, LONGEST_FILE, MAY_IMPORT, lengths, may_import, violations};

#[test]
fn src_keeps_the_rules() {
    let files = read_src();
    assert!(files.iter().any(|file| file.path == "main.rs"), "src/main.rs was not found");
    let violations = violations(&files, LONG_WITH_REASON);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_table_has_no_cycle_and_no_face_imports_a_face() {
    // Taking away, round by round, every module whose imports are gone leaves nothing exactly if there is no cycle.
    let mut left: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    loop {
        let before = left.clone();
        left.retain(|module| before.iter().any(|target| may_import(module, target)));
        if left == before {
            break;
        }
    }
    assert!(left.is_empty(), "these import each other in a circle: {left:?}");

    let faces = ["intake", "scheduler", "flows", "pool", "admin"];
    for (module, targets) in MAY_IMPORT.iter().filter(|(module, _)| faces.contains(module)) {
        assert!(!targets.iter().any(|target| faces.contains(target)), "the face {module} imports a face");
    }
}

fn read_src() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("folders below src/ are readable") {
            let path = entry.expect("entries of src/ are readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "lua") {
                let text = std::fs::read_to_string(&path).expect("source files are UTF-8");
                let path = path.strip_prefix(&src).expect("the walk began at src/");
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// A small crate that keeps every rule, with one file replaced or added.
fn crate_with(path: &str, text: &str) -> Vec<String> {
    let mut files: Vec<File> = [
        "main",
        "daemon",
        "intake",
        "scheduler",
        "pool",
        "admin",
        "handler",
        "broker",
        "store",
        "config",
        "job",
        "clock",
        "control",
    ]
    .into_iter()
    .map(|name| File { path: format!("{name}.rs"), text: "//! Doc.\n".to_owned() })
    .filter(|file| file.path != path)
    .collect();
    files.push(File { path: path.to_owned(), text: text.to_owned() });
    violations(&files, &[])
}

#[test]
fn what_is_allowed_passes() {
    for (path, text) in [
        ("main.rs", "//! Doc.\nmod daemon;\nfn main() { daemon::run(); control::x(); }"),
        (
            "pool/mod.rs",
            "//! Doc.\nuse crate::{broker::Broker, handler, clock::now, control};\nmod tests { use super::*; }",
        ),
        ("pool/mod.rs", "//! Doc.\nuse std::time::Instant; fn f() { Instant::now(); }"),
        ("store/keys.rs", "//! Doc.\nfn f() { format!(\"jobsd:{{{q}}}:pending\") }"),
        ("main.rs", "//! Doc.\nfn f() { eprintln!(\"jobsd: {error}\") }"),
        ("clock.rs", "//! Doc.\nfn now() { SystemTime::now() }"),
        (
            "bin/jobsd-video/main.rs",
            "//! Doc.\nuse ffmpeg_next as ffmpeg; mod store; use crate::store::X; fn f() { SystemTime::now() }",
        ),
        (
            "broker/scripts/claim.lua",
            "-- Claims jobs.\n--\n-- KEYS: 1 the list\n-- ARGV: 1 now\n-- Returns the ids.\nreturn 1",
        ),
    ] {
        assert_eq!(crate_with(path, text), [""; 0], "{path}: {text}");
    }
}

#[test]
fn what_is_forbidden_is_reported_with_its_place() {
    for (path, text, expected) in [
        ("pool.rs", "//! Doc.\nuse crate::admin::X;", "src/pool.rs:2: `pool` may not import `admin`"),
        (
            "intake/rq.rs",
            "//! Doc.\n\nfn f() { crate::pool::go() }",
            "src/intake/rq.rs:3: `intake` may not import `pool`",
        ),
        (
            "store/record.rs",
            "//! Doc.\nuse super::super::broker::B;",
            "src/store/record.rs:2: `store` may not import `broker`",
        ),
        ("main.rs", "//! Doc.\nfn main() { store::open() }", "src/main.rs:2: `main` may not import `store`"),
        ("job.rs", "//! Doc.\nuse crate::clock::now;", "src/job.rs:2: `job` may not import `clock`"),
        ("clock.rs", "//! Doc.\nuse crate::config::C;", "src/clock.rs:2: `clock` may not import `config`"),
        ("broker.rs", "//! Doc.\nuse crate::helper;", "src/broker.rs:2: `broker` may not import `main`"),
        (
            "util.rs",
            "//! Doc.",
            "src/util.rs: the module `util` has no line in MAY_IMPORT of tests/architecture/rules.rs",
        ),
        (
            "job/retry.rs",
            "//! Doc.\nuse tokio::time::sleep;",
            "src/job/retry.rs:2: `job` is pure and may not use `tokio`",
        ),
        (
            "job/retry.rs",
            "//! Doc.\nuse std::time::Instant;",
            "src/job/retry.rs:2: `job` is pure and may not use `Instant`",
        ),
        (
            "broker.rs",
            "//! Doc.\nfn f() { chrono::Utc::now() }",
            "src/broker.rs:2: `Utc::now` belongs in src/clock.rs; ask the clock",
        ),
        (
            "admin.rs",
            "//! Doc.\nconst K: &str = \"jobsd:inbox\";",
            "src/admin.rs:2: a Redis key is written here; keys are built in src/store/keys.rs",
        ),
        (
            "broker.rs",
            "//! Doc.\nfn f() { format!(\"{prefix}:{{{queue}}}:pending\") }",
            "src/broker.rs:2: a Redis key is written here; keys are built in src/store/keys.rs",
        ),
        (
            "handler.rs",
            "//! Doc.\nuse ffmpeg_next::x;",
            "src/handler.rs:2: `ffmpeg_next` is for src/bin/jobsd-video/ only",
        ),
        (
            "bin/jobsd-video/spec.rs",
            "fn f() {}",
            "src/bin/jobsd-video/spec.rs:1: does not begin with a module doc (`//! …`)",
        ),
        ("control.rs", "use x;\n//! late", "src/control.rs:1: does not begin with a module doc (`//! …`)"),
        (
            "broker/scripts/a.lua",
            "-- Does.\n-- KEYS: none\n-- returns 1\nreturn 1",
            "src/broker/scripts/a.lua: the header does not name ARGV",
        ),
        (
            "broker/scripts/a.lua",
            "-- D.\n-- KEYS ARGV Returns\nlocal k = 'jobsd:x'",
            "src/broker/scripts/a.lua: line 3 spells a key; keys come in as KEYS",
        ),
        (
            "broker/scripts/a.lua",
            "-- D.\n-- KEYS ARGV Returns\nredis.call('TIME')",
            "src/broker/scripts/a.lua: line 3 asks a clock; time comes in as ARGV",
        ),
    ] {
        assert_eq!(crate_with(path, text), [expected], "{path}: {text}");
    }
    let headless = crate_with("broker/scripts/a.lua", "return 1");
    assert_eq!(headless.len(), 4, "a script without a header misses four things: {headless:?}");
}

#[test]
fn a_long_file_needs_a_reason_and_a_reason_a_long_file() {
    let long = |lines: usize| vec![File { path: "pool.rs".to_owned(), text: "//! Doc.\n".repeat(lines) }];
    let because: &[_] = &[("pool.rs", "one table")];
    assert_eq!(lengths(&long(LONGEST_FILE), &[]), [""; 0]);
    assert_eq!(lengths(&long(LONGEST_FILE + 1), because), [""; 0]);
    assert_eq!(lengths(&long(LONGEST_FILE + 1), &[("pool.rs", "")]).len(), 1);
    assert_eq!(
        lengths(&long(LONGEST_FILE + 1), &[]),
        ["src/pool.rs: 501 lines, over 500: name its second concept, or give a reason"]
    );
    assert_eq!(lengths(&long(LONGEST_FILE), because), ["src/pool.rs: is in LONG_WITH_REASON and needs no reason"]);
}
