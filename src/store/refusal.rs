//! What Redis means when it refuses a command, from the first word of its reply.
//!
//! Before 7.0 the refusal of a command inside a script stands behind the words of the script's own failure.

/// A refusal that somebody acts upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `maxmemory` is reached and nothing may be deleted for room.
    Full,
    /// It cannot write to its disk, and takes no changes for as long.
    CannotPersist,
    /// It is a replica.
    ReadOnly,
    /// It waits for more replicas before it takes changes (`min-replicas-to-write`).
    TooFewReplicas,
    /// It is a replica that has lost its master and serves nothing until it is back.
    MasterDown,
    /// It reads its files.
    Loading,
    /// It does not know the script: it was restarted or emptied.
    NoScript,
    /// The user may not do this.
    NotPermitted,
}

const CODES: [(&str, Refusal); 8] = [
    ("OOM", Refusal::Full),
    ("MISCONF", Refusal::CannotPersist),
    ("READONLY", Refusal::ReadOnly),
    ("NOREPLICAS", Refusal::TooFewReplicas),
    ("MASTERDOWN", Refusal::MasterDown),
    ("LOADING", Refusal::Loading),
    ("NOSCRIPT", Refusal::NoScript),
    ("NOPERM", Refusal::NotPermitted),
];

impl Refusal {
    /// Reads the words of Redis: `OOM command not allowed …`, `ERR Error running script …: -OOM command not allowed …`.
    pub(crate) fn of(words: &str) -> Option<Self> {
        let first = words.split(' ').next().unwrap_or_default();
        let inner = || words.rsplit_once(": -").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        let code = if first == "ERR" { inner()? } else { first };
        CODES.iter().find(|(known, _)| *known == code).map(|(_, refusal)| *refusal)
    }

    /// The server is not the one to send this to, or not yet: a new connection may lead to another.
    pub(super) fn leads_elsewhere(self) -> bool {
        matches!(self, Self::ReadOnly | Self::MasterDown | Self::Loading)
    }

    /// Something about the server has changed that the guardian tells in words.
    pub(super) fn concerns_the_guardian(self) -> bool {
        matches!(self, Self::Full | Self::CannotPersist | Self::ReadOnly | Self::TooFewReplicas | Self::MasterDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_says_it_also_behind_a_scripts_failure() {
        let cases = [
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 5b, on @user_script:1.",
                Some(Refusal::Full),
            ),
            (
                "ERR Error running script (call to f_5b): @user_script:3: @user_script: 3: -OOM command not allowed",
                Some(Refusal::Full),
            ),
            (
                "ERR Error running script (call to f_5b): @user_script:3: @user_script: 3: -READONLY You can't write",
                Some(Refusal::ReadOnly),
            ),
            ("MISCONF Redis is configured to save RDB snapshots, but", Some(Refusal::CannotPersist)),
            ("NOSCRIPT No matching script. Please use EVAL.", Some(Refusal::NoScript)),
            ("ERR unknown command 'OOM'", None),
            ("WRONGTYPE Operation against a key", None),
            ("", None),
        ];
        for (words, refusal) in cases {
            assert_eq!(Refusal::of(words), refusal, "{words}");
        }
    }
}
