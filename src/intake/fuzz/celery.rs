//! Noise in the messages of Celery: in what stands in the list, in its headers and properties, in the body before it is
//! deflated and encoded, and in the stream that was deflated.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Random, fuzz, is_within, limits};
use crate::broker::{Taken, Verdict};
use crate::config::{Config, parse};
use crate::intake::celery::admission::verdict;
use crate::intake::desk::Desk;
use crate::intake::inflate::deflate;
use crate::job::{NodeId, QueueName, Timestamp};

/// Longer ones would be noise of the same kind, only slower.
const LONGEST: usize = 16 << 10;

/// Takes whatever a producer may send.
fn config() -> Config {
    let text = "[queues.emails]\nwires = [\"celery\"]\n[tasks.t]\nnames = [\"*\"]\nqueue = \"emails\"\nprobe = \"noop\"\n\
        params = { a = \"any?\", b = \"any?\", c = \"any?\", d = \"any?\", e = \"any?\" }\n";
    parse(text, Path::new("jobsd.toml"), &|_| None, &[]).expect("it is valid").config
}

/// Messages as real producers sent them, taken apart.
struct Seeds {
    elements: Vec<Vec<u8>>,
    headers: Vec<Vec<u8>>,
    properties: Vec<Vec<u8>>,
    /// Decoded, and a few that no producer would send.
    bodies: Vec<Vec<u8>>,
    streams: Vec<Vec<u8>>,
}

impl Seeds {
    fn read() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/celery");
        let files =
            std::fs::read_dir(folder).expect("the fixtures are there").map(|entry| entry.expect("a file").path());
        let mut elements: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).expect("a readable file")).collect();
        elements.retain(|element| element.len() < LONGEST);
        elements.sort();
        let parts: Vec<Value> = elements.iter().map(|element| serde_json::from_slice(element).expect("JSON")).collect();
        let all = |name: &str| parts.iter().map(|part| part[name].to_string().into_bytes()).collect();
        let deflated = |part: &&Value| part["headers"]["compression"].is_string();
        let body = |part: &Value| STANDARD.decode(part["body"].as_str().expect("a body")).expect("base64");
        let mut bodies: Vec<Vec<u8>> = parts.iter().filter(|part| !deflated(part)).map(body).collect();
        bodies.push(br#"[[1e400, -0.0, NaN, Infinity, 1180591620717411303424], {"a": "\ud800\u0000"}, {}]"#.to_vec());
        bodies.push(br#"[[{"__type__": "datetime", "__value__": "2024-05-06T07:08:09+00:00"}], {}, null]"#.to_vec());
        bodies.push([&b"[".repeat(60)[..], &b"]".repeat(60)].concat());
        let mut streams: Vec<Vec<u8>> = bodies.iter().map(|body| deflate(body)).collect();
        // Bombs: one of zeros, one of JSON.
        streams.push(deflate(&vec![0; 1 << 20]));
        streams.push(deflate(&b"[],".repeat(1 << 18)));
        Self { headers: all("headers"), properties: all("properties"), elements, bodies, streams }
    }

    /// A message with noise in one of its parts.
    fn element(&self, random: &mut Random) -> Vec<u8> {
        let some = |random: &mut Random, seeds: &[Vec<u8>]| seeds[random.below(seeds.len())].clone();
        let mut headers = some(random, &self.headers);
        let mut properties = some(random, &self.properties);
        let mut body = some(random, &self.bodies);
        let mut deflated = random.below(2) == 0;
        match random.below(8) {
            0 => return random.noise(&self.elements),
            1 => headers = random.noise_in(headers, &self.headers),
            2 => properties = random.noise_in(properties, &self.properties),
            3 | 4 => {
                (body, deflated) = (random.noise(&self.streams), false);
                headers.splice(1..1, *b"\"compression\": \"application/x-gzip\", ");
            }
            _ => body = random.noise_in(body, &self.bodies),
        }
        if deflated {
            body = deflate(&body);
            headers.splice(1..1, *b"\"compression\": \"application/x-gzip\", ");
        }
        let mut encoded = STANDARD.encode(body).into_bytes();
        if random.below(16) == 0 {
            encoded = random.noise_in(encoded, &[b"+/=".to_vec()]);
        }
        [
            br#"{"body": ""#,
            &encoded[..],
            br#"", "content-encoding": "utf-8", "content-type": "application/json", "headers": "#,
            &headers,
            br#", "properties": "#,
            &properties,
            b"}",
        ]
        .concat()
    }
}

#[test]
fn noise_in_the_messages_of_celery_stays_within_the_limits() {
    let (limits, seeds, config) = (limits(), Seeds::read(), config());
    let (queue, node) = (QueueName::parse("emails").expect("a name"), NodeId::parse("vps-1").expect("a name"));
    let now = Timestamp::from_millis(1_700_000_000_000);
    let desk = Desk { config: &config, queue: &queue, node: &node, limits: &limits, now };
    fuzz("Celery message", 20_000, |random| {
        let element = seeds.element(random);
        let taken = Taken { field: "vps-1/1".to_owned(), list: "emails".to_owned(), element };
        match verdict(&desk, &taken) {
            Verdict::Job(job) => {
                assert!(job.args.values().all(|value| is_within(value, &limits)), "{:?}", taken.element);
                true
            }
            // It has its reason, and what can be shown of it.
            Verdict::Refused(_, history) => {
                assert!(history.end.is_some_and(|end| end.cause.is_some()), "{:?}", taken.element);
                false
            }
            Verdict::Dropped => panic!("a message of Celery is never dropped without a word: {:?}", taken.element),
        }
    });
}
