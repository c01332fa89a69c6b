//! Templates in the configuration: `"Welcome, {{ user_name }}!"`, parsed once, rendered for each attempt.

use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

/// Work that one rendering may do before it is stopped; a loop over a hostile argument ends here.
const FUEL: u64 = 200_000;

/// A template that gives a text.
#[derive(Debug, Clone)]
pub struct Template {
    source: Arc<str>,
    variables: BTreeSet<String>,
}

/// A value of the configuration with templates inside: tables and arrays keep their form, and a string that is
/// one expression, `"{{ processing_options }}"`, gives the expression's value with its type.
#[derive(Debug, Clone)]
pub enum ValueTemplate {
    Plain(Value),
    Text(Template),
    Expression(Template),
    Array(Vec<ValueTemplate>),
    Table(Vec<(String, ValueTemplate)>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// Why a template could not be rendered with an attempt's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("render the template `{template}`: {reason}")]
pub struct RenderError {
    pub template: String,
    pub reason: String,
}

impl Template {
    /// # Errors
    /// [`TemplateError`] says in one line what is wrong with the syntax.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let env = environment();
        let template = env.template_from_str(source).map_err(|error| TemplateError(reason(&error)))?;
        let variables = template.undeclared_variables(false).into_iter().map(|name| name.to_string()).collect();
        Ok(Self { source: Arc::from(source), variables })
    }

    /// The names that rendering looks up: parameters, `vars`, `steps`, `now`, `job`.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// # Errors
    /// [`RenderError`] when a value is missing, of an unfit type, or the template does too much.
    pub fn render(&self, context: &Value) -> Result<String, RenderError> {
        environment()
            .render_str(&self.source, minijinja::value::Serde(context))
            .map_err(|error| RenderError { template: self.source.to_string(), reason: reason(&error) })
    }

    fn evaluate(&self, context: &Value) -> Result<Value, RenderError> {
        let fail = |reason: String| RenderError { template: self.source.to_string(), reason };
        let expression = expression_of(&self.source).unwrap_or(&self.source);
        let env = environment();
        let compiled = env.compile_expression(expression).map_err(|error| fail(reason(&error)))?;
        let value = compiled.eval(minijinja::value::Serde(context)).map_err(|error| fail(reason(&error)))?;
        serde_json::to_value(&value).map_err(|error| fail(error.to_string()))
    }
}

impl ValueTemplate {
    /// # Errors
    /// [`TemplateError`] of the first template inside that does not parse.
    pub fn parse(value: Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) if expression_of(&text).is_some() => Self::Expression(Template::parse(&text)?),
            Value::String(text) if text.contains("{{") || text.contains("{%") => Self::Text(Template::parse(&text)?),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(map) => Self::Table(
                map.into_iter().map(|(key, item)| Ok((key, Self::parse(item)?))).collect::<Result<_, _>>()?,
            ),
            plain => Self::Plain(plain),
        })
    }

    /// The names that rendering looks up, with repetitions.
    pub fn variables(&self) -> Vec<&str> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Text(template) | Self::Expression(template) => template.variables().collect(),
            Self::Array(items) => items.iter().flat_map(Self::variables).collect(),
            Self::Table(entries) => entries.iter().flat_map(|(_, item)| item.variables()).collect(),
        }
    }

    /// # Errors
    /// [`RenderError`] of the first template inside that cannot be rendered.
    pub fn render(&self, context: &Value) -> Result<Value, RenderError> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => Value::String(template.render(context)?),
            Self::Expression(template) => template.evaluate(context)?,
            Self::Array(items) => Value::Array(items.iter().map(|item| item.render(context)).collect::<Result<_, _>>()?),
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

/// Strict about missing values, bounded, without escaping: these texts are subjects and addresses, not HTML.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
