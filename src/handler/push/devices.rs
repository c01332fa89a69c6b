//! The devices of one user, and which of them the step has done with already: a later attempt sends to the others only.
//!
//! Tokens are as good as addresses, so what is remembered in the job's record are their hashes.

use std::collections::{BTreeSet, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::handler::Run;

/// Devices of one user that get a notification; whoever has more has a broken app.
pub(super) const MOST: usize = 500;
/// Bytes of a token's hash that are kept: enough to tell the devices of one user apart.
const HASH_LEN: usize = 12;

/// What became of the devices so far, over all attempts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    delivered: BTreeSet<String>,
    /// The provider does not know the token any more, or never did.
    dead: BTreeSet<String>,
}

impl Reached {
    /// As an earlier attempt has left it.
    pub(super) fn remembered(run: &Run<'_>) -> Self {
        let partial = run.steps.remembered();
        let set = |key: &str| {
            let hashes = partial[key].as_array().map(Vec::as_slice).unwrap_or_default();
            hashes.iter().filter_map(|hash| hash.as_str().map(str::to_owned)).collect()
        };
        Self { delivered: set("delivered"), dead: set("dead") }
    }

    pub(super) fn remember(&self, run: &Run<'_>) {
        run.steps.remember(json!({"delivered": self.delivered, "dead": self.dead}));
    }

    pub(super) fn deliver(&mut self, token: &str) {
        self.delivered.insert(hash(token));
    }

    pub(super) fn bury(&mut self, token: &str) {
        self.dead.insert(hash(token));
    }

    fn has(&self, token: &str) -> bool {
        let hash = hash(token);
        self.delivered.contains(&hash) || self.dead.contains(&hash)
    }

    pub(super) fn delivered(&self) -> usize {
        self.delivered.len()
    }

    pub(super) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Those of `tokens` that are still to be sent to, each once.
    pub(super) fn rest(&self, tokens: Vec<Value>) -> Vec<String> {
        let mut seen = HashSet::new();
        let texts = tokens.into_iter().filter_map(|token| match token {
            Value::String(token) if !token.is_empty() => Some(token),
            _ => None,
        });
        let mut rest: Vec<String> = texts.filter(|token| seen.insert(token.clone()) && !self.has(token)).collect();
        if rest.len() > MOST {
            tracing::warn!(devices = rest.len(), "a user has more devices than get a notification, which are {MOST}");
            rest.truncate(MOST);
        }
        rest
    }
}

fn hash(token: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..HASH_LEN])
}
