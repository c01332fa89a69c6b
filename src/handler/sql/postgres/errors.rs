//! What an error of PostgreSQL's, or of the way to it, means for the job.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::super::{Class, SqlError};

/// Sorts an error by its SQLSTATE (PostgreSQL's appendix A).
pub(super) fn sorted(statement: usize, error: &tokio_postgres::Error, timeout: Duration) -> SqlError {
    let Some(db) = error.as_db_error() else {
        // A value that cannot be sent is ours to report as the statement's; everything else is the connection.
        return if error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()) {
            SqlError::Lost(chain(error))
        } else {
            SqlError::Refused {
                statement,
                class: Class::Data,
                message: chain(error),
                detail: None,
                whatever_the_values: false,
            }
        };
    };
    let code = db.code();
    let class = match code.code().get(..2).unwrap_or_default() {
        _ if *code == SqlState::QUERY_CANCELED => return SqlError::Timeout(timeout),
        // The connection, the server going down, and one that has become a standby: the connection is of no further use.
        "08" | "57" => return SqlError::Lost(db.message().to_owned()),
        _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => return SqlError::Lost(db.message().to_owned()),
        "23" => Class::Integrity,
        "22" => Class::Data,
        // Conflicts, locks, resources, and what the server could not do.
        "40" | "53" | "55" | "58" | "25" | "XX" => Class::Operational,
        _ => Class::Programming,
    };
    let details = [db.detail(), db.hint()];
    let detail = details.into_iter().flatten().collect::<Vec<_>>().join("\n");
    SqlError::Refused {
        statement,
        class,
        message: message(db),
        detail: (!detail.is_empty()).then_some(detail),
        whatever_the_values: false,
    }
}

/// The server's own words, and where the tables of the shipped file come from, if it is one of those that it lacks.
fn message(db: &DbError) -> String {
    const SHIPPED: [&str; 2] = ["user_events", "user_stats"];
    let lacks = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(db.code());
    let words = db.message();
    if lacks && SHIPPED.iter().any(|name| words.contains(name)) {
        format!("{words}; jobsd makes no tables in PostgreSQL: those of its analytics are in the README, \"Analytics\"")
    } else {
        words.to_owned()
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
