//! Secrets of the file: the forms in which an operator gives one, and the places where one stands in the text.

use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Item, Table};
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
            (Some(item), _) => Some((item.secret(true)?, item)),
            (None, Some(item)) => {
                let path = item.filled_text("the path of a file that holds the secret")?.text;
                Some((read(&item, Path::new(&path))?, item))
            }
            (None, None) => None,
        }
    }
}

impl Item<'_> {
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
            format!("start jobsd by systemd with LoadCredential={name}:/path"),
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
    in_table(text, table, false, &mut found);
    found
}

fn in_table(text: &str, table: &DeTable<'_>, sensitive: bool, found: &mut Vec<Place>) {
    for (key, value) in table {
        let key = key.get_ref();
        // What a task's parameters are called and typed is no secret, only what they may default to.
        let value_is_type = matches!(value.get_ref(), DeValue::String(word) if super::params::is_type(word));
        in_value(text, value, (sensitive || announces(key)) && !value_is_type, found);
    }
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

/// Where secrets may stand in a text that is not TOML: what follows a key that announces one, up to the end of its
/// line, or of its multi-line string.
pub(super) fn likely_places(text: &str) -> Vec<Place> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut open: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        if let Some(quotes) = open {
            found.push(start..end);
            open = (!line.contains(quotes)).then_some(quotes);
        } else if let Some(at) = assignment_of_secret(line) {
            found.push(start + at..end);
            let value = &line[at..];
            open = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() == 1);
        } else {
            found.extend(user_info(line, start));
        }
        start += line.len();
    }
    found.retain(|place| !place.is_empty());
    found
}

/// Where the value begins on a line that gives one to a key that announces a secret.
fn assignment_of_secret(line: &str) -> Option<usize> {
    let mut from = 0;
    for (at, _) in line.match_indices('=') {
        let key = line[from..at].trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')).next().unwrap_or_default();
        let value = &line[at + 1..];
        if announces(key) {
            return Some(at + 1 + value.len() - value.trim_start().len());
        }
        from = at + 1;
    }
    // A sign of equality may be just what is missing.
    let (key, value) = line.trim_start().split_once([' ', ':'])?;
    announces(key).then(|| line.len() - value.len())
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
    let mistyped = ["password", "passwd", "secret", "token"].iter().any(|word| {
        key.len() >= 4 && strsim::damerau_levenshtein(&key, word) <= 1 + usize::from(word.len() > 6)
    });
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
reset_token = "string"
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
reset_token = "string"
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
