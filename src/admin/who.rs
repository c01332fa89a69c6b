//! Who asks, and why: kept with what came of it.
//!
//! A name that the client gives is not proven. It tells people of one team who of them it was.

use hyper::http::request::Parts;

use super::fields::Fields;
use super::problem::{FieldError, Problem};
use crate::clock;
use crate::job::Request;

/// The header that names the person, when the body does not.
const HEADER: &str = "x-jobsd-user";
/// The name of who gives none.
const NOBODY: &str = "api";
const LONGEST_NAME: usize = 64;
const LONGEST_REASON: usize = 500;

/// The fields of a body that [`request`] reads.
pub(super) const FIELDS: [&str; 2] = ["by", "reason"];

/// Who asks, by the field `by` or the header, and the field `reason`.
pub(super) fn request(head: &Parts, fields: &mut Fields<'_>) -> Result<Request, Problem> {
    let by = match bounded(fields, "by", "ann", LONGEST_NAME) {
        Some(by) => Some(by),
        None => by_header(head)?,
    };
    let reason = bounded(fields, "reason", "wrong recipient", LONGEST_REASON);
    Ok(Request { at: clock::now(), by: by.unwrap_or_else(|| NOBODY.to_owned()), reason })
}

fn bounded(fields: &mut Fields<'_>, field: &str, example: &str, longest: usize) -> Option<String> {
    let text = fields.text(field, example)?;
    match flaw(&text, longest) {
        None => Some(text),
        Some(flaw) => {
            fields.wrong(field, format!("{field:?} {flaw}"));
            None
        }
    }
}

fn by_header(head: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = head.headers.get(HEADER) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    match flaw(&text, LONGEST_NAME) {
        None => Ok(Some(text)),
        Some(flaw) => {
            let detail = format!("the header X-Jobsd-User {flaw}");
            Err(Problem::invalid(vec![FieldError { pointer: "X-Jobsd-User".to_owned(), detail }]))
        }
    }
}

fn flaw(text: &str, longest: usize) -> Option<String> {
    if text.trim().is_empty() {
        Some("is empty; leave it out instead".to_owned())
    } else if text.chars().count() > longest {
        Some(format!("may have {longest} characters"))
    } else if text.chars().any(char::is_control) {
        Some("holds a control character".to_owned())
    } else {
        None
    }
}
