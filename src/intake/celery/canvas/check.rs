//! Whether what is due at a task's end can be done at all: looked at when the message comes in, so that nothing is found
//! wrong when half of it is published.

use super::publish;
use super::signature::{Kind, Malformed, Signature, listed};
use crate::intake::celery::message::Embed;
use crate::intake::pyjson::{Dialect, dumps};

/// Signatures in one message, those inside others counted.
const MOST: usize = 50_000;

/// Looks at every signature of a message.
pub(crate) fn check(embed: &Embed) -> Result<(), Malformed> {
    let mut left = MOST;
    let lists = [&embed.callbacks, &embed.errbacks, &embed.chain, &embed.chord];
    lists
        .into_iter()
        .flat_map(|list| listed(Some(list)))
        .try_for_each(|value| visit(&Signature::read(value)?, &mut left))
}

fn visit(signature: &Signature, left: &mut usize) -> Result<(), Malformed> {
    *left = left.checked_sub(1).ok_or(Malformed::TooMany(MOST))?;
    for option in ["link", "link_error", "chain", "chord"] {
        signature.signatures(option)?.iter().try_for_each(|inner| visit(inner, left))?;
    }
    match signature.kind() {
        Kind::Task => Ok(()),
        Kind::Chain | Kind::Group => signature.tasks()?.iter().try_for_each(|inner| visit(inner, left)),
        Kind::Chord => {
            let (body, header) = (signature.body()?, signature.header()?);
            visit(&body, left)?;
            // Each member gets a copy of the body.
            let copies = dumps(&body.into_value(), Dialect::Kombu).len().saturating_mul(header.len());
            if copies > publish::MOST {
                return Err(Malformed::TooLarge(publish::MOST));
            }
            header.iter().try_for_each(|inner| visit(inner, left))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason(part: Value) -> Option<String> {
        check(&Embed { chain: part, ..Embed::default() }).err().map(|malformed| malformed.to_string())
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        let group =
            |tasks: Value| json!([{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": tasks}}]);
        assert_eq!(reason(json!([{"task": "t"}])), None, "what is missing is empty");
        assert_eq!(reason(group(json!([{"task": "t"}]))), None);
        let cases = [
            (json!(7), "a signature is not an object"),
            (json!(["t"]), "a signature is not an object"),
            (json!([{}]), "a signature names no task"),
            (json!([{"task": 1}]), "a signature names no task"),
            (json!([{"task": "t", "args": {}}]), "the args of the signature of t is not a list"),
            (json!([{"task": "t", "kwargs": []}]), "the kwargs of the signature of t is not an object"),
            (json!([{"task": "t", "options": 1}]), "the options of the signature of t is not an object"),
            (json!([{"task": "t", "options": {"link": [1]}}]), "a signature is not an object"),
            (json!([{"task": "t", "options": {"chord": {"task": ""}}}]), "a signature names no task"),
            (group(json!(1)), "the tasks of the signature of celery.group is not a list of signatures"),
            (group(json!([[]])), "a signature is not an object"),
            (
                json!([{"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": []}}]),
                "a signature is not an object",
            ),
        ];
        for (part, expected) in cases {
            assert_eq!(reason(part.clone()).as_deref(), Some(expected), "{part}");
        }
        let many = vec![json!({"task": "t"}); MOST + 1];
        assert_eq!(
            reason(Value::Array(many)).as_deref(),
            Some("there are more than 50000 signatures in it; send smaller ones")
        );
    }
}
