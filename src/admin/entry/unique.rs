//! The field `unique` of a job: its key, with a rule in the form that `jobsd.toml` has for one, or the key alone.
//!
//! What it leaves out comes from the task's own `unique`; `false` makes the job an ordinary one.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{ERRORS, Fields, nearest, quoted};
use crate::config::{Config, Task};
use crate::job::unique_draft::SPAN;
use crate::job::{Args, OnConflict, Unique, UniqueDraft, UniqueKey, Until};

const KEYS: [&str; 5] = ["key", "on_conflict", "until", "for", "wait"];

impl Fields<'_> {
    /// What makes the job unique, if anything does.
    pub(super) fn unique(&mut self, config: &Config, task: &Task, args: &Args) -> Option<Unique> {
        let (key, draft) = match self.entry.get("unique") {
            None | Some(Value::Null) => (None, UniqueDraft::default()),
            Some(Value::Bool(false)) => return None,
            Some(Value::String(text)) => (self.key("unique", text), UniqueDraft::default()),
            Some(Value::Object(table)) => (self.own_key(table), self.rule(table)),
            Some(_) => {
                let forms = r#"a key (a text), an object like {"key": "user 41", "until": "started"}, or false"#;
                self.wrong("unique", format!("\"unique\" must be {forms}"));
                return None;
            }
        };
        let is_written = self.entry.get("unique").is_some_and(|unique| !unique.is_null());
        let base = task.unique.as_ref();
        let draft = base.map_or(draft, |base| draft.over(base.rule));
        let (rule, conflicts) = draft.resolve();
        if is_written {
            for conflict in conflicts {
                let place = conflict.key.map_or_else(|| "unique".to_owned(), |key| format!("unique/{key}"));
                self.wrong_at(&place, format!("{}; {}", conflict.message, conflict.help));
            }
        }
        let key = match (key, base) {
            (Some(key), _) => key,
            (None, Some(base)) => {
                let told = base.key_of(args, &config.vars);
                told.map_err(|error| self.wrong("args", format!("the task's unique key cannot be told: {error}")))
                    .ok()??
            }
            (None, None) => {
                if is_written {
                    self.wrong("unique", "it needs a \"key\": the task has none of its own");
                }
                return None;
            }
        };
        Some(Unique { key, rule })
    }

    /// A job of a flow is not unique: if another one held its key, those that follow it would wait for nobody.
    pub(super) fn refuse_unique(&mut self, task: &Task) -> Option<Unique> {
        const WHY: &str = "if another job held its key, those that follow it would wait for nobody";
        match self.entry.get("unique") {
            Some(Value::Bool(false)) => {}
            None | Some(Value::Null) => {
                if task.unique.is_some() {
                    let detail =
                        format!("the task {} is unique, and a job of a flow cannot be", quoted(task.name.as_str()));
                    self.wrong("unique", format!("{detail}: {WHY}; write \"unique\": false to start it in any case"));
                }
            }
            Some(_) => self.wrong("unique", format!("a job of a flow cannot be unique: {WHY}; leave \"unique\" out")),
        }
        None
    }

    fn own_key(&mut self, table: &Map<String, Value>) -> Option<UniqueKey> {
        match table.get("key").filter(|value| !value.is_null())? {
            Value::String(text) => self.key("unique/key", text),
            _ => {
                self.wrong_at("unique/key", "\"key\" must be a text, like \"user 41\"");
                None
            }
        }
    }

    fn key(&mut self, place: &str, text: &str) -> Option<UniqueKey> {
        if text.trim().is_empty() {
            self.wrong_at(place, "the key is empty; a job that is not unique has \"unique\": false");
            return None;
        }
        Some(UniqueKey::new(text.trim()))
    }

    fn rule(&mut self, table: &Map<String, Value>) -> UniqueDraft {
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())).take(ERRORS) {
            let detail = match nearest(key, KEYS.into_iter()) {
                Some(near) => format!("\"unique\" has no {}; did you mean {near:?}?", quoted(key)),
                None => format!("\"unique\" has no {}; it has {}", quoted(key), KEYS.join(", ")),
            };
            self.wrong_at(&format!("unique/{}", super::escaped(key)), detail);
        }
        let part = |key: &str| table.get(key).filter(|value| !value.is_null());
        UniqueDraft {
            on_conflict: part("on_conflict").and_then(|value| self.word("on_conflict", value, &OnConflict::ALL)),
            until: part("until").and_then(|value| self.word("until", value, &Until::ALL)),
            span: part("for").and_then(|value| self.unique_span("for", value)),
            wait: part("wait").and_then(|value| self.unique_span("wait", value)),
        }
    }

    fn word<T: Copy>(&mut self, key: &str, value: &Value, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong_at(&format!("unique/{key}"), format!("{key:?} must be one of {}", known.join(", ")));
        }
        found.map(|(_, meant)| *meant)
    }

    fn unique_span(&mut self, key: &str, value: &Value) -> Option<Duration> {
        self.span(&format!("unique/{key}"), value, SPAN)
    }
}
