//! Which names announce a secret, so that what stands behind them is never shown.

/// Parts of a name, in lower case, that say its value is a secret.
const MARKS: [&str; 7] = ["password", "passwd", "secret", "token", "api_key", "authorization", "cookie"];

/// Whether a value of this name is to be shown as `***`.
pub(super) fn is_sensitive(name: &str) -> bool {
    // `X-Api-Key` and `apiKey` mean the same as `api_key`.
    let name = name.to_ascii_lowercase().replace('-', "_");
    MARKS.iter().any(|mark| name.contains(mark)) || name.contains("apikey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in ["password", "reset_token", "Authorization", "X-Api-Key", "apiKey", "SET-COOKIE", "client_secret"] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["user_name", "subject", "key", "pass_count"] {
            assert!(!is_sensitive(name), "{name}");
        }
    }
}
