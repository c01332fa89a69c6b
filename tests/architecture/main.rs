//! The rules of the source that the compiler does not know: which module may import which, where time and keys come
//! from, what every file begins with, and how long it may be.
//!
//! Each rule is a function from files to violations. One test applies all of them to `src/`; the others give them small
//! bad files, so that a rule that sees nothing is noticed.

mod imports;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use imports::{ROOT, imports, module_path};
use source::{Kind, Token, tokens};

/// Who may import whom, top-level module by top-level module. The faces (intake, scheduler, pool, admin) never import
/// each other; they meet in the broker.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (ROOT, &["daemon", "cli", "config"]),
    ("cli", &["config"]),
    (
        "daemon",
        &[
            "intake",
            "scheduler",
            "pool",
            "admin",
            "handler",
            "broker",
            "store",
            "config",
            "job",
        ],
    ),
    ("intake", &["broker", "store", "config", "job"]),
    ("scheduler", &["broker", "store", "config", "job"]),
    ("pool", &["handler", "broker", "store", "config", "job"]),
    ("admin", &["broker", "store", "config", "job"]),
    ("handler", &["config", "job"]),
    ("broker", &["store", "config", "job"]),
    ("store", &["config", "job"]),
    ("config", &["job"]),
    ("job", &[]),
    // The clock answers in the domain's own unit of time; the domain never asks it.
    ("clock", &["job"]),
    ("control", &[]),
];

/// What every other module may import besides: the one clock, and the signals to stop and reload. All but `job`, which
/// takes times as values.
const FOR_EVERYONE: &[&str] = &["clock", "control"];

const LONGEST_FILE: usize = 500;

/// Files over [`LONGEST_FILE`] lines, each with the reason why it has no second concept to split off.
const LONG_WITH_REASON: &[(&str, &str)] = &[];

/// The helper executable is a crate of its own inside `src/`.
const HELPER: &str = "bin/";

#[test]
fn src_keeps_the_rules() {
    let files = read_src();
    assert!(
        files.iter().any(|file| file.path == "main.rs"),
        "src/main.rs was not found"
    );
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
    assert!(
        left.is_empty(),
        "these import each other in a circle: {left:?}"
    );

    let faces = ["intake", "scheduler", "pool", "admin"];
    for (module, targets) in MAY_IMPORT
        .iter()
        .filter(|(module, _)| faces.contains(module))
    {
        assert!(
            !targets.iter().any(|target| faces.contains(target)),
            "the face {module} imports a face"
        );
    }
}

fn may_import(module: &str, target: &str) -> bool {
    let listed = MAY_IMPORT
        .iter()
        .find(|(name, _)| *name == module)
        .is_some_and(|(_, targets)| targets.contains(&target));
    listed || (FOR_EVERYONE.contains(&target) && module != "job" && !FOR_EVERYONE.contains(&module))
}

/// A file below `src/`, its path relative to it with forward slashes.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in(&self, module: &str) -> bool {
        module_path(&self.path)
            .first()
            .is_some_and(|first| first == module)
    }

    fn tokens(&self) -> Vec<Token> {
        tokens(&self.text)
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
            } else if path
                .extension()
                .is_some_and(|extension| extension == "rs" || extension == "lua")
            {
                let text = std::fs::read_to_string(&path).expect("source files are UTF-8");
                let path = path.strip_prefix(&src).expect("the walk began at src/");
                files.push(File {
                    path: path.to_string_lossy().replace('\\', "/"),
                    text,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn violations(files: &[File], long_with_reason: &[(&str, &str)]) -> Vec<String> {
    let modules = top_level_modules(files);
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        found.extend(module_doc(file));
        let tokens = file.tokens();
        found.extend(libav(file, &tokens));
        if file.path.starts_with(HELPER) {
            continue;
        }
        found.extend(import_directions(file, &tokens, &modules));
        found.extend(pure_domain(file, &tokens));
        found.extend(wall_time(file, &tokens));
        found.extend(key_literals(file, &tokens));
    }
    found.extend(
        files
            .iter()
            .filter(|file| file.path.ends_with(".lua"))
            .flat_map(script),
    );
    found.extend(lengths(files, long_with_reason));
    found
}

/// `src/x.rs` and `src/x/` are the module `x` of the crate.
fn top_level_modules(files: &[File]) -> BTreeSet<String> {
    let ours = files
        .iter()
        .filter(|file| file.is_rust() && !file.path.starts_with(HELPER));
    ours.filter_map(|file| module_path(&file.path).into_iter().next())
        .collect()
}

fn import_directions(file: &File, tokens: &[Token], modules: &BTreeSet<String>) -> Vec<String> {
    let path = module_path(&file.path);
    let module = path.first().map_or(ROOT, String::as_str);
    if !MAY_IMPORT.iter().any(|(name, _)| *name == module) {
        return vec![format!(
            "src/{}: the module `{module}` has no line in MAY_IMPORT of tests/architecture/main.rs",
            file.path
        )];
    }
    imports(tokens, &path, modules)
        .into_iter()
        .filter(|import| import.module != module && !may_import(module, &import.module))
        .map(|import| {
            format!(
                "src/{}:{}: `{module}` may not import `{}`",
                file.path, import.line, import.module
            )
        })
        .collect()
}

/// The domain takes values and `now`, and returns values: no runtime, no Redis, no clock.
fn pure_domain(file: &File, tokens: &[Token]) -> Vec<String> {
    const FOREIGN: &[&str] = &[
        "tokio",
        "tokio_util",
        "redis",
        "deadpool_redis",
        "SystemTime",
        "Instant",
    ];
    if !file.is_in("job") {
        return Vec::new();
    }
    words(tokens)
        .filter(|(word, _)| FOREIGN.contains(word))
        .map(|(word, line)| {
            format!(
                "src/{}:{line}: `job` is pure and may not use `{word}`",
                file.path
            )
        })
        .collect()
}

/// A test, a schedule and a lease can only be reasoned about when every wall time comes from one place.
fn wall_time(file: &File, tokens: &[Token]) -> Vec<String> {
    if file.is_in("clock") {
        return Vec::new();
    }
    tokens
        .windows(3)
        .filter_map(|three| match three {
            [
                Token {
                    kind: Kind::Word(clock),
                    line,
                },
                Token {
                    kind: Kind::Colons, ..
                },
                Token {
                    kind: Kind::Word(now),
                    ..
                },
            ] if matches!(clock.as_str(), "SystemTime" | "Utc" | "Local") && now == "now" => {
                Some(format!(
                    "src/{}:{line}: `{clock}::now` belongs in src/clock.rs; ask the clock",
                    file.path
                ))
            }
            _ => None,
        })
        .collect()
}

/// A key built in two places is two keys as soon as one of them changes. Prose has a space after the colon.
fn key_literals(file: &File, tokens: &[Token]) -> Vec<String> {
    if file.path == "store/keys.rs" {
        return Vec::new();
    }
    tokens
        .iter()
        .filter_map(|token| match &token.kind {
            Kind::Text(text) if is_key(text) => Some(token.line),
            _ => None,
        })
        .map(|line| format!("src/{}:{line}: a `jobsd:` key is written here; keys are built in src/store/keys.rs", file.path))
        .collect()
}

fn is_key(text: &str) -> bool {
    text.strip_prefix("jobsd:")
        .is_some_and(|rest| !rest.starts_with(char::is_whitespace))
}

/// FFmpeg stays in the helper executable: linked into the daemon it would cost every start and every idle hour.
fn libav(file: &File, tokens: &[Token]) -> Vec<String> {
    if file.path.starts_with("bin/jobsd-video/") {
        return Vec::new();
    }
    words(tokens)
        .filter(|(word, _)| word.starts_with("ffmpeg_next") || word.starts_with("ffmpeg_sys"))
        .map(|(word, line)| {
            format!(
                "src/{}:{line}: `{word}` is for src/bin/jobsd-video/ only",
                file.path
            )
        })
        .collect()
}

fn module_doc(file: &File) -> Option<String> {
    (!file.text.starts_with("//! ")).then(|| {
        format!(
            "src/{}:1: does not begin with a module doc (`//! …`)",
            file.path
        )
    })
}

/// A script's header says what it does and names KEYS, ARGV and what it returns, `none` where there are none. Keys come
/// in as KEYS and time as ARGV, so a script spells no key and asks no clock.
fn script(file: &File) -> Vec<String> {
    let header: Vec<&str> = file
        .text
        .lines()
        .take_while(|line| line.starts_with("--"))
        .collect();
    let mut missing = Vec::new();
    if header
        .first()
        .is_none_or(|line| line.trim_start_matches('-').trim().is_empty())
    {
        missing.push("does not begin with a comment that says what it does".to_owned());
    }
    for name in ["KEYS", "ARGV", "returns"] {
        if !header
            .iter()
            .any(|line| line.contains(name) || line.to_lowercase().contains(name))
        {
            missing.push(format!("the header does not name {name}"));
        }
    }
    let code = file
        .text
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    for (number, line) in code.enumerate().map(|(index, line)| (index + 1, line)) {
        if line.contains("jobsd:") {
            missing.push(format!("line {number} spells a key; keys come in as KEYS"));
        }
        if line.contains("'TIME'") || line.contains("\"TIME\"") || line.contains("os.clock") {
            missing.push(format!("line {number} asks a clock; time comes in as ARGV"));
        }
    }
    missing
        .into_iter()
        .map(|what| format!("src/{}: {what}", file.path))
        .collect()
}

/// A file over the limit is a concept without a name, or has its reason in the list; a reason that is no longer needed goes.
fn lengths(files: &[File], long_with_reason: &[(&str, &str)]) -> Vec<String> {
    let excused = |path: &str| {
        long_with_reason
            .iter()
            .any(|(name, reason)| *name == path && !reason.is_empty())
    };
    let too_long = files.iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LONGEST_FILE && !excused(&file.path))
            .then(|| format!("src/{}: {lines} lines, over {LONGEST_FILE}: name its second concept, or give a reason", file.path))
    });
    let stale = long_with_reason.iter().filter_map(|(name, _)| {
        let still_long = files
            .iter()
            .any(|file| file.path == *name && file.text.lines().count() > LONGEST_FILE);
        (!still_long).then(|| format!("src/{name}: is in LONG_WITH_REASON and needs no reason"))
    });
    too_long.chain(stale).collect()
}

fn words(tokens: &[Token]) -> impl Iterator<Item = (&str, usize)> {
    tokens.iter().filter_map(|token| match &token.kind {
        Kind::Word(word) => Some((word.as_str(), token.line)),
        _ => None,
    })
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
    .map(|name| File {
        path: format!("{name}.rs"),
        text: "//! Doc.\n".to_owned(),
    })
    .filter(|file| file.path != path)
    .collect();
    files.push(File {
        path: path.to_owned(),
        text: text.to_owned(),
    });
    violations(&files, &[])
}

#[test]
fn what_is_allowed_passes() {
    for (path, text) in [
        (
            "main.rs",
            "//! Doc.\nmod daemon;\nfn main() { daemon::run(); control::x(); }",
        ),
        (
            "pool/mod.rs",
            "//! Doc.\nuse crate::{broker::Broker, handler, clock::now, control};\nmod tests { use super::*; }",
        ),
        (
            "pool/mod.rs",
            "//! Doc.\nuse std::time::Instant; fn f() { Instant::now(); }",
        ),
        (
            "store/keys.rs",
            "//! Doc.\nfn f() { format!(\"jobsd:{{{q}}}:pending\") }",
        ),
        (
            "main.rs",
            "//! Doc.\nfn f() { eprintln!(\"jobsd: {error}\") }",
        ),
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
        (
            "pool.rs",
            "//! Doc.\nuse crate::admin::X;",
            "src/pool.rs:2: `pool` may not import `admin`",
        ),
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
        (
            "main.rs",
            "//! Doc.\nfn main() { store::open() }",
            "src/main.rs:2: `main` may not import `store`",
        ),
        (
            "job.rs",
            "//! Doc.\nuse crate::clock::now;",
            "src/job.rs:2: `job` may not import `clock`",
        ),
        (
            "clock.rs",
            "//! Doc.\nuse crate::config::C;",
            "src/clock.rs:2: `clock` may not import `config`",
        ),
        (
            "broker.rs",
            "//! Doc.\nuse crate::helper;",
            "src/broker.rs:2: `broker` may not import `main`",
        ),
        (
            "util.rs",
            "//! Doc.",
            "src/util.rs: the module `util` has no line in MAY_IMPORT of tests/architecture/main.rs",
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
            "src/admin.rs:2: a `jobsd:` key is written here; keys are built in src/store/keys.rs",
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
        (
            "control.rs",
            "use x;\n//! late",
            "src/control.rs:1: does not begin with a module doc (`//! …`)",
        ),
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
    assert_eq!(
        headless.len(),
        4,
        "a script without a header misses four things: {headless:?}"
    );
}

#[test]
fn a_long_file_needs_a_reason_and_a_reason_a_long_file() {
    let long = |lines: usize| {
        vec![File {
            path: "pool.rs".to_owned(),
            text: "//! Doc.\n".repeat(lines),
        }]
    };
    let because: &[_] = &[("pool.rs", "one table")];
    assert_eq!(lengths(&long(LONGEST_FILE), &[]), [""; 0]);
    assert_eq!(lengths(&long(LONGEST_FILE + 1), because), [""; 0]);
    assert_eq!(
        lengths(&long(LONGEST_FILE + 1), &[("pool.rs", "")]).len(),
        1
    );
    assert_eq!(
        lengths(&long(LONGEST_FILE + 1), &[]),
        ["src/pool.rs: 501 lines, over 500: name its second concept, or give a reason"]
    );
    assert_eq!(
        lengths(&long(LONGEST_FILE), because),
        ["src/pool.rs: is in LONG_WITH_REASON and needs no reason"]
    );
}
