//! Templates in the configuration: `"Welcome, {{ user_name }}!"`, parsed once, rendered for each attempt.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

/// Work that one rendering may do before it is stopped; a loop over a hostile argument ends here.
const FUEL: u64 = 200_000;

/// What all templates are read and rendered with. To make one costs more than most renderings.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// A template that gives a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    source: Arc<str>,
    lookups: BTreeSet<String>,
}

/// A value of the configuration with templates inside: tables and arrays keep their form, and a string that is
/// one expression, `"{{ processing_options }}"`, gives the expression's value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ValueTemplate {
    Plain(Value),
    Text(Template),
    Expression(Template),
    Array(Vec<ValueTemplate>),
    Table(Vec<(String, ValueTemplate)>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(String);

/// Why a template could not be rendered with an attempt's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("render the template `{template}`: {reason}")]
pub(crate) struct RenderError {
    pub template: String,
    pub reason: String,
}

impl Template {
    /// # Errors
    /// [`TemplateError`] says in one line what is wrong with the syntax.
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        let env = environment();
        let template = env.template_from_str(source).map_err(|error| TemplateError(reason(&error)))?;
        let lookups = template.undeclared_variables(true).into_iter().collect();
        Ok(Self { source: Arc::from(source), lookups })
    }

    /// The names that rendering looks up, with their fields: `user_name`, `vars.base_url`.
    pub(crate) fn lookups(&self) -> impl Iterator<Item = &str> {
        self.lookups.iter().map(String::as_str)
    }

    /// Renders with sample values, to find what the syntax alone does not show.
    ///
    /// # Errors
    /// [`TemplateError`] when a filter, test or function does not exist. What depends on the values is no error here.
    pub(crate) fn trial(&self, sample: &Value) -> Result<(), TemplateError> {
        let env = environment();
        let outcome = env.render_str(&self.source, minijinja::value::Serde(sample));
        match outcome {
            Err(error) if names_nothing(error.kind()) => {
                Err(TemplateError(error.detail().map_or_else(|| reason(&error), str::to_owned)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is a URL whose host stands in it as it is. An expression before the path could change the host.
    pub(crate) fn has_own_host(&self) -> bool {
        let written = self.source.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let authority = written.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        !authority.is_empty() && !authority.contains(['{', '}'])
    }

    /// # Errors
    /// [`RenderError`] when a value is missing, of an unfit type, or the template does too much.
    pub(crate) fn render(&self, context: &Value) -> Result<String, RenderError> {
        ENVIRONMENT
            .render_str(&self.source, minijinja::value::Serde(context))
            .map_err(|error| RenderError { template: self.source.to_string(), reason: reason(&error) })
    }

    /// Renders a URL: what an expression gives is one piece of a path or a query, and is percent-encoded, so that no
    /// argument changes the host, the path around it or the rest of the query. Left as they are: an expression that the
    /// URL begins with, for it is the URL, and what went through `urlencode` (which leaves `/` alone) or `safe`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_url(&self, context: &Value) -> Result<String, RenderError> {
        let mut env = environment();
        let begins = AtomicBool::new(self.source.trim_start().starts_with("{{"));
        env.set_formatter(move |out, _, value| {
            let text = value.to_string();
            if begins.swap(false, Ordering::Relaxed) || value.is_safe() {
                return out.write_str(&text).map_err(minijinja::Error::from);
            }
            out.write_str(&percent_encoded(&text)).map_err(minijinja::Error::from)
        });
        env.add_filter("urlencode", |value: &minijinja::Value| {
            minijinja::filters::urlencode(value).map(minijinja::Value::from_safe_string)
        });
        env.render_str(&self.source, minijinja::value::Serde(context))
            .map_err(|error| RenderError { template: self.source.to_string(), reason: reason(&error) })
    }

    /// The name, where the expression is nothing else.
    fn name(&self) -> Option<&str> {
        expression_of(&self.source).filter(|expression| is_name(expression))
    }

    fn evaluate(&self, context: &Value) -> Result<Value, RenderError> {
        let fail = |reason: String| RenderError { template: self.source.to_string(), reason };
        if let Some(value) = self.name().and_then(|name| context.get(name)) {
            return Ok(value.clone());
        }
        let expression = expression_of(&self.source).unwrap_or(&self.source);
        // Owned, because the environment outlives the template.
        let compiled =
            ENVIRONMENT.compile_expression_owned(expression.to_owned()).map_err(|error| fail(reason(&error)))?;
        let value = compiled.eval(minijinja::value::Serde(context)).map_err(|error| fail(reason(&error)))?;
        serde_json::to_value(&value).map_err(|error| fail(error.to_string()))
    }
}

impl ValueTemplate {
    /// # Errors
    /// [`TemplateError`] of the first template inside that does not parse.
    pub(crate) fn parse(value: Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) if expression_of(&text).is_some() => Self::Expression(Template::parse(&text)?),
            Value::String(text) if text.contains("{{") || text.contains("{%") => Self::Text(Template::parse(&text)?),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(map) => {
                Self::Table(map.into_iter().map(|(key, item)| Ok((key, Self::parse(item)?))).collect::<Result<_, _>>()?)
            }
            plain => Self::Plain(plain),
        })
    }

    /// The templates inside.
    pub(crate) fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Text(template) | Self::Expression(template) => vec![template],
            Self::Array(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Table(entries) => entries.iter().flat_map(|(_, item)| item.templates()).collect(),
        }
    }

    /// The name of the value that this is, where it is nothing else: `"{{ user_id }}"`.
    pub(crate) fn name(&self) -> Option<&str> {
        if let Self::Expression(template) = self { template.name() } else { None }
    }

    /// Whether it is this expression and nothing else.
    pub(crate) fn is(&self, expression: &str) -> bool {
        matches!(self, Self::Expression(template) if expression_of(&template.source) == Some(expression))
    }

    /// # Errors
    /// [`RenderError`] of the first template inside that cannot be rendered.
    pub(crate) fn render(&self, context: &Value) -> Result<Value, RenderError> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => Value::String(template.render(context)?),
            Self::Expression(template) => template.evaluate(context)?,
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.render(context)).collect::<Result<_, _>>()?)
            }
            Self::Table(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), item.render(context)?)))
                    .collect::<Result<_, RenderError>>()?,
            ),
        })
    }
}

/// The inside of a text that is nothing but one `{{ expression }}`.
fn expression_of(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}")).then(|| inner.trim())
}

/// Whether an expression is nothing but the name of a value. The words of the language are none.
fn is_name(expression: &str) -> bool {
    const WORDS: [&str; 15] = [
        "true", "True", "false", "False", "none", "None", "not", "and", "or", "in", "is", "if", "else", "loop", "self",
    ];
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    expression.starts_with(is_first)
        && expression.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&expression)
}

/// Strict about missing values, bounded, without escaping: these texts are subjects and addresses, not HTML.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env.add_filter("minus", minus);
    env
}

/// Everything but the characters that mean nothing anywhere in a URL (RFC 3986, 2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `{{ now | minus("90d") }}`: the instant that much earlier, in the form that `now` has.
fn minus(instant: &str, span: &str) -> Result<String, minijinja::Error> {
    let fail = |message: String| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message);
    let instant = chrono::DateTime::parse_from_rfc3339(instant).map_err(|error| fail(format!("minus: {error}")))?;
    let span = humantime::parse_duration(span).map_err(|error| fail(format!("minus: {error}")))?;
    let earlier = chrono::Duration::from_std(span).ok().and_then(|span| instant.to_utc().checked_sub_signed(span));
    let earlier = earlier.ok_or_else(|| fail("minus: there is no such early time".into()))?;
    Ok(earlier.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

fn names_nothing(kind: minijinja::ErrorKind) -> bool {
    use minijinja::ErrorKind::{UnknownFilter, UnknownFunction, UnknownTest};
    matches!(kind, UnknownFilter | UnknownFunction | UnknownTest)
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(template: Value, context: Value) -> Result<Value, String> {
        let template = ValueTemplate::parse(template).map_err(|error| error.to_string())?;
        template.render(&context).map_err(|error| error.reason)
    }

    #[test]
    fn an_expression_keeps_its_type() {
        let context = json!({"steps": [{"affected": 7}], "options": {"quality": ["720p"]}});
        let template =
            json!({"success": true, "deleted_count": "{{ steps[0].affected }}", "text": "n={{ steps[0].affected }}"});
        assert_eq!(value(template, context.clone()), Ok(json!({"success": true, "deleted_count": 7, "text": "n=7"})));
        assert_eq!(value(json!("{{ options.quality }}"), context), Ok(json!(["720p"])));
    }

    #[test]
    fn a_name_alone_is_its_value_and_words_of_the_language_are_no_names() {
        let context = json!({"x": {"b": [1.5, null], "a": u64::MAX}, "true": 1, "none": 2, "not": 3});
        assert_eq!(value(json!("{{ x }}"), context.clone()), Ok(context["x"].clone()));
        assert_eq!(value(json!("{{ true }}"), context.clone()), Ok(json!(true)));
        assert_eq!(value(json!("{{ none }}"), context.clone()), Ok(json!(null)));
        for broken in ["{{ not }}", "{{ x. }}"] {
            assert!(value(json!(broken), context.clone()).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_instant_minus_a_span() {
        let context = json!({"now": "2026-11-23T10:00:00.000Z"});
        assert_eq!(value(json!("{{ now | minus('90d') }}"), context.clone()), Ok(json!("2026-08-25T10:00:00.000Z")));
        assert!(value(json!("{{ now | minus('90 parsecs') }}"), context.clone()).is_err());
        assert!(value(json!("{{ now | minus('9000000y') }}"), context).is_err());
    }

    #[test]
    fn a_piece_of_a_url_stays_one_piece() {
        let context =
            json!({"x": "../a?b=c#d&e f", "path": "a/b?c", "base": "https://h.test/v1", "n": 7, "none": null});
        let url = |source: &str| {
            Template::parse(source).expect("it parses").render_url(&context).map_err(|error| error.reason)
        };
        let piece = "..%2Fa%3Fb%3Dc%23d%26e%20f";
        assert_eq!(url("https://h.test/{{ x }}/y?q={{ x }}"), Ok(format!("https://h.test/{piece}/y?q={piece}")));
        assert_eq!(url("{{ base }}/{{ x }}/{{ n }}"), Ok(format!("https://h.test/v1/{piece}/7")));
        assert_eq!(url("https://h.test/{{ path | urlencode }}"), Ok("https://h.test/a/b%3Fc".into()));
        assert_eq!(url("https://h.test/{{ path | safe }}"), Ok("https://h.test/a/b?c".into()));
        assert_eq!(url("https://h.test{{ x }}/"), Ok(format!("https://h.test{piece}/")));
        assert!(url("https://h.test/{{ nobody }}").is_err());
    }

    #[test]
    fn a_missing_value_and_an_endless_loop_are_errors() {
        assert!(value(json!("{{ nobody }} x"), json!({})).is_err());
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(value(json!(endless), json!({})).is_err());
    }

    #[test]
    fn what_is_looked_up_has_its_fields() {
        let template = Template::parse("{{ a }} {{ vars.base }} {% if b %}{% endif %}").expect("it parses");
        assert_eq!(template.lookups().collect::<Vec<_>>(), ["a", "b", "vars.base"]);
        assert!(Template::parse("{{ a | nothing }}").expect("it parses").trial(&json!({"a": 1})).is_err());
    }
}
