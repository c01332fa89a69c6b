//! `params` of a task: in the order of the file, which is their positional order.

use serde_json::Value;

use super::diagnostic::{nearest, quoted};
use super::document::{Item, Key};
use crate::config::bind::fit;
use crate::config::{Param, ParamType};

/// Parameters that a task may have.
const MOST: usize = 100;
/// What templates see beside the parameters.
pub(super) const RESERVED: [&str; 4] = ["vars", "steps", "now", "job"];

pub(super) fn params(item: &Item<'_>) -> Vec<Param> {
    let Some(table) = item.table() else { return Vec::new() };
    let entries = table.entries();
    if entries.len() > MOST {
        item.error(
            format!("the task has {} parameters, at most {MOST} are allowed", entries.len()),
            "take an object instead",
        );
    }
    let mut optional: Option<String> = None;
    let mut params: Vec<Param> = Vec::new();
    for (key, item) in entries.into_iter().take(MOST) {
        named_well(&key, &item);
        let Some(param) = param(&key, &item) else { continue };
        if let (true, Some(before)) = (param.required, &optional) {
            item.doc.error(
                &key.place,
                format!("the required parameter `{}` follows `{before}`, which is optional", key.name),
                format!("move it before `{before}`, or make it optional: \"string?\" or optional = true"),
            );
        }
        if let Some(before) = params.last().filter(|before| !may_follow(param.kind, before.kind)) {
            item.doc.error(
                &key.place,
                format!("the parameter `{}` follows `{}`, which takes all that is left over", key.name, before.name),
                "write one \"*\" and one \"**\" at most, behind all other parameters and in this order",
            );
        }
        if !param.required && !param.kind.is_star() {
            optional = Some(key.name);
        }
        params.push(param);
    }
    params
}

/// As in Python: `*` behind what has a place of its own, `**` at the end.
fn may_follow(kind: ParamType, before: ParamType) -> bool {
    !before.is_star() || (before == ParamType::Rest && kind == ParamType::Keywords)
}

fn named_well(key: &Key, item: &Item<'_>) {
    let name = &key.name;
    let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
        && name.len() <= 64;
    if !identifier {
        let message = format!("{} is not a parameter's name", quoted(name));
        item.doc.error(&key.place, message, "a name holds letters, digits and `_`, and does not begin with a digit");
    } else if RESERVED.contains(&name.as_str()) {
        let message = format!("a parameter cannot be called `{name}`");
        item.doc.error(&key.place, message, "templates see something else under vars, steps, now and job");
    }
}

fn param(key: &Key, item: &Item<'_>) -> Option<Param> {
    let name = key.name.clone();
    if !item.value.is_table() {
        let (kind, optional) = kind(item)?;
        let required = !optional && !kind.is_star();
        return Some(Param { name, kind, required, default: kind.nothing(), secret: false });
    }
    let table = item.table()?;
    let kind = table.required("type", "add type = \"string\", or another type").and_then(|item| kind(&item));
    let secret = table.boolean("secret", false);
    let optional = table.get("optional");
    let default = table.get("default");
    table.close();
    let said = optional.as_ref().and_then(Item::boolean);
    if let (Some(item), Some(false), Some(_)) = (&optional, said, &default) {
        item.error(format!("`{name}` has a default, so it is optional"), "remove `optional = false` or the default");
    }
    let (kind, mark) = kind?;
    let required = !mark && !said.unwrap_or(false) && default.is_none() && !kind.is_star();
    let default = default.map_or(kind.nothing(), |item| default_value(&name, kind, secret, &item));
    Some(Param { name, kind, required, default, secret })
}

fn default_value(name: &str, kind: ParamType, secret: bool, item: &Item<'_>) -> Value {
    let Some(value) = item.value() else { return Value::Null };
    if secret {
        let message = format!("the default of the secret parameter `{name}` is written into the file");
        item.doc.warning(&item.place, message, "let the producer pass it");
    }
    fit(kind, value).unwrap_or_else(|expected| {
        item.error(format!("the default of `{name}` must be {expected}"), "change the default or the type");
        Value::Null
    })
}

/// The type, and whether a `?` marks it as optional.
fn kind(item: &Item<'_>) -> Option<(ParamType, bool)> {
    let text = item.filled_text("a type such as \"string\", \"int?\" or { type = \"id\", default = 0 }")?.text;
    let (word, optional) = text.strip_suffix('?').map_or((text.as_str(), false), |word| (word, true));
    if let Some(kind) = ParamType::ALL.into_iter().find(|kind| kind.as_str() == word) {
        return Some((kind, optional));
    }
    let names = ParamType::ALL.map(ParamType::as_str);
    let help = match python_type(word).or_else(|| nearest(word, names)) {
        Some(near) => format!("did you mean \"{near}\"? Types are {}", names.join(", ")),
        None => format!("types are {}", names.join(", ")),
    };
    item.error(format!("unknown type {}", quoted(&text)), help);
    None
}

/// What the producer's language calls the same thing.
fn python_type(word: &str) -> Option<&'static str> {
    Some(match word {
        "str" | "text" => "string",
        "integer" => "int",
        "float" | "decimal" => "number",
        "boolean" => "bool",
        "dict" | "map" | "json" => "object",
        "list" | "tuple" => "array",
        "uuid" => "id",
        _ => return None,
    })
}
