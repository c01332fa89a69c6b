//! The file as a tree of values with places, and the readers that turn one value into one Rust value.
//!
//! A reader that cannot return what was asked for reports why and returns nothing; the walk goes on with a stand-in,
//! so that all problems of a file are found in one pass. Knows TOML, nothing of jobsd's keys.

use std::cell::{Ref, RefCell};
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Environment;
use super::diagnostic::{Finding, Severity, nearest, quoted};
use super::interpolate::interpolate;
use super::source::Place;

/// One file on its way to a configuration: what surrounds it, and what has been found in it.
pub(super) struct Document<'d> {
    text: &'d str,
    pub(super) env: Environment<'d>,
    findings: RefCell<Vec<Finding>>,
    /// Every key that was asked for, with its table: what the parser knows.
    asked: RefCell<BTreeSet<(String, &'static str)>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str, env: Environment<'d>) -> Self {
        Self { text, env, findings: RefCell::default(), asked: RefCell::default() }
    }

    pub(super) fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.find(Severity::Error, place, message.into(), help.into());
    }

    pub(super) fn warning(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.find(Severity::Warning, place, message.into(), help.into());
    }

    fn find(&self, severity: Severity, place: &Place, message: String, help: String) {
        self.findings.borrow_mut().push(Finding { severity, place: place.clone(), message, help });
    }

    /// What has been found, and the keys that were asked for.
    pub(super) fn into_findings(self) -> (Vec<Finding>, BTreeSet<(String, &'static str)>) {
        (self.findings.into_inner(), self.asked.into_inner())
    }
}

/// A table, while its keys are being asked for.
pub(super) struct Table<'d> {
    pub(super) doc: &'d Document<'d>,
    /// As the operator would write it: `queues.emails`. Empty for the whole file.
    pub(super) path: String,
    /// Where a missing key is reported.
    pub(super) place: Place,
    entries: Option<&'d DeTable<'d>>,
    asked: RefCell<Vec<&'static str>>,
}

/// A key that the operator chose, as in `[queues.NAME]`.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Item<'d> {
    pub(super) doc: &'d Document<'d>,
    /// As the operator would write it: `queues.emails.timeout`.
    pub(super) path: String,
    pub(super) key: Place,
    pub(super) place: Place,
    pub(super) value: &'d DeValue<'d>,
}

/// A string with its variables filled in.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
    /// Whether a variable took part: then the text is the environment's, not the file's.
    pub(super) interpolated: bool,
}

impl<'d> Table<'d> {
    pub(super) fn root(doc: &'d Document<'d>, entries: &'d DeTable<'d>) -> Self {
        Self { doc, path: String::new(), place: 0..0, entries: Some(entries), asked: RefCell::default() }
    }

    /// A table that is not in the file: everything in it has its default.
    fn absent(doc: &'d Document<'d>, path: String, place: Place) -> Self {
        Self { doc, path, place, entries: None, asked: RefCell::default() }
    }

    /// The value of `key`, which from now on is a known one.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'d>> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
        self.doc.asked.borrow_mut().insert((self.path.clone(), key));
        let (name, value) = self.entries?.get_key_value(key)?;
        Some(self.item(key, name.span(), value))
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &'static str, help: &str) -> Option<Item<'d>> {
        let item = self.get(key);
        if item.is_none() {
            self.doc.error(&self.place, format!("the key `{key}` is missing in [{}]", self.path), help);
        }
        item
    }

    /// The table under `key`; one without entries when it is absent or of another type.
    pub(super) fn table(&self, key: &'static str) -> Table<'d> {
        let absent = || Self::absent(self.doc, self.child(key), self.place.clone());
        self.get(key).and_then(|item| item.table()).unwrap_or_else(absent)
    }

    /// All entries in the order of the file, whatever their keys: for tables whose keys the operator chooses.
    pub(super) fn entries(&self) -> Vec<(Key, Item<'d>)> {
        let mut entries: Vec<_> = self
            .entries
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let key = Key { name: name.get_ref().to_string(), place: name.span() };
                let item = self.item(&key.name, name.span(), value);
                (key, item)
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.place.start);
        entries
    }

    /// Whether the operator wrote the key; does not make it a known one.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    pub(super) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Reports the keys that nobody asked for. Call it once every known key has been asked for.
    pub(super) fn close(&self) {
        let known = self.asked.borrow();
        for (key, _) in self.entries() {
            if !known.contains(&key.name.as_str()) {
                self.unknown(&key, &known);
            }
        }
    }

    fn unknown(&self, key: &Key, known: &Ref<'_, Vec<&'static str>>) {
        let place = if self.path.is_empty() { "at the top level".to_owned() } else { format!("in [{}]", self.path) };
        let allowed = known.join(", ");
        let help = match nearest(&key.name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? Allowed here: {allowed}"),
            None => format!("remove it; allowed here: {allowed}"),
        };
        self.doc.error(&key.place, format!("unknown key `{}` {place}", key.name), help);
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn item(&self, name: &str, key: Place, value: &'d Spanned<DeValue<'d>>) -> Item<'d> {
        Item { doc: self.doc, path: self.child(name), key, place: value.span(), value: value.get_ref() }
    }
}

impl<'d> Item<'d> {
    /// Reports that the value is not what is `expected`, as in `a duration such as "5m"`.
    pub(super) fn mismatch(&self, expected: &str) {
        let message = format!("expected {expected}, found {}", self.described());
        self.doc.error(&self.place, message, format!("give `{}` {expected}", self.path));
    }

    pub(super) fn error(&self, message: impl Into<String>, help: impl Into<String>) {
        self.doc.error(&self.place, message, help);
    }

    /// Reports a problem of one `word` inside a string, at the word where it can be found.
    pub(super) fn error_at(&self, word: &str, message: impl Into<String>, help: impl Into<String>) {
        let place = self.place_of(word).unwrap_or_else(|| self.place.clone());
        self.doc.error(&place, message, help);
    }

    /// Reports a problem of one `part` of the string's `text`, at that part when it is written as it is read.
    pub(super) fn error_within(&self, text: &str, part: Place, message: impl Into<String>, help: impl Into<String>) {
        let raw = self.doc.text.get(self.place.clone()).unwrap_or_default();
        let place = match raw.find(text).filter(|_| !part.is_empty()) {
            Some(at) => self.place.start + at + part.start..self.place.start + at + part.end,
            None => self.place.clone(),
        };
        self.doc.error(&place, message, help);
    }

    /// Where `word` stands in the value as it is written: not as a part of a longer one.
    fn place_of(&self, word: &str) -> Option<Place> {
        let raw = self.doc.text.get(self.place.clone())?;
        let continues = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let whole = |at: usize| {
            let (before, after) = (raw[..at].chars().next_back(), raw[at + word.len()..].chars().next());
            !continues(before.filter(|_| word.starts_with(char::is_alphanumeric))) && !continues(after)
        };
        let start = self.place.start + raw.match_indices(word).map(|(at, _)| at).find(|&at| whole(at))?;
        Some(start..start + word.len())
    }

    /// A string, with its variables filled in.
    pub(super) fn text(&self, expected: &str) -> Option<Text> {
        let Some(written) = self.value.as_str() else {
            self.mismatch(expected);
            return None;
        };
        match interpolate(written, self.doc.env) {
            Ok(done) => Some(Text { text: done.text, place: self.place.clone(), interpolated: done.changed }),
            Err(error) => {
                self.error_at(&error.word(), error.to_string(), error.help());
                None
            }
        }
    }

    /// Whether it holds nothing but variables that are empty: as good as not given.
    pub(super) fn is_blank(&self) -> bool {
        let filled = self.value.as_str().and_then(|written| interpolate(written, self.doc.env).ok());
        filled.is_some_and(|filled| filled.changed && filled.text.trim().is_empty())
    }

    /// A string that is not empty.
    pub(super) fn filled_text(&self, expected: &str) -> Option<Text> {
        let text = self.text(expected)?;
        if text.text.trim().is_empty() {
            self.error(format!("`{}` is empty", self.path), format!("give it {expected}, or remove the key"));
            return None;
        }
        Some(text)
    }

    pub(super) fn table(&self) -> Option<Table<'d>> {
        match self.value {
            DeValue::Table(entries) => Some(Table {
                doc: self.doc,
                path: self.path.clone(),
                place: self.key.clone(),
                entries: Some(entries),
                asked: RefCell::default(),
            }),
            _ => {
                self.mismatch("a table such as { … }");
                None
            }
        }
    }

    /// The items of an array; a problem and nothing when it is not one.
    pub(super) fn array(&self, expected: &str) -> Option<Vec<Item<'d>>> {
        match self.value {
            DeValue::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(at, value)| Item {
                        doc: self.doc,
                        path: format!("{}[{at}]", self.path),
                        key: value.span(),
                        place: value.span(),
                        value: value.get_ref(),
                    })
                    .collect(),
            ),
            _ => {
                self.mismatch(expected);
                None
            }
        }
    }

    /// The value in words: `the integer 300`.
    fn described(&self) -> String {
        let sensitive = crate::config::sensitive::is_sensitive(self.path.rsplit('.').next().unwrap_or_default());
        match self.value {
            DeValue::String(_) if sensitive => "a string".into(),
            DeValue::Integer(_) | DeValue::Float(_) if sensitive => "a number".into(),
            DeValue::String(text) => format!("the string {}", quoted(text)),
            DeValue::Integer(number) => format!("the integer {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => format!("the boolean {value}"),
            DeValue::Datetime(value) => format!("the date {value}"),
            DeValue::Array(_) => "an array".into(),
            DeValue::Table(_) => "a table".into(),
        }
    }
}
