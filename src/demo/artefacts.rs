//! What a job has left behind: files in outboxes and in the video folder, rows in SQLite. A job whose artefact is not
//! there has not done its work, whatever its answer says.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::clip::{self, ClipError};
use super::place::Place;
use super::workload::{Leaves, Work};

/// Bytes of a mail in which its headers stand.
const HEADERS: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ArtefactError {
    #[error("find what the job {task} should have left: there is no {what}")]
    Missing { task: &'static str, what: String },
    #[error("read the rows in {}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error(transparent)]
    Clip(#[from] ClipError),
}

/// One thing that a job left.
#[derive(Debug, Clone)]
pub(super) struct Artefact {
    pub(super) kind: Kind,
    /// `mail`, `720p`, …
    pub(super) name: String,
    /// A file, or the database that holds the row.
    pub(super) path: PathBuf,
    /// What is in it, in a few words.
    pub(super) facts: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mail,
    Push,
    Video,
    Picture,
    Row,
}

/// Where to look.
pub(super) struct Artefacts {
    mails: PathBuf,
    pushes: PathBuf,
    videos: PathBuf,
    public_url: String,
    database: PathBuf,
    /// The newest rows that an earlier run left in the same folder.
    notifications: i64,
    events: i64,
}

/// The newest row of a table behind the given id, in words.
const NOTIFICATION: &str = "\
    SELECT id, notification_type || ' for user ' || user_id || ', \"' || content || '\"' \
    FROM notifications WHERE id > ?1 ORDER BY id DESC";
const EVENT: &str = "\
    SELECT id, event_type || ' of user ' || user_id || ', ' || event_data \
    FROM user_events WHERE id > ?1 ORDER BY id DESC";

impl Artefacts {
    /// `public_url` is what the URLs of videos begin with.
    pub(super) fn new(place: &Place, public_url: &str) -> Result<Self, ArtefactError> {
        let mut found = Self {
            mails: place.mails(),
            pushes: place.pushes(),
            videos: place.videos(),
            public_url: public_url.to_owned(),
            database: place.database(),
            notifications: 0,
            events: 0,
        };
        // The tables come with the first job that needs them.
        if found.database.exists() {
            found.notifications = found.newest(NOTIFICATION, 0)?.map_or(0, |(id, _)| id);
            found.events = found.newest(EVENT, 0)?.map_or(0, |(id, _)| id);
        }
        Ok(found)
    }

    /// Everything that this job had to leave.
    pub(super) async fn left_by(&self, work: &Work, id: &str, result: &Value) -> Result<Vec<Artefact>, ArtefactError> {
        match work.leaves {
            Leaves::Mail => Ok(vec![self.mail(work, id)?]),
            Leaves::NotificationAndPush => {
                Ok(vec![self.row(work, "notifications", NOTIFICATION, self.notifications)?, self.push(work, id)?])
            }
            Leaves::Event => Ok(vec![self.row(work, "user_events", EVENT, self.events)?]),
            Leaves::Videos => self.videos(work, result).await,
        }
    }

    fn mail(&self, work: &Work, id: &str) -> Result<Artefact, ArtefactError> {
        let path = file_of(&self.mails, id, "eml").ok_or_else(|| missing(work, "mail"))?;
        let text = fs::read(&path).unwrap_or_default();
        let headers = String::from_utf8_lossy(&text[..text.len().min(HEADERS)]).into_owned();
        let facts = format!("to {}, \"{}\"", header(&headers, "To"), header(&headers, "Subject"));
        Ok(Artefact { kind: Kind::Mail, name: "mail".into(), path, facts })
    }

    fn push(&self, work: &Work, id: &str) -> Result<Artefact, ArtefactError> {
        let path = file_of(&self.pushes, id, "json").ok_or_else(|| missing(work, "push message"))?;
        let message: Value =
            fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let title = message.pointer("/message/notification/title").and_then(Value::as_str).unwrap_or_default();
        Ok(Artefact { kind: Kind::Push, name: "push".into(), path, facts: format!("\"{title}\", as FCM would get it") })
    }

    fn row(&self, work: &Work, table: &str, query: &str, behind: i64) -> Result<Artefact, ArtefactError> {
        let (id, words) = self.newest(query, behind)?.ok_or_else(|| missing(work, &format!("new row in {table}")))?;
        let facts = format!("{table}, id {id}: {words}");
        Ok(Artefact { kind: Kind::Row, name: "row".into(), path: self.database.clone(), facts })
    }

    /// The files behind the URLs that the job returned.
    async fn videos(&self, work: &Work, result: &Value) -> Result<Vec<Artefact>, ArtefactError> {
        let outputs = result["outputs"].as_object().ok_or_else(|| missing(work, "list of outputs"))?;
        let mut found = Vec::new();
        for name in ["720p", "480p", "thumbnail"] {
            let url = outputs.get(name).and_then(Value::as_str).and_then(|url| url.strip_prefix(&self.public_url));
            let path = url.map(|rest| self.videos.join(rest.trim_start_matches('/'))).filter(|path| path.is_file());
            let path = path.ok_or_else(|| missing(work, &format!("output {name}")))?;
            let facts = clip::describe(&path).await?;
            let kind = if name == "thumbnail" { Kind::Picture } else { Kind::Video };
            found.push(Artefact { kind, name: name.into(), path, facts });
        }
        Ok(found)
    }

    fn newest(&self, query: &str, behind: i64) -> Result<Option<(i64, String)>, ArtefactError> {
        use rusqlite::OptionalExtension as _;
        let failed = |source| ArtefactError::Sqlite { path: self.database.clone(), source };
        let connection =
            Connection::open_with_flags(&self.database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        let row = connection.query_row(query, [behind], |row| Ok((row.get(0)?, row.get(1)?)));
        row.optional().map_err(failed)
    }
}

fn missing(work: &Work, what: &str) -> ArtefactError {
    ArtefactError::Missing { task: work.task, what: what.to_owned() }
}

/// The outbox's file for this job: its name holds the job's id.
fn file_of(folder: &Path, id: &str, ending: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |path: &PathBuf| {
        path.extension().is_some_and(|found| found == ending)
            && path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| !name.starts_with('.') && name.contains(id))
    };
    files.into_iter().find(is_it)
}

/// A header's value; the line after it belongs to it when it begins with a space.
fn header(headers: &str, name: &str) -> String {
    let mut lines = headers.lines();
    let first = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
    let more = lines.take_while(|line| line.starts_with([' ', '\t']));
    std::iter::once(first).chain(more).map(str::trim).collect::<Vec<_>>().join(" ")
}
