//! The rules: functions from files to violations, and the tables they go by.

use std::collections::BTreeSet;

use crate::imports::{ROOT, imports, module_path};
use crate::source::{Kind, Token, tokens};

/// Who may import whom, top-level module by top-level module. The faces (intake, scheduler, flows, pool, admin) never import
/// each other; they meet in the broker.
pub(crate) const MAY_IMPORT: &[(&str, &[&str])] = &[
    // A configuration is valid if the handlers can be built from it: `jobsd check` tries.
    (ROOT, &["daemon", "demo", "torture", "cli", "handler", "config"]),
    // It speaks HTTP with the daemon; the broker is for the time when there is none, the handlers for a look at a mail.
    ("cli", &["handler", "broker", "store", "config", "job"]),
    ("demo", &["daemon", "intake", "store", "config", "job"]),
    // It sees the daemon from outside; what it takes from inside is a private Redis and the names of keys.
    ("torture", &["store", "config", "job"]),
    (
        "daemon",
        &["intake", "scheduler", "flows", "pool", "admin", "handler", "broker", "store", "node", "config", "job"],
    ),
    ("node", &["job"]),
    ("intake", &["broker", "store", "config", "job"]),
    ("scheduler", &["broker", "store", "config", "job"]),
    ("flows", &["broker", "config", "job"]),
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
    ("metrics", &[]),
];

/// What every other module may import besides: the one clock, the signals to stop and reload, and the counters. All
/// but `job`, which takes times as values.
const FOR_EVERYONE: &[&str] = &["clock", "control", "metrics"];

/// What tests stand on. It is compiled for them only, so its edges are not part of the program's structure.
const TESTING: &str = "testing";

pub(crate) const LONGEST_FILE: usize = 500;

/// Files over [`LONGEST_FILE`] lines, each with the reason why it has no second concept to split off.
pub(crate) const LONG_WITH_REASON: &[(&str, &str)] = &[];

/// The helper executable is a crate of its own inside `src/`.
const HELPER: &str = "bin/";

/// A file below `src/`, its path relative to it with forward slashes.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in(&self, module: &str) -> bool {
        module_path(&self.path).first().is_some_and(|first| first == module)
    }

    fn tokens(&self) -> Vec<Token> {
        tokens(&self.text)
    }
}

/// Everything that breaks a rule, each with its place.
pub(crate) fn violations(files: &[File], long_with_reason: &[(&str, &str)]) -> Vec<String> {
    let modules = top_level_modules(files);
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        found.extend(module_doc(file));
        let tokens = file.tokens();
        found.extend(libav(file, &tokens));
        if file.path.starts_with(HELPER) {
            continue;
        }
        if !file.is_in(TESTING) {
            found.extend(import_directions(file, &tokens, &modules));
        }
        found.extend(pure_domain(file, &tokens));
        found.extend(wall_time(file, &tokens));
        found.extend(key_literals(file, &tokens));
    }
    found.extend(files.iter().filter(|file| file.path.ends_with(".lua")).flat_map(script));
    found.extend(lengths(files, long_with_reason));
    found
}

/// `src/x.rs` and `src/x/` are the module `x` of the crate.
fn top_level_modules(files: &[File]) -> BTreeSet<String> {
    let ours = files.iter().filter(|file| file.is_rust() && !file.path.starts_with(HELPER));
    ours.filter_map(|file| module_path(&file.path).into_iter().next()).collect()
}

fn import_directions(file: &File, tokens: &[Token], modules: &BTreeSet<String>) -> Vec<String> {
    let path = module_path(&file.path);
    let module = path.first().map_or(ROOT, String::as_str);
    if !MAY_IMPORT.iter().any(|(name, _)| *name == module) {
        return vec![format!(
            "src/{}: the module `{module}` has no line in MAY_IMPORT of tests/architecture/rules.rs",
            file.path
        )];
    }
    imports(tokens, &path, modules)
        .into_iter()
        .filter(|import| import.module != module && import.module != TESTING && !may_import(module, &import.module))
        .map(|import| format!("src/{}:{}: `{module}` may not import `{}`", file.path, import.line, import.module))
        .collect()
}

/// The domain takes values and `now`, and returns values: no runtime, no Redis, no clock.
fn pure_domain(file: &File, tokens: &[Token]) -> Vec<String> {
    const FOREIGN: &[&str] = &["tokio", "tokio_util", "redis", "deadpool_redis", "SystemTime", "Instant"];
    if !file.is_in("job") {
        return Vec::new();
    }
    words(tokens)
        .filter(|(word, _)| FOREIGN.contains(word))
        .map(|(word, line)| format!("src/{}:{line}: `job` is pure and may not use `{word}`", file.path))
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
                Token { kind: Kind::Word(clock), line },
                Token { kind: Kind::Colons, .. },
                Token { kind: Kind::Word(now), .. },
            ] if matches!(clock.as_str(), "SystemTime" | "Utc" | "Local") && now == "now" => {
                Some(format!("src/{}:{line}: `{clock}::now` belongs in src/clock.rs; ask the clock", file.path))
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
        .map(|line| {
            format!("src/{}:{line}: a Redis key is written here; keys are built in src/store/keys.rs", file.path)
        })
        .collect()
}

/// Either the default prefix, or the beginning of a hash tag in a format string: `{prefix}:{{{queue}}}:pending`.
fn is_key(text: &str) -> bool {
    let prefixed = text.strip_prefix("jobsd:").is_some_and(|rest| !rest.starts_with(char::is_whitespace));
    prefixed || text.contains(":{{{")
}

/// FFmpeg stays in the helper executable: linked into the daemon it would cost every start and every idle hour.
fn libav(file: &File, tokens: &[Token]) -> Vec<String> {
    if file.path.starts_with("bin/jobsd-video/") {
        return Vec::new();
    }
    words(tokens)
        .filter(|(word, _)| word.starts_with("ffmpeg_next") || word.starts_with("ffmpeg_sys"))
        .map(|(word, line)| format!("src/{}:{line}: `{word}` is for src/bin/jobsd-video/ only", file.path))
        .collect()
}

fn module_doc(file: &File) -> Option<String> {
    (!file.text.starts_with("//! ")).then(|| format!("src/{}:1: does not begin with a module doc (`//! …`)", file.path))
}

/// A script's header says what it does and names KEYS, ARGV and what it returns, `none` where there are none. Keys come
/// in as KEYS and time as ARGV, so a script spells no key and asks no clock.
fn script(file: &File) -> Vec<String> {
    let header: Vec<&str> = file.text.lines().take_while(|line| line.starts_with("--")).collect();
    let mut missing = Vec::new();
    if header.first().is_none_or(|line| line.trim_start_matches('-').trim().is_empty()) {
        missing.push("does not begin with a comment that says what it does".to_owned());
    }
    for name in ["KEYS", "ARGV", "returns"] {
        if !header.iter().any(|line| line.contains(name) || line.to_lowercase().contains(name)) {
            missing.push(format!("the header does not name {name}"));
        }
    }
    let code = file.text.lines().map(|line| line.split("--").next().unwrap_or_default());
    for (number, line) in code.enumerate().map(|(index, line)| (index + 1, line)) {
        if line.contains("jobsd:") {
            missing.push(format!("line {number} spells a key; keys come in as KEYS"));
        }
        if line.contains("'TIME'") || line.contains("\"TIME\"") || line.contains("os.clock") {
            missing.push(format!("line {number} asks a clock; time comes in as ARGV"));
        }
    }
    missing.into_iter().map(|what| format!("src/{}: {what}", file.path)).collect()
}

/// A file over the limit is a concept without a name, or has its reason in the list; a reason that is no longer needed goes.
pub(crate) fn lengths(files: &[File], long_with_reason: &[(&str, &str)]) -> Vec<String> {
    let excused = |path: &str| long_with_reason.iter().any(|(name, reason)| *name == path && !reason.is_empty());
    let too_long = files.iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LONGEST_FILE && !excused(&file.path)).then(|| {
            format!("src/{}: {lines} lines, over {LONGEST_FILE}: name its second concept, or give a reason", file.path)
        })
    });
    let stale = long_with_reason.iter().filter_map(|(name, _)| {
        let still_long = files.iter().any(|file| file.path == *name && file.text.lines().count() > LONGEST_FILE);
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

pub(crate) fn may_import(module: &str, target: &str) -> bool {
    let listed =
        MAY_IMPORT.iter().find(|(name, _)| *name == module).is_some_and(|(_, targets)| targets.contains(&target));
    listed || (FOR_EVERYONE.contains(&target) && module != "job" && !FOR_EVERYONE.contains(&module))
}
