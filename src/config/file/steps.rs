//! The steps of a task: which handler does it, with what.

mod email;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scope::Scope;
use crate::config::{
    Dialect, ProbeOp, ProbeStep, PushStep, SqlStep, Statement, Step, Template, ValueTemplate, VideoMode, VideoStep,
};

/// The handlers, by the keys that choose them.
pub(super) const HANDLERS: [&str; 7] = ["email", "sql", "push", "video", "exec", "http", "probe"];
/// Statements of one step, and steps of one task.
pub(super) const MOST: usize = 50;

/// What a step is checked against besides its own task.
pub(super) struct Surroundings<'a> {
    /// Mail templates there are.
    pub(super) mail_templates: &'a [String],
    /// Whether `[email]` names a folder to attach from.
    pub(super) attachment_roots: bool,
    /// Whether `[video]` names a folder to read from.
    pub(super) input_roots: bool,
    /// What `[database]` speaks.
    pub(super) dialect: Dialect,
}

/// The step that `table` holds under one of [`HANDLERS`]; `None` when there is none or it has problems.
pub(super) fn step(table: &Table<'_>, scope: &Scope<'_>, around: &Surroundings<'_>) -> Option<Step> {
    let mut given: Vec<_> = HANDLERS.into_iter().filter_map(|name| Some((name, table.get(name)?))).collect();
    given.sort_by_key(|(_, item)| item.key.start);
    let mut given = given.into_iter();
    let (name, item) = given.next()?;
    for (other, extra) in given {
        table.doc.error(
            &extra.key,
            format!("`{name}` and `{other}` are both given"),
            "a step is one of them; list several as steps = [{ … }, { … }]",
        );
    }
    match name {
        "email" => email::step(&item, scope, around),
        "sql" => sql(&item, scope, around.dialect),
        "push" => push(&item, scope),
        "video" => video(&item, scope, around),
        "exec" => super::exec::step(&item, scope),
        "http" => super::http::step(&item, scope),
        _ => probe(&item),
    }
}

impl Table<'_> {
    fn rendered(&self, key: &'static str, scope: &Scope<'_>) -> Option<Template> {
        scope.template(&self.get(key)?)
    }

    pub(super) fn rendered_value(&self, key: &'static str, scope: &Scope<'_>) -> Option<ValueTemplate> {
        scope.value(&self.get(key)?)
    }

    pub(super) fn rendered_table(&self, key: &'static str, scope: &Scope<'_>) -> Vec<(String, Template)> {
        let entries = self.get(key).and_then(|item| item.table()).map(|table| table.entries()).unwrap_or_default();
        entries.into_iter().filter_map(|(key, item)| Some((key.name, scope.template(&item)?))).collect()
    }
}

pub(super) fn header_names(table: &Table<'_>) {
    let Some(headers) = table.get("headers").filter(|item| item.value.is_table()).and_then(|item| item.table()) else {
        return;
    };
    for (key, _) in headers.entries() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if key.name.is_empty() || !key.name.chars().all(token) {
            table.doc.error(
                &key.place,
                format!("{} is not a header's name", quoted(&key.name)),
                "write it as in \"X-Request-Id\"",
            );
        }
    }
}

/// `sql = "…"`, `sql = ["…", "…"]` or `sql = { statements = […], values = { … } }`; in a list `{ postgres = "…", sqlite =
/// "…" }` stands for the one that the database understands.
fn sql(item: &Item<'_>, scope: &Scope<'_>, dialect: Dialect) -> Option<Step> {
    let Some(table) = item.value.is_table().then(|| item.table()).flatten() else {
        return Some(Step::Sql(SqlStep { statements: statements(item, scope, dialect, &[])?, values: Vec::new() }));
    };
    let values: Vec<_> = table
        .get("values")
        .and_then(|item| item.table())
        .map(|values| values.entries())
        .unwrap_or_default()
        .into_iter()
        .map(|(key, item)| (key.name, scope.value(&item)))
        .collect();
    let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
    let statements = table.required("statements", "add statements = [\"…\"]");
    let statements = statements.and_then(|item| self::statements(&item, scope, dialect, &names));
    table.close();
    let values = values.into_iter().map(|(name, value)| Some((name, value?))).collect::<Option<_>>()?;
    Some(Step::Sql(SqlStep { statements: statements?, values }))
}

fn statements(item: &Item<'_>, scope: &Scope<'_>, dialect: Dialect, values: &[&str]) -> Option<Vec<Statement>> {
    const EXPECTED: &str = "an SQL statement, or a list of them such as [\"DELETE FROM t WHERE id = :id\"]";
    let is_one = item.value.is_str() || item.value.is_table();
    let items = if is_one { vec![item.clone()] } else { item.array(EXPECTED)? };
    if items.is_empty() || items.len() > MOST {
        item.error(format!("there are {} statements, allowed is 1 to {MOST}", items.len()), "name what is to be done");
    }
    let read = |item: &Item<'_>, dialect| {
        let statement = item.statement(dialect, "an SQL statement")?;
        scope.names(item, &statement, values);
        Some(statement)
    };
    let statements: Vec<_> = items
        .iter()
        .map(|item| {
            if !item.value.is_table() {
                return read(item, dialect);
            }
            // Both are checked, whichever is used.
            let table = item.table()?;
            let of = |key, dialect| {
                let item = table.required(key, "say it for both: { postgres = \"…\", sqlite = \"…\" }");
                item.and_then(|item| read(&item, dialect))
            };
            let (postgres, sqlite) = (of("postgres", Dialect::Postgres), of("sqlite", Dialect::Sqlite));
            table.close();
            match dialect {
                Dialect::Postgres => postgres,
                Dialect::Sqlite => sqlite,
            }
        })
        .collect();
    statements.into_iter().collect()
}

fn push(item: &Item<'_>, scope: &Scope<'_>) -> Option<Step> {
    let table = item.table()?;
    let user = table.required("user", "add whom to tell, as in user = \"{{ user_id }}\"");
    let title = table.required("title", "add title = \"…\"");
    let body = table.required("body", "add body = \"…\"");
    let (user, title, body) = (
        user.and_then(|item| scope.value(&item)),
        title.and_then(|item| scope.template(&item)),
        body.and_then(|item| scope.template(&item)),
    );
    let data = table.rendered_value("data", scope);
    let (android, apns) = (table.rendered_value("android", scope), table.rendered_value("apns", scope));
    let (webpush, onesignal) = (table.rendered_value("webpush", scope), table.rendered_value("onesignal", scope));
    table.close();
    Some(Step::Push(Box::new(PushStep {
        user: user?,
        title: title?,
        body: body?,
        data,
        android,
        apns,
        webpush,
        onesignal,
    })))
}

fn video(item: &Item<'_>, scope: &Scope<'_>, around: &Surroundings<'_>) -> Option<Step> {
    let table = item.table()?;
    if !around.input_roots {
        table.doc.error(
            &table.place,
            "a video step, but [video] names no folder to read from",
            "add input_roots = [\"/srv/uploads\"] to [video]",
        );
    }
    let modes = [("transcode", VideoMode::Transcode), ("thumbnail", VideoMode::Thumbnail)];
    let mode = table.choice("mode", VideoMode::Transcode, &modes);
    let input = table.required("input", "add the file, as in input = \"{{ video_path }}\"");
    let id = table.required("id", "add the name of the output folder, as in id = \"{{ video_id }}\"");
    let (input, id) = (input.and_then(|item| scope.template(&item)), id.and_then(|item| scope.template(&item)));
    let quality = table.get("quality").and_then(|item| quality(&item, scope));
    let thumbnail_at = table.rendered("thumbnail_at", scope);
    table.close();
    Some(Step::Video(VideoStep {
        mode,
        input: input?,
        id: id?,
        quality: quality.unwrap_or_else(|| ValueTemplate::Plain(serde_json::json!(["720p", "480p"]))),
        thumbnail_at: thumbnail_at
            .unwrap_or_else(|| Template::parse("00:00:01.000").expect("a text without expressions is a template")),
    }))
}

/// Heights that are written down can be checked; those from an argument cannot.
fn quality(item: &Item<'_>, scope: &Scope<'_>) -> Option<ValueTemplate> {
    for item in item.value.is_array().then(|| item.array("an array")).flatten().unwrap_or_default() {
        let Some(word) = item.value.as_str().filter(|word| !word.contains(['{', '$'])) else { continue };
        let height = word.strip_suffix('p').and_then(|height| height.parse::<u16>().ok());
        if !height.is_some_and(|height| (64..=4320).contains(&height)) {
            item.error(
                format!("{} is not a quality", quoted(word)),
                "write the height of the picture: \"720p\", \"480p\"",
            );
        }
    }
    scope.value(item)
}

/// `probe = "echo"` or `probe = { op = "echo" }`.
fn probe(item: &Item<'_>) -> Option<Step> {
    let ops = [
        ("echo", ProbeOp::Echo),
        ("add", ProbeOp::Add),
        ("sum", ProbeOp::Sum),
        ("sleep", ProbeOp::Sleep),
        ("fail", ProbeOp::Fail),
        ("flaky", ProbeOp::Flaky),
        ("crash", ProbeOp::Crash),
        ("snooze", ProbeOp::Snooze),
        ("noop", ProbeOp::Noop),
    ];
    let op = if item.value.is_table() {
        let table = item.table()?;
        let op = table.required("op", "add op = \"echo\"").and_then(|item| item.choice(&ops));
        table.close();
        op
    } else {
        item.choice(&ops)
    };
    Some(Step::Probe(ProbeStep { op: op? }))
}
