//! Files that a mail carries: from the allowed folders only, and not more of them than is allowed.
//!
//! What is read is what was checked: a file is opened first, and then it is asked where it lies. A link that is turned
//! round in between changes nothing.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lettre::message::header::ContentType;
use serde_json::Value;

use super::header::{HeaderText, TextError};
use crate::config::AttachmentRules;

/// Files of one mail.
const MOST: usize = 20;

/// A file as it goes into the mail.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// As the recipient sees it: no folders.
    pub(super) name: HeaderText,
    pub(super) kind: ContentType,
    /// `kind` as it is written.
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::handler) enum AttachmentError {
    #[error(
        "attach what `attachments` names: it is neither a path, nor {{ path, name, type }}, nor an array of at most {MOST} of these"
    )]
    Shape,
    #[error("attach `{0}`: there is no such file in attachment_roots")]
    Missing(String),
    #[error("attach `{path}`: it lies outside attachment_roots ({roots})")]
    Outside { path: String, roots: String },
    #[error("attach `{0}`: it is not a file")]
    NotAFile(String),
    #[error("attach `{path}`: {reason}")]
    Read { path: String, reason: std::io::Error },
    #[error("attach `{path}`: the files of this mail have more than {max} bytes together, which is max_attachments")]
    TooLarge { path: String, max: u64 },
    #[error("attach `{path}`: its name cannot stand in a mail: {error}")]
    Name { path: String, error: TextError },
    #[error("attach `{path}`: `{kind}` is not a media type")]
    Kind { path: String, kind: String },
}

/// One entry of `attachments`.
struct Wanted {
    path: String,
    name: Option<String>,
    kind: Option<String>,
}

/// Reads the files that a rendered `attachments` names. Waits for the disk.
pub(super) fn read(wanted: &Value, rules: &AttachmentRules) -> Result<Vec<Attachment>, AttachmentError> {
    let entries: Vec<&Value> = match wanted {
        Value::Null => Vec::new(),
        Value::String(path) if path.trim().is_empty() => Vec::new(),
        Value::Array(entries) => entries.iter().collect(),
        one => vec![one],
    };
    if entries.len() > MOST {
        return Err(AttachmentError::Shape);
    }
    let mut room = rules.max;
    let mut files = Vec::new();
    for entry in entries {
        let wanted = Wanted::parse(entry)?;
        let file = wanted.read(rules, room)?;
        room -= file.bytes.len() as u64;
        files.push(file);
    }
    Ok(files)
}

impl Wanted {
    fn parse(entry: &Value) -> Result<Self, AttachmentError> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(Some(text.clone())),
            Value::Null => Ok(None),
            _ => Err(AttachmentError::Shape),
        };
        match entry {
            Value::String(path) => Ok(Self { path: path.clone(), name: None, kind: None }),
            Value::Object(map) if map.keys().all(|key| ["path", "name", "type"].contains(&key.as_str())) => {
                let path = map.get("path").and_then(Value::as_str).ok_or(AttachmentError::Shape)?.to_owned();
                let (name, kind) = (map.get("name").unwrap_or(&Value::Null), map.get("type").unwrap_or(&Value::Null));
                Ok(Self { path, name: text(name)?, kind: text(kind)? })
            }
            _ => Err(AttachmentError::Shape),
        }
    }

    fn read(self, rules: &AttachmentRules, room: u64) -> Result<Attachment, AttachmentError> {
        let (file, path) = open(&self.path, &rules.roots)?;
        let failed = |reason| AttachmentError::Read { path: self.path.clone(), reason };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(AttachmentError::NotAFile(self.path));
        }
        let mut bytes = Vec::new();
        file.take(room + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > room {
            return Err(AttachmentError::TooLarge { path: self.path, max: rules.max });
        }
        let own = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = self.name.filter(|name| !name.trim().is_empty()).unwrap_or_else(own);
        let kind = self.kind.unwrap_or_else(|| kind_of(&name).to_owned());
        let bad_kind = || AttachmentError::Kind { path: self.path.clone(), kind: kind.chars().take(100).collect() };
        let plain = kind.is_ascii() && !kind.contains(char::is_control);
        let parsed = ContentType::parse(&kind).ok().filter(|_| plain).ok_or_else(bad_kind)?;
        let plain = name.replace(['/', '\\'], "_");
        let name =
            HeaderText::parse(plain).map_err(|error| AttachmentError::Name { path: self.path.clone(), error })?;
        Ok(Attachment { name, kind: parsed, media_type: kind, bytes })
    }
}

/// The file, opened, and where it really lies. A path outside is refused in the same words whether it exists or not: it
/// is nobody's business.
fn open(given: &str, roots: &[PathBuf]) -> Result<(File, PathBuf), AttachmentError> {
    let path = Path::new(given);
    let resolved: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    let inside = |path: &Path| resolved.iter().any(|root| path.starts_with(root));
    let shown = || roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
    let outside = || AttachmentError::Outside { path: given.to_owned(), roots: shown() };
    let candidates: Vec<PathBuf> = match path.is_absolute() {
        true => vec![path.to_owned()],
        false => resolved.iter().map(|root| root.join(path)).collect(),
    };
    let mut named_outside =
        given.contains('\0') || path.is_absolute() && !roots.iter().chain(&resolved).any(|root| path.starts_with(root));
    for candidate in candidates {
        // Nothing outside is opened on purpose: opening alone has effects on some files.
        let Ok(real) = candidate.canonicalize() else { continue };
        if !inside(&real) {
            named_outside = true;
            continue;
        }
        let failed = |reason| AttachmentError::Read { path: given.to_owned(), reason };
        // A pipe would wait for its writer.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&real);
        let file = opened.map_err(failed)?;
        let lies = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
        return if inside(&lies) { Ok((file, lies)) } else { Err(outside()) };
    }
    if named_outside { Err(outside()) } else { Err(AttachmentError::Missing(given.to_owned())) }
}

/// The usual ones by the end of the name.
fn kind_of(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "zip" => "application/zip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
