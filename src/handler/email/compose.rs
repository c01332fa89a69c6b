//! From a step and an attempt's values to a mail: every template rendered, everything rendered checked.

use serde_json::{Map, Value};

use super::address::{Address, AddressError};
use super::header::{Header, HeaderText};
use super::key::SendKey;
use super::message::{Body, MOST_RECIPIENTS, Mail};
use super::{Email, EmailError, text};
use crate::config::{EmailStep, Template, ValueTemplate};
use crate::handler::Run;
use crate::job::Timestamp;

impl Email {
    /// The mail without its files, which are read apart.
    pub(super) fn compose(&self, step: &EmailStep, run: &Run<'_>, now: Timestamp) -> Result<Mail, EmailError> {
        let values = run.context.values();
        let address = |field, template: &Template| read_address(field, &template.render(values)?);
        let to = address("to", &step.to)?;
        let cc = addresses("cc", step.cc.as_ref(), values, &[std::slice::from_ref(&to)])?;
        let bcc = addresses("bcc", step.bcc.as_ref(), values, &[std::slice::from_ref(&to), &cc])?;
        let recipients = 1 + cc.len() + bcc.len();
        if recipients > MOST_RECIPIENTS {
            return Err(EmailError::Recipients(recipients));
        }
        let reply_to = match &step.reply_to {
            Some(template) => Some(address("reply_to", template)?),
            None => self.reply_to.clone(),
        };
        Ok(Mail {
            key: SendKey::new(&run.job.id, run.step),
            from: step.from.as_ref().map_or_else(|| Ok(self.from.clone()), |from| address("from", from))?,
            reply_to,
            to,
            cc,
            bcc,
            subject: HeaderText::of("subject", step.subject.render(values)?)?,
            headers: headers(step, values)?,
            body: self.body(step, values)?,
            attachments: Vec::new(),
            date: now,
        })
    }

    /// A named template wins over the step's own `html` and `text`. An absent argument renders as `None`, so that
    /// is no template's name.
    fn body(&self, step: &EmailStep, values: &Value) -> Result<Body, EmailError> {
        let template = step.template.as_ref().map(|template| template.render(values)).transpose()?;
        if let Some(name) = template.as_deref().map(str::trim).filter(|name| !matches!(*name, "" | "None" | "none")) {
            return Ok(self.templates.render(name, &template_values(step, values)?)?);
        }
        let html = step.html.as_ref().map(|html| html.render(values)).transpose()?;
        let text = step.text.as_ref().map(|text| text.render(values)).transpose()?;
        match (html, text) {
            (html, Some(text)) => Ok(Body { html, text }),
            (Some(html), None) => Ok(Body { text: text::from_html(&html), html: Some(html) }),
            (None, None) => Err(EmailError::Empty),
        }
    }
}

fn headers(step: &EmailStep, values: &Value) -> Result<Vec<Header>, EmailError> {
    let mut headers = Vec::new();
    for (name, value) in &step.headers {
        headers.push(Header::new(name, value.render(values)?)?);
    }
    if let Some(links) = &step.unsubscribe {
        headers.extend(Header::unsubscribe(&links.render(values)?)?);
    }
    Ok(headers)
}

fn read_address(field: &'static str, text: &str) -> Result<Address, EmailError> {
    Address::parse(text).map_err(|error| EmailError::Address { field, error })
}

/// An address, an array of them, or nothing. Who gets the mail anyway is left out: SendGrid refuses a mail that names
/// somebody twice.
fn addresses(
    field: &'static str,
    template: Option<&ValueTemplate>,
    values: &Value,
    others: &[&[Address]],
) -> Result<Vec<Address>, EmailError> {
    let Some(template) = template else { return Ok(Vec::new()) };
    let shape = |what| EmailError::Address { field, error: AddressError::Shape(what) };
    let given = match template.render(values)? {
        Value::Null => Vec::new(),
        Value::Array(given) => given,
        one => vec![one],
    };
    let mut found: Vec<Address> = Vec::new();
    for value in given {
        let text = match &value {
            Value::String(text) if text.trim().is_empty() => continue,
            Value::String(text) => text,
            Value::Null => continue,
            Value::Object(_) => return Err(shape("an object")),
            Value::Array(_) => return Err(shape("an array in an array")),
            Value::Bool(_) | Value::Number(_) => return Err(shape("a number or a truth value")),
        };
        let address = read_address(field, text)?;
        if !others.iter().copied().flatten().chain(&found).any(|other| other.is_same_as(&address)) {
            found.push(address);
        }
    }
    Ok(found)
}

/// The attempt's values with the step's `context` spread over them. `vars` stays the operator's: links are made of it,
/// and a producer's context must not move them to another host.
fn template_values(step: &EmailStep, values: &Value) -> Result<Value, EmailError> {
    let mut merged: Map<String, Value> = values.as_object().cloned().unwrap_or_default();
    let context = step.context.as_ref().map(|context| context.render(values)).transpose()?.unwrap_or_default();
    match context {
        Value::Null => {}
        Value::Object(context) => merged.extend(context.into_iter().filter(|(name, _)| name != "vars")),
        Value::Array(_) => return Err(EmailError::Context("an array")),
        Value::String(_) => return Err(EmailError::Context("a text")),
        Value::Bool(_) | Value::Number(_) => return Err(EmailError::Context("a number or a truth value")),
    }
    Ok(Value::Object(merged))
}
