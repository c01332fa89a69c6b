//! Secrets of the file: the forms in which an operator gives one, and the places where one stands in the text.

use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Item, Table};
use super::interpolate::interpolate;
use super::source::Place;
use crate::config::Secret;
use crate::config::sensitive::is_sensitive;

/// Longest secret that is read from a file, in bytes.
const LONGEST: u64 = 64 * 1024;

impl<'d> Table<'d> {
    /// The secret under `key`: `cred:NAME`, a text, or a path under `file_key`.
    pub(super) fn secret(&self, key: &'static str, file_key: &'static str) -> Option<(Secret, Item<'d>)> {
        let (given, file) = (self.get(key), self.get(file_key));
        if let (Some(_), Some(file)) = (&given, &file) {
            self.doc.error(&file.key, format!("`{key}` and `{file_key}` are both given"), "keep one of the two");
            return None;
        }
        match (given, file) {
            // The name of a key pair, as `access_key`, is no secret by itself.
            (Some(item), _) => Some((item.secret(is_sensitive(key))?, item)),
            (None, Some(item)) => Some((item.secret_file()?, item)),
            (None, None) => None,
        }
    }

    /// The same, where a variable that is empty, as in `"${NAME:-}"`, stands for none.
    pub(super) fn secret_unless_unset(&self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        match (self.get(key), self.get(file_key)) {
            (Some(item), None) if item.is_unset() => None,
            (Some(item), Some(file)) if item.is_unset() => file.secret_file(),
            _ => self.secret(key, file_key).map(|(secret, _)| secret),
        }
    }
}

impl Item<'_> {
    /// Whether the text is nothing but variables, and they are empty: `"${NAME:-}"`.
    pub(super) fn is_unset(&self) -> bool {
        let written = self.value.as_str().filter(|written| written.contains("${"));
        written.is_some_and(|text| interpolate(text, self.doc.env).is_ok_and(|done| done.text.trim().is_empty()))
    }

    /// The secret in the file that this names.
    fn secret_file(&self) -> Option<Secret> {
        let path = self.filled_text("the path of a file that holds the secret")?.text;
        read(self, Path::new(&path))
    }

    /// A secret text. `whole`: all of it is secret, so that a literal one deserves a warning.
    pub(super) fn secret(&self, whole: bool) -> Option<Secret> {
        let text = self.filled_text("a secret such as \"${NAME}\" or \"cred:NAME\"")?;
        if let Some(name) = text.text.strip_prefix("cred:") {
            return credential(self, name);
        }
        if whole && !text.interpolated {
            self.doc.warning(
                &self.place,
                format!("`{}` is written into the file", self.path),
                "keep it out of the file: \"${NAME}\", \"cred:NAME\" or the key that ends in _file",
            );
        }
        Some(Secret::new(text.text))
    }
}

/// A credential that systemd passes in (`LoadCredential=`, `SetCredential=`).
fn credential(item: &Item<'_>, name: &str) -> Option<Secret> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        item.error("`cred:` is followed by the name of a credential", "write it as in LoadCredential=: \"cred:NAME\"");
        return None;
    }
    let Some(folder) = (item.doc.env)("CREDENTIALS_DIRECTORY") else {
        item.error(
            format!("there is no credential `{name}`: $CREDENTIALS_DIRECTORY is not set"),
            format!(
                "systemd sets it for a service with LoadCredential={name}:/path. To check the file: `systemctl reload jobsd`, \
                 or CREDENTIALS_DIRECTORY=/folder/of/credentials jobsd check"
            ),
        );
        return None;
    };
    read(item, &Path::new(&folder).join(name))
}

fn read(item: &Item<'_>, path: &Path) -> Option<Secret> {
    let mut text = String::new();
    let outcome = std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    if let Err(error) = outcome {
        item.error(
            format!("cannot read the secret in {}: {error}", path.display()),
            "create the file, readable for the user of jobsd only, with the secret as its text",
        );
        return None;
    }
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        item.error(format!("the file {} is empty", path.display()), "write the secret into it");
        return None;
    }
    Some(Secret::new(secret))
}

/// Where secrets stand in the values of a document that could be parsed.
pub(super) fn places(text: &str, table: &DeTable<'_>) -> Vec<Place> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value.get_ref() {
            // A task may be called after the passwords it resets; what it says of itself is no secret.
            DeValue::Table(named) if ["queues", "tasks", "schedules"].contains(&key.get_ref().as_ref()) => {
                named.values().for_each(|value| in_named(text, value, &mut found));
            }
            _ => in_entry(text, key.get_ref(), value, false, &mut found),
        }
    }
    found
}

fn in_named(text: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Place>) {
    for (key, value) in value.get_ref().as_table().into_iter().flatten() {
        match value.get_ref() {
            DeValue::Table(params) if key.get_ref() == "params" => in_params(text, params, found),
            _ => in_entry(text, key.get_ref(), value, false, found),
        }
    }
}

/// What a parameter is called and typed is no secret, only what it may default to.
fn in_params(text: &str, params: &DeTable<'_>, found: &mut Vec<Place>) {
    for (name, param) in params {
        let Some(param) = param.get_ref().as_table() else { continue };
        let secret = param.get("secret").and_then(|secret| secret.get_ref().as_bool()).unwrap_or(false);
        if let Some(default) = param.get("default") {
            in_value(text, default, secret || announces(name.get_ref()), found);
        }
    }
}

fn in_table(text: &str, table: &DeTable<'_>, sensitive: bool, found: &mut Vec<Place>) {
    for (key, value) in table {
        in_entry(text, key.get_ref(), value, sensitive, found);
    }
}

fn in_entry(text: &str, key: &str, value: &Spanned<DeValue<'_>>, sensitive: bool, found: &mut Vec<Place>) {
    if key.ends_with("url") && value.get_ref().as_str().is_some_and(|url| !url.contains("://")) {
        let place = text.get(value.span()).and_then(before_an_at);
        found.extend(place.map(|place| value.span().start + place.start..value.span().start + place.end));
    }
    in_value(text, value, sensitive || announces(key), found);
}

fn in_value(text: &str, value: &Spanned<DeValue<'_>>, sensitive: bool, found: &mut Vec<Place>) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(text, table, sensitive, found),
        DeValue::Array(items) => items.iter().for_each(|item| in_value(text, item, sensitive, found)),
        DeValue::String(word) if sensitive && !is_reference(word) => found.push(inside_quotes(&value.span())),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) if sensitive => found.push(value.span()),
        DeValue::String(_) => found.extend(text.get(value.span()).and_then(|raw| user_info(raw, value.span().start))),
        _ => {}
    }
}

/// Where secrets may stand in a text that is not TOML, so that its quotes mean nothing: what follows a word that
/// announces one, up to the next line that begins something else, and what stands before an `@`. Rather too much.
pub(super) fn likely_places(text: &str) -> Vec<Place> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut within = false;
    for line in text.split_inclusive('\n') {
        within &= !begins_anew(line);
        let secret = match within {
            true => Some(0..line.len()),
            false => announced(line).filter(|_| !is_header(line)),
        };
        within = secret.is_some();
        if let Some(place) = secret.or_else(|| before_an_at(line)) {
            let end = place.end.min(line.trim_end().len());
            found.push(start + place.start.min(end)..start + end);
        }
        start += line.len();
    }
    found.retain(|place| !place.is_empty());
    found
}

/// Whether a line starts as `key =` or is a `[table]`, with nothing in quotes that could be a secret's second line.
fn begins_anew(line: &str) -> bool {
    let line = line.trim();
    let key = line.find(|c: char| !is_of_word(c) && c != '.').unwrap_or(line.len());
    is_header(line) || (key > 0 && line[key..].trim_start().starts_with('='))
}

fn is_header(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains(['"', '\'', ','])
}

/// The rest of a line behind a word that announces a secret.
fn announced(line: &str) -> Option<Place> {
    let mut from = 0;
    while let Some(start) = line[from..].find(is_of_word).map(|at| from + at) {
        let end = line[start..].find(|c| !is_of_word(c)).map_or(line.len(), |at| start + at);
        if announces(&line[start..end]) {
            let value = line[end..].find(|c: char| !c.is_whitespace() && !matches!(c, '=' | ':'));
            return Some(value.map_or(line.len(), |at| end + at)..line.len());
        }
        from = end;
    }
    None
}

/// From the first colon, or the `//` of a URL, to the last `@`; to the end of the line when a URL's `@` is missing.
fn before_an_at(line: &str) -> Option<Place> {
    let at = line.rfind('@');
    let url = line.find("://").map(|start| start + 3);
    let colon = || line.find(':').map(|colon| colon + 1);
    let start = url.or_else(colon).filter(|start| at.is_none_or(|at| *start <= at)).unwrap_or(0);
    match (at, url) {
        (Some(at), _) => Some(start..at),
        (None, Some(url)) if line[url..].contains(':') => Some(url..line.len()),
        (None, _) => None,
    }
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

/// The user's part of a URL in `raw`: `redis://[user:password]@host`.
fn user_info(raw: &str, offset: usize) -> Option<Place> {
    let start = raw.find("://")? + 3;
    let authority = raw[start..].find(['/', '?', '#', ' ']).map_or(raw.len(), |at| start + at);
    // A password may hold a slash that should have been escaped: look behind it too.
    let end = raw[start..authority].rfind('@').or_else(|| raw[start..].rfind('@'))? + start;
    (end > start && !is_reference(&raw[start..end])).then(|| offset + start..offset + end)
}

fn announces(key: &str) -> bool {
    let key = key.to_lowercase();
    let mistyped = ["password", "passwd", "secret", "token"]
        .iter()
        .any(|word| key.len() >= 4 && strsim::damerau_levenshtein(&key, word) <= 1 + usize::from(word.len() > 6));
    (is_sensitive(&key) || (key.len() < 100 && mistyped)) && !key.ends_with("_file") && key != "tokens_query"
}

/// Whether a text only names where the secret is.
fn is_reference(text: &str) -> bool {
    let inner = |open, close| text.trim().strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let variable = inner("${", "}").is_some_and(|name| !name.contains(['$', '{']) && !name.contains(":-"));
    let template = inner("{{", "}}").is_some_and(|inside| !inside.contains(['{', '"', '\'']));
    variable || template || text.starts_with("cred:")
}

fn inside_quotes(place: &Place) -> Place {
    if place.len() > 2 { place.start + 1..place.end - 1 } else { place.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, places: Vec<Place>) -> String {
        let mut shown = text.to_owned();
        for place in places.into_iter().rev() {
            shown.replace_range(place, "***");
        }
        shown
    }

    #[test]
    fn secrets_are_found_by_the_name_of_their_key_and_in_urls() {
        let text = r#"
a = { password = "hunter2", user = "me" }
url = "redis://me:hunter2@host/0"
token = "${TOKEN}"
secret = 12345
passwrd = "hunter2"
headers = { Authorization = ["Bearer hunter2"], X = "{{ reset_token }}" }
token_file = "/etc/token"
[tasks.reset_password.params]
reset_token = "string"
old_token = { type = "string", default = "hunter2" }
code = { type = "string", default = "hunter2", secret = true }
"#;
        let table = DeTable::parse(text).expect("it is TOML");
        let expected = r#"
a = { password = "***", user = "me" }
url = "redis://***@host/0"
token = "${TOKEN}"
secret = ***
passwrd = "***"
headers = { Authorization = ["***"], X = "{{ reset_token }}" }
token_file = "/etc/token"
[tasks.reset_password.params]
reset_token = "string"
old_token = { type = "string", default = "***" }
code = { type = "string", default = "***", secret = true }
"#;
        let mut places = places(text, table.get_ref());
        places.sort_by_key(|place| place.start);
        assert_eq!(shown(text, places), expected);
    }

    #[test]
    fn secrets_are_found_in_what_is_not_toml() {
        let text = "[a\npassword = \"hunter2\nb = { x = 1, token = 'hunter2' }\nurl = redis://:hunter2@h\nsecret: hunter2\n\
                    token = \"\"\"\nhunter2\nhunter3\"\"\"\nport = 5\n";
        let shown = shown(text, likely_places(text));
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("port = 5") && shown.contains("x = 1"), "{shown}");
    }
}
