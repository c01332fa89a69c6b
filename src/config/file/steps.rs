//! The steps of a task: which handler does it, with what.

use std::path::PathBuf;

use super::diagnostic::{hint, quoted};
use super::document::{Item, Table};
use super::scope::Scope;
use crate::config::{
    Dialect, EmailStep, ExecStep, HttpStep, ProbeOp, ProbeStep, PushStep, SqlStep, Statement, Step, Template,
    ValueTemplate, VideoMode, VideoStep,
};

/// The handlers, by the keys that choose them.
pub(super) const HANDLERS: [&str; 7] = ["email", "sql", "push", "video", "exec", "http", "probe"];
/// Statements of one step, and steps of one task.
pub(super) const MOST: usize = 50;

/// What a step is checked against besides its own task.
pub(super) struct Surroundings<'a> {
    /// Mail templates there are.
    pub(super) mail_templates: &'a [String],
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
        "email" => email(&item, scope, around),
        "sql" => sql(&item, scope, around.dialect),
        "push" => push(&item, scope),
        "video" => video(&item, scope, around),
        "exec" => exec(&item, scope),
        "http" => http(&item, scope),
        _ => probe(&item),
    }
}

impl Table<'_> {
    fn rendered(&self, key: &'static str, scope: &Scope<'_>) -> Option<Template> {
        scope.template(&self.get(key)?)
    }

    fn rendered_value(&self, key: &'static str, scope: &Scope<'_>) -> Option<ValueTemplate> {
        scope.value(&self.get(key)?)
    }

    fn rendered_table(&self, key: &'static str, scope: &Scope<'_>) -> Vec<(String, Template)> {
        let entries = self.get(key).and_then(|item| item.table()).map(|table| table.entries()).unwrap_or_default();
        entries.into_iter().filter_map(|(key, item)| Some((key.name, scope.template(&item)?))).collect()
    }
}

fn email(item: &Item<'_>, scope: &Scope<'_>, around: &Surroundings<'_>) -> Option<Step> {
    let table = item.table()?;
    let to = table.required("to", "add the recipient, as in to = \"{{ user_email }}\"");
    let subject = table.required("subject", "add subject = \"…\"");
    if let Some(item) = table.get("template") {
        template_exists(&item, around.mail_templates);
    }
    if !["template", "html", "text"].iter().any(|key| table.has(key)) {
        table.doc.error(
            &table.place,
            "the mail has no content",
            "add template = \"NAME\", html = \"…\" or text = \"…\"",
        );
    }
    let step = (
        to.and_then(|item| scope.template(&item)),
        subject.and_then(|item| scope.template(&item)),
        table.rendered("template", scope),
        table.rendered_value("context", scope),
        table.rendered("html", scope),
        table.rendered("text", scope),
        table.rendered("from", scope),
        table.rendered("reply_to", scope),
        table.rendered_table("headers", scope),
    );
    header_names(&table);
    table.close();
    let (to, subject, template, context, html, text, from, reply_to, headers) = step;
    Some(Step::Email(EmailStep { to: to?, subject: subject?, template, context, html, text, from, reply_to, headers }))
}

/// Only a name that no argument changes can be looked up now.
fn template_exists(item: &Item<'_>, known: &[String]) {
    let Some(name) = item.value.as_str() else { return };
    if name.contains("{{") || name.contains("{%") || name.contains("${") || known.iter().any(|known| known == name) {
        return;
    }
    let help = hint(name, "mail template", known.iter().map(String::as_str));
    item.error(format!("there is no mail template {}", quoted(name)), help);
}

fn header_names(table: &Table<'_>) {
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

/// `sql = "…"`, `sql = ["…", "…"]` or `sql = { statements = […], values = { … } }`.
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
    let items = if item.value.is_str() { vec![item.clone()] } else { item.array(EXPECTED)? };
    if items.is_empty() || items.len() > MOST {
        item.error(format!("there are {} statements, allowed is 1 to {MOST}", items.len()), "name what is to be done");
    }
    let read = |item: &Item<'_>| {
        let statement = item.statement(dialect, "an SQL statement")?;
        scope.names(item, &statement, values);
        Some(statement)
    };
    let statements: Vec<_> = items.iter().map(read).collect();
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
    table.close();
    Some(Step::Push(PushStep { user: user?, title: title?, body: body?, data }))
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

fn exec(item: &Item<'_>, scope: &Scope<'_>) -> Option<Step> {
    let table = item.table()?;
    let program = table.required("program", "add the absolute path of the program");
    let program = program.and_then(|item| {
        let path = PathBuf::from(item.filled_text("an absolute path such as \"/usr/bin/true\"")?.text);
        if !path.is_absolute() {
            item.error(
                format!("{} is not an absolute path", quoted(&path.to_string_lossy())),
                "write the whole path; there is no shell and no search",
            );
        }
        Some(path)
    });
    let args = table.get("args").and_then(|item| item.array("an array such as [\"--id\", \"{{ user_id }}\"]"));
    let args = args.unwrap_or_default().iter().filter_map(|item| scope.template(item)).collect();
    let env = table.get("env").map(|item| item.texts("[\"HOME\", \"DATABASE_URL\"]")).unwrap_or_default();
    let dir = table.path("dir", "/var/lib/jobsd");
    table.close();
    Some(Step::Exec(ExecStep { program: program?, args, env: env.into_iter().map(|text| text.text).collect(), dir }))
}

fn http(item: &Item<'_>, scope: &Scope<'_>) -> Option<Step> {
    const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
    let table = item.table()?;
    let method = table.choice("method", "POST", &METHODS.map(|method| (method, method))).to_owned();
    let url = table.required("url", "add url = \"https://host/path\"");
    let url = url.and_then(|item| {
        let template = scope.template(&item)?;
        let scheme = ["https://", "http://", "{{", "{%"].iter().any(|start| template.source().starts_with(start));
        if !scheme {
            item.error(
                format!("{} is not a URL", quoted(template.source())),
                "write it with its scheme: \"https://host/path\"",
            );
        }
        Some(template)
    });
    let headers = table.rendered_table("headers", scope);
    header_names(&table);
    let body = table.rendered_value("body", scope);
    let snooze = table.get("snooze").map(|item| statuses(&item)).unwrap_or_default();
    table.close();
    Some(Step::Http(HttpStep { method, url: url?, headers, body, snooze }))
}

fn statuses(item: &Item<'_>) -> Vec<u16> {
    let items = item.array("an array of statuses such as [429, 503]").unwrap_or_default();
    items.iter().filter_map(|item| u16::try_from(item.integer(200..=599)?).ok()).collect()
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
