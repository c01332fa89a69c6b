//! Which addresses a request may go to, and the resolver that gives the HTTP client no other.
//!
//! A URL may come from a stranger, and the machine can reach what he cannot: the admin port, a database, the metadata of
//! the cloud. So a request goes to public addresses, to what `[http] allow_private` names, and to a private address that
//! stands in the step's own URL. A name is resolved once, by the client, through [`Guard`]: what was checked is what is
//! connected to, and a name that resolves otherwise a moment later changes nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::{AllowPrivate, Template};

/// A resolver that gives the addresses only that may be connected to.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    allowed: Arc<[AllowPrivate]>,
}

/// A host that requests must not go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotPublic {
    pub(super) host: String,
}

impl Guard {
    pub(super) fn new(allowed: &[AllowPrivate]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Checks a host that is an address. A name is checked when it is resolved, by the client.
    pub(super) fn check(&self, url: &Url) -> Result<(), NotPublic> {
        match literal(url) {
            Some(address) if !self.allows(address) => Err(NotPublic { host: address.to_string() }),
            _ => Ok(()),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.iter().any(|allowed| allowed.has_address(address))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let named = guard.allowed.iter().any(|allowed| allowed.has_name(&host));
            let may: Vec<SocketAddr> =
                found.into_iter().filter(|address| named || guard.allows(address.ip())).collect();
            if may.is_empty() {
                return Err(NotPublic { host }.into());
            }
            Ok(Box::new(may.into_iter()) as Addrs)
        })
    }
}

impl NotPublic {
    /// The resolver's refusal, out of what the client made of it.
    pub(super) fn behind(error: &reqwest::Error) -> Option<Self> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Self>() {
                return Some(refused.clone());
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a public address", self.host)
    }
}

impl std::error::Error for NotPublic {}

/// Whether the operator has written this very host into the step: an address, or `localhost`. No argument had a part in it.
pub(super) fn is_the_operators(template: &Template, url: &Url) -> bool {
    template.has_own_host() && (literal(url).is_some() || url.host_str() == Some("localhost"))
}

/// The host, where it is an address in any of the forms that URLs allow: the parser has brought them to one.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Everything but what IANA's registry of special addresses lists as not globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

/// 2000::/3 is what has been given out, less its special parts; and an address that leads to an IPv4 one is as public as
/// that.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Mapped, and translated by NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        // Protocol assignments (Teredo among them), documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_and_other_addresses() {
        let public = [
            "1.1.1.1",
            "172.32.0.1",
            "100.63.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "2002:0808:0808::1",
        ];
        let other = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "3fff::1",
        ];
        for text in public {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
        for text in other {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn only_a_host_that_stands_in_the_template_is_the_operators() {
        let own = |source: &str, url: &str| {
            is_the_operators(&Template::parse(source).expect("a template"), &Url::parse(url).expect("a URL"))
        };
        assert!(own("http://127.0.0.1:8000/{{ x }}", "http://127.0.0.1:8000/a"));
        assert!(own("http://localhost/x?y={{ x }}", "http://localhost/x?y=1"));
        assert!(own("http://[::1]:80", "http://[::1]/"));
        for source in [
            "http://{{ x }}/",
            "{{ x }}",
            "http://127.0.0.{{ x }}/",
            "http://127.0.0.1{{ x }}",
            "http://{{ u }}@127.0.0.1/",
        ] {
            assert!(!own(source, "http://127.0.0.1/"), "{source}");
        }
        assert!(!own("http://intern.example/", "http://intern.example/"), "whose name it is may change");
    }
}
