//! Signatures of requests to AWS, version 4, for requests with a body and without a query.
//!
//! Forty lines of a fixed algorithm with published test vectors; AWS's own crate for it would bring a dozen others.
//! Specification: "Signature Version 4 for API requests" in the IAM user guide.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use ring::digest::{SHA256, digest};
use ring::hmac;

/// What is signed besides the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// As it is sent, percent-encoded.
    pub(super) path: &'a str,
    /// Names in lower case.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Who signs, and for which service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) access_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl Signer<'_> {
    /// The value of `Authorization`. Among the headers is `x-amz-date`, which is `date_header(at)`.
    pub(super) fn authorization(&self, request: &Request<'_>, at: DateTime<Utc>) -> String {
        let mut headers: Vec<(&str, String)> =
            request.headers.iter().map(|(name, value)| (*name, single_spaced(value))).collect();
        headers.sort();
        let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut canonical = format!("{}\n{}\n\n", request.method, encoded(request.path));
        for (name, value) in &headers {
            writeln!(canonical, "{name}:{value}").expect("a String takes everything");
        }
        write!(canonical, "\n{signed}\n{}", sha256(request.body)).expect("a String takes everything");

        let scope = format!("{}/{}/{}/aws4_request", at.format("%Y%m%d"), self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", date_header(at), sha256(canonical.as_bytes()));
        let signature = hex(&hmac_sha256(&self.key(at), &to_sign));
        let credential = format!("{}/{scope}", self.access_key);
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}")
    }

    fn key(&self, at: DateTime<Utc>) -> Vec<u8> {
        let day = at.format("%Y%m%d").to_string();
        let secret = format!("AWS4{}", self.secret_key).into_bytes();
        [day.as_str(), self.region, self.service, "aws4_request"]
            .iter()
            .fold(secret, |key, part| hmac_sha256(&key, part))
    }
}

/// The value of `x-amz-date`.
pub(super) fn date_header(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// Every service but S3 wants the path encoded once more than it is sent.
fn encoded(path: &str) -> String {
    path.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(byte.into()),
            other => write!(out, "%{other:02X}").expect("a String takes everything"),
        }
        out
    })
}

fn single_spaced(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: Signer<'_> = Signer {
        access_key: "AKIDEXAMPLE",
        secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
        service: "service",
    };
    const HOST: (&str, &str) = ("host", "example.amazonaws.com");
    /// Method, path, headers, body; the names of what is signed, and the signature.
    type Vector<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");

    /// AWS's own test suite for this algorithm, as far as it is about requests of our form.
    #[test]
    fn the_published_vectors() {
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let long_token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPf\
            IeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75\
            YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKT\
            r4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let sum = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        let form = ("content-type", "application/x-www-form-urlencoded");
        let unreserved = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let vectors: [Vector<'_>; 6] = [
            (
                "GET",
                unreserved,
                &[HOST, DATE],
                "",
                "host;x-amz-date",
                "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            ),
            (
                "POST",
                "/",
                &[HOST, DATE],
                "",
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "GET",
                "/",
                &[HOST, ("my-header1", " value1"), ("my-header2", " \"a   b   c\""), DATE],
                "",
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "GET",
                "/",
                &[HOST, ("x-amz-security-token", token), DATE],
                "",
                "host;x-amz-date;x-amz-security-token",
                "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
            ),
            (
                "POST",
                "/",
                &[("x-amz-security-token", long_token), DATE, HOST],
                "",
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "POST",
                "/",
                &[form, HOST, ("content-length", "13"), ("x-amz-content-sha256", sum), DATE],
                "Param1=value1",
                "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
                "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            ),
        ];
        let at = "2015-08-30T12:36:00Z".parse().expect("a time");
        for (method, path, headers, body, signed, signature) in vectors {
            let request = Request { method, path, headers, body: body.as_bytes() };
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, \
                 Signature={signature}"
            );
            assert_eq!(SIGNER.authorization(&request, at), expected, "{method} {signed}");
        }
    }
}
