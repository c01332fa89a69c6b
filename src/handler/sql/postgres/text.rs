//! Values in PostgreSQL's text form, which the server reads as whatever type it has inferred for their placeholder.

use std::borrow::Cow;

use serde_json::{Value, json};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

use super::super::batch::Given;
use super::super::bind::Scalar;

/// A value in PostgreSQL's text form, whatever the type of its placeholder.
#[derive(Debug)]
pub(super) struct AsText<'a>(pub(super) Scalar<'a>);

impl ToSql for AsText<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match text_form(&self.0, ty) {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// The values at one place of all rows as a `text[]`: the text forms that each of them would have by itself for a
/// placeholder of type `ty`.
#[derive(Debug)]
pub(super) struct Texts<'a, V> {
    pub(super) rows: &'a [Vec<V>],
    pub(super) at: usize,
    pub(super) ty: Type,
}

impl<V: Given> ToSql for Texts<'_, V> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        const NULL: i32 = -1;
        // PostgreSQL's array_recv: dimensions, whether there are NULLs, the element's type; of each dimension the length
        // and the first index; then the elements with their lengths.
        let length = i32::try_from(self.rows.len())?;
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&Type::TEXT.oid().to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        for row in self.rows {
            match text_form(&Scalar::of(row[self.at].borrow()), &self.ty) {
                None => out.extend_from_slice(&NULL.to_be_bytes()),
                Some(text) => {
                    out.extend_from_slice(&i32::try_from(text.len())?.to_be_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    tokio_postgres::types::to_sql_checked!();
}

/// `None` is NULL. A `json` or `jsonb` placeholder gets the value as JSON, so that a string stays a string there.
fn text_form<'a>(value: &'a Scalar<'a>, ty: &Type) -> Option<Cow<'a, str>> {
    let ty = base(ty);
    let json = matches!(*ty, Type::JSON | Type::JSONB);
    Some(match value {
        Scalar::Null => return None,
        Scalar::Bool(true) => Cow::Borrowed("true"),
        Scalar::Bool(false) => Cow::Borrowed("false"),
        Scalar::Number(number) => number.to_string().into(),
        Scalar::Text(text) if json => json!(text).to_string().into(),
        Scalar::Text(text) => Cow::Borrowed(text),
        Scalar::Bytes(bytes) => hex(bytes).into(),
        Scalar::Json(Value::Array(items)) if matches!(ty.kind(), Kind::Array(_)) => array_literal(items).into(),
        Scalar::Json(value) => value.to_string().into(),
    })
}

/// What a domain is made of.
fn base(mut ty: &Type) -> &Type {
    while let Kind::Domain(inner) = ty.kind() {
        ty = inner;
    }
    ty
}

/// The `bytea` of these bytes.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    bytes.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
    text
}

/// `{"a",NULL,{"b"}}`, with every element quoted.
fn array_literal(items: &[Value]) -> String {
    let element = |item: &Value| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(inner) => array_literal(inner),
        other => match text_form(&Scalar::of(other), &Type::TEXT) {
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "NULL".to_owned(),
        },
    };
    format!("{{{}}}", items.iter().map(element).collect::<Vec<_>>().join(","))
}
