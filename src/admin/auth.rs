//! Who may ask: the bearer token, and what keeps foreign web pages out.
//!
//! Without a token the port listens on a loopback address (the configuration insists on it), and everyone on this
//! machine may ask; so may a web page in a browser on it, by rebinding its own name to 127.0.0.1 or by posting across
//! origins. The Host header betrays the first, the Origin header the second.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use super::problem::{Problem, ProblemKind};
use crate::config::Secret;

const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"jobsd\"");

/// Lets a request pass, or says why not.
pub(super) fn check(request: &Parts, token: Option<&Secret>, local: SocketAddr) -> Result<(), Problem> {
    match token {
        Some(token) => check_token(&request.headers, token)?,
        None => check_host(request, local)?,
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        check_origin(request)?;
    }
    Ok(())
}

fn check_token(headers: &HeaderMap, token: &Secret) -> Result<(), Problem> {
    let refuse = |detail: &str| Problem::new(ProblemKind::Unauthorized, detail).with(header::WWW_AUTHENTICATE, BEARER);
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(refuse("send the token: Authorization: Bearer TOKEN (admin.token in jobsd.toml)"));
    };
    let bytes = given.as_bytes();
    let (scheme, rest) = bytes.split_at_checked(7).unwrap_or((bytes, &[]));
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(refuse("the Authorization header is not of the form: Bearer TOKEN"));
    }
    if equal_in_constant_time(rest.trim_ascii(), token.expose().as_bytes()) {
        Ok(())
    } else {
        Err(refuse("the token is not the one of admin.token").logged("a request had a wrong token"))
    }
}

/// Takes as long for a near miss as for a wild guess. The length is no secret.
fn equal_in_constant_time(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given.iter().zip(wanted).fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
    given.len() == wanted.len() && differing == 0
}

/// Every name that the request gives this server must be one of this machine's own.
fn check_host(request: &Parts, local: SocketAddr) -> Result<(), Problem> {
    let hosts: Vec<&HeaderValue> = request.headers.get_all(header::HOST).iter().collect();
    if hosts.len() > 1 || (hosts.is_empty() && request.version >= Version::HTTP_11) {
        return Err(Problem::new(ProblemKind::BadRequest, "a request has one Host header"));
    }
    let named = hosts.iter().map(|host| host.to_str().unwrap_or_default());
    for authority in named.chain(request.uri.authority().map(|authority| authority.as_str())) {
        if !is_this_machine(host_of(authority), local) {
            let detail = "without admin.token the admin port answers only to localhost, loopback addresses and the \
                address it listens on; set admin.token to reach it by another name";
            return Err(Problem::new(ProblemKind::Forbidden, detail).logged(format!("refused the Host {authority:?}")));
        }
    }
    Ok(())
}

fn is_this_machine(host: &str, local: SocketAddr) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == local.ip(),
        // Browsers resolve names below localhost to the loopback address by themselves (RFC 6761).
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// `localhost:9180` without its port, `[::1]:9180` with its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

/// A browser says which page a write comes from; it must come from a page of ours. Programs say nothing.
fn check_origin(request: &Parts) -> Result<(), Problem> {
    let Some(origin) = request.headers.get(header::ORIGIN) else { return Ok(()) };
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin_host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    match (origin_host, host) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Problem::new(ProblemKind::Forbidden, "a page of another origin may not change anything here")
            .logged(format!("refused a write from the origin {origin:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        let local: SocketAddr = "127.0.0.1:9180".parse().expect("an address");
        for good in [
            "localhost",
            "localhost:9180",
            "LOCALHOST:1",
            "x.localhost",
            "127.0.0.1",
            "127.0.0.9:80",
            "[::1]:9180",
            "localhost.:9180",
        ] {
            assert!(is_this_machine(host_of(good), local), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil.example@localhost",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "notlocalhost",
            "127.0.0.1:9180:evil",
            "::1:x",
        ] {
            assert!(!is_this_machine(host_of(bad), local), "{bad}");
        }
        assert!(is_this_machine("10.0.0.1", "10.0.0.1:80".parse().expect("an address")));
    }

    #[test]
    fn the_comparison_is_an_equality() {
        for (a, b) in [("", "x"), ("x", ""), ("secret", "secreT"), ("secret", "secret1"), ("secret1", "secret")] {
            assert!(!equal_in_constant_time(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
        assert!(equal_in_constant_time(b"secret", b"secret"));
    }
}
