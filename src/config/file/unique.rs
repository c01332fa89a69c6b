//! `unique` of a task: `{ key, on_conflict, until, for, wait }`, or the key alone.

use toml::de::DeValue;

use super::document::{Item, Table};
use super::scope::Scope;
use crate::config::TaskUnique;
use crate::job::unique_draft::SPAN;
use crate::job::{OnConflict, UniqueDraft, Until};

/// What makes the jobs of a task unique. `None` when there is a problem with it.
pub(super) fn unique(item: &Item<'_>, scope: &Scope<'_>) -> Option<TaskUnique> {
    match item.value {
        DeValue::Table(_) => whole(&item.table()?, scope),
        DeValue::String(_) => {
            let rule = UniqueDraft::default().resolve().0;
            item.filled_text(A_KEY)?;
            Some(TaskUnique { key: scope.key(item)?, rule })
        }
        _ => {
            item.mismatch("a key such as \"{{ user_id }}\", or a table such as { key = \"{{ user_id }}\" }");
            None
        }
    }
}

const A_KEY: &str = "a text with {{ parameters }}";

fn whole(table: &Table<'_>, scope: &Scope<'_>) -> Option<TaskUnique> {
    let key = table.required("key", "say which jobs are the same: key = \"{{ user_id }}\"");
    let key = key.and_then(|item| item.filled_text(A_KEY).and_then(|_| scope.key(&item)));
    let draft = UniqueDraft {
        on_conflict: table.get("on_conflict").and_then(|item| item.choice(&OnConflict::ALL)),
        until: table.get("until").and_then(|item| item.choice(&Until::ALL)),
        span: table.get("for").and_then(|item| item.duration(SPAN)),
        wait: table.get("wait").and_then(|item| item.duration(SPAN)),
    };
    table.close();
    let (rule, conflicts) = draft.resolve();
    for conflict in conflicts {
        // A part that is written and could not be read was reported already.
        let is_missing = |part: &str| conflict.key.is_none() && table.has(part);
        if is_missing("wait") && draft.wait.is_none() || is_missing("for") && draft.span.is_none() {
            continue;
        }
        let place = conflict.key.and_then(|key| table.get(key)).map_or_else(|| table.place.clone(), |item| item.key);
        table.doc.error(&place, conflict.message, conflict.help);
    }
    Some(TaskUnique { key: key?, rule })
}
