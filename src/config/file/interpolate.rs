//! `${VAR}`, `${VAR:-default}` and `$$` in the strings of the file.
//!
//! It works on values, after TOML has been parsed: a variable's text can never become syntax.

use super::Environment;

/// A string with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpolated {
    pub(super) text: String,
    /// Whether a variable took part.
    pub(super) changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InterpolateError {
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
    #[error("`${{` is not closed")]
    Unclosed,
    #[error("`${{{0}}}` is not a variable")]
    Name(String),
    #[error("`${{…}}` stands inside another `${{…}}`")]
    Nested,
}

impl InterpolateError {
    /// What stands in the text at the problem.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Unset(name) | Self::Name(name) => format!("${{{name}"),
            Self::Unclosed | Self::Nested => "${".into(),
        }
    }

    pub(super) fn help(&self) -> String {
        match self {
            Self::Unset(name) => format!("set {name} before jobsd starts, or give a default: `${{{name}:-…}}`"),
            Self::Unclosed => "close it with `}`, or write `$$` for a dollar sign itself".into(),
            Self::Name(_) => "a name holds letters, digits and `_`; `$$` stands for a dollar sign itself".into(),
            Self::Nested => "a default is plain text; give the inner variable a key of its own in [vars]".into(),
        }
    }
}

/// Fills in the variables of `text`. As in a shell, `:-` gives its default for an empty variable too.
pub(super) fn interpolate(text: &str, env: Environment<'_>) -> Result<Interpolated, InterpolateError> {
    let mut filled = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or(InterpolateError::Unclosed)?;
            filled.push_str(&variable(&after[..end], env)?);
            changed = true;
            rest = &after[end + 1..];
        } else {
            filled.push('$');
        }
    }
    filled.push_str(rest);
    Ok(Interpolated { text: filled, changed })
}

fn variable(inside: &str, env: Environment<'_>) -> Result<String, InterpolateError> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if inside.contains("${") {
        return Err(InterpolateError::Nested);
    }
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_')
    {
        return Err(InterpolateError::Name(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(InterpolateError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, InterpolateError> {
        let env = |name: &str| match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("\"\n[admin]\n${HOST}".to_owned()),
            _ => None,
        };
        interpolate(text, &env).map(|done| done.text)
    }

    #[test]
    fn variables_defaults_and_dollars() {
        let cases = [
            ("plain", "plain"),
            ("postgres://${HOST}/app", "postgres://db.example/app"),
            ("${NOT_SET:-a:b}-${EMPTY:-x}-${EMPTY}", "a:b-x-"),
            ("${NOT_SET:-}", ""),
            ("$$5 and $5 and $", "$5 and $5 and $"),
            ("$${HOST}", "${HOST}"),
            ("{{ x }}", "{{ x }}"),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_value_is_not_read_again() {
        assert_eq!(filled("${TRICK}").as_deref(), Ok("\"\n[admin]\n${HOST}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(filled("${NOT_SET}"), Err(InterpolateError::Unset("NOT_SET".into())));
        assert_eq!(filled("a ${HOST"), Err(InterpolateError::Unclosed));
        assert_eq!(filled("${1X}"), Err(InterpolateError::Name("1X".into())));
        assert_eq!(filled("${A:-${HOST}}"), Err(InterpolateError::Nested));
    }
}
