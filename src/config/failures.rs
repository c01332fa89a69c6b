//! The names of all failures that jobsd itself can report: what `retry.never` can match.
//!
//! The names are the handlers' own; a test reads them out of the sources, so that none is missing here.

use crate::job::FailurePattern;

/// Who reports it, and its names.
const FAILURES: [(&str, &[&str]); 8] = [
    (
        "email",
        &[
            "InvalidAddress",
            "InvalidMail",
            "SmtpRejected",
            "SmtpDeferred",
            "SmtpConnectError",
            "SmtpTimeout",
            "SmtpAuthenticationError",
            "MailRejected",
            "MailThrottled",
            "MailCredentialsError",
            "MailUnavailable",
            "MailTimeout",
            "AttachmentMissing",
            "AttachmentOutsideRoots",
            "AttachmentTooLarge",
            "OutboxError",
        ],
    ),
    ("sql", &["IntegrityError", "ProgrammingError", "DataError", "OperationalError"]),
    (
        "push",
        &[
            "InvalidNotification",
            "PushNotConfigured",
            "PushCredentialsError",
            "PushConnectError",
            "PushPlatformError",
            "PushRejected",
            "PushStatusError",
            "PushTimeout",
        ],
    ),
    (
        "video",
        &[
            "VideoHelperError",
            "VideoInputMissing",
            "VideoInputOutsideRoots",
            "VideoOutputError",
            "VideoHelperDied",
            "VideoUnreadable",
            "VideoTruncated",
            "VideoUnsupported",
            "VideoTooLarge",
            "VideoRequestRefused",
            "VideoIoError",
            "VideoCancelled",
            "VideoHelperBug",
        ],
    ),
    ("exec", &["ExecError", "ExecStartError", "ExecKilled", "ExecArgumentRefused"]),
    ("http", &["InvalidRequest", "HttpAddressRefused", "HttpConnectError", "HttpTimeout"]),
    ("probe", &["ProbeFailure"]),
    (
        "any",
        &["TemplateError", "BadArguments", "TimeLimitExceeded", "WorkerLostError", "NotRegistered", "InternalError"],
    ),
];

/// Every name that stands for itself; those of HTTP statuses (`Http404`) come besides.
pub(crate) fn failure_names() -> impl Iterator<Item = &'static str> + Clone {
    FAILURES.iter().flat_map(|(_, names)| names.iter().copied())
}

/// Whether a failure of jobsd's can have a name that the pattern matches.
pub(crate) fn is_known(pattern: &FailurePattern) -> bool {
    failure_names().any(|name| pattern.matches(name))
        || (300..600).any(|status| pattern.matches(&format!("Http{status}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                into.push(path);
            }
        }
    }

    /// The names in `Failure::new("…` and `Failure::never("…`, the words that a `kind()` or `name()` gives, and the
    /// probe's own.
    fn names_in(text: &str) -> BTreeSet<String> {
        const STARTS: [&str; 4] = ["::new(\"", "::never(\"", "=>\"", "(\"kind\",\""];
        let code: String = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().split_whitespace().collect();
        let words = STARTS.iter().flat_map(|start| code.split(start).skip(1));
        let names = words.filter_map(|rest| rest.split('"').next());
        names.filter(|name| is_class(name)).map(str::to_owned).collect()
    }

    /// In the form of an exception class: two words at least.
    fn is_class(name: &str) -> bool {
        let capitals = name.chars().filter(char::is_ascii_uppercase).count();
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphabetic())
            && (2..name.len()).contains(&capitals)
    }

    #[test]
    fn every_failure_of_the_handlers_is_listed() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = vec![src.join("pool/attempt.rs")];
        sources(&src.join("handler"), &mut files);
        let read = |path: &PathBuf| names_in(&std::fs::read_to_string(path).expect("it can be read"));
        let mut found: BTreeSet<String> = files.iter().flat_map(read).collect();
        // Those that follow from no failure of a handler's: see `decide`.
        found.extend(["TimeLimitExceeded", "WorkerLostError"].map(str::to_owned));
        let listed: BTreeSet<String> = failure_names().map(str::to_owned).collect();
        assert_eq!(found, listed, "the left are in the sources, the right in the list");
    }

    #[test]
    fn the_readme_lists_every_failure() {
        let readme = include_str!("../../README.md");
        let missing: Vec<_> = failure_names().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "the README does not list {missing:?}");
    }

    #[test]
    fn a_pattern_is_known_by_what_it_matches() {
        let known = ["InvalidAddress", "Smtp*", "Http4*", "Http503", "*"];
        let unknown = ["InvalidAdress", "smtp*", "Http6*", "Http99"];
        for (patterns, expected) in [(known.as_slice(), true), (unknown.as_slice(), false)] {
            for text in patterns {
                assert_eq!(is_known(&FailurePattern::parse(text).expect("a pattern")), expected, "{text}");
            }
        }
    }
}
