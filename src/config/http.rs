//! `[http]`: where requests of the `http` handler may go, and the keys they are signed with.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Http {
    /// Addresses and hosts that requests may go to although they are not public.
    pub allow_private: Vec<AllowPrivate>,
    /// A PEM file of certificate authorities to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
}

/// One entry of `allow_private`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowPrivate {
    /// `10.0.0.0/8`, or one address.
    Network { address: IpAddr, bits: u8 },
    /// A host by its name, wherever it resolves to.
    Host(String),
}

impl AllowPrivate {
    /// `None`: it is neither a network, nor an address, nor a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        if let Ok(address) = address.parse::<IpAddr>() {
            let all = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok()).filter(|bits| *bits <= all)?;
            return Some(Self::Network { address, bits });
        }
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let fits = bits.is_none() && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(name);
        // A number would be read as an address by some and as a name by others.
        let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
        (fits && !numeric).then(|| Self::Host(text.trim_end_matches('.').to_ascii_lowercase()))
    }

    pub(crate) fn has_name(&self, host: &str) -> bool {
        matches!(self, Self::Host(own) if *own == host.trim_end_matches('.').to_ascii_lowercase())
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let Self::Network { address: own, bits } = self else { return false };
        match (own, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same_bits(own.to_bits().into(), other.to_bits().into(), 32 - bits),
            (IpAddr::V6(own), IpAddr::V6(other)) => same_bits(own.to_bits(), other.to_bits(), 128 - bits),
            _ => false,
        }
    }
}

/// Whether they are equal but for the last `rest` bits.
fn same_bits(one: u128, other: u128, rest: u8) -> bool {
    (one ^ other).checked_shr(rest.into()).unwrap_or(0) == 0
}

/// A secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64. Never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SigningKey(Vec<u8>);

/// With or without the padding: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl SigningKey {
    /// `None`: it is no such secret.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes themselves. Call it where a request is signed, nowhere else.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_addresses_and_names() {
        let has = |text: &str, address: &str| {
            AllowPrivate::parse(text).is_some_and(|own| own.has_address(address.parse().expect("an address")))
        };
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.1.1"), "a mapped address is the one it maps");
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fe80::1") && !has("0.0.0.0/0", "fe80::1"));
        assert!(has("0.0.0.0/0", "127.0.0.1") && has("::/0", "::1"));
        assert!(AllowPrivate::parse("Backend.").is_some_and(|own| own.has_name("backend") && own.has_name("BACKEND.")));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "http://x", "a b", "127.1", "fe80::/129", "host/8", "*"] {
            assert_eq!(AllowPrivate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn signing_keys() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        assert_eq!((key.expose().len(), format!("{key:?}").as_str()), (24, "***"));
        for text in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_???", "whsec_", ""] {
            assert!(SigningKey::parse(text).is_none(), "{text}");
        }
    }
}
