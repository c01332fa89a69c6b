//! Noise in pickles, and in the jobs of RQ that hold them.

use std::collections::HashMap;

use super::{fuzz, is_within, limits};
use crate::intake::inflate::deflate;
use crate::intake::pickle::{decode, encode};
use crate::intake::python::{run, unhex};
use crate::intake::rq::job::RqJob;

#[test]
fn noise_in_pickles_stays_within_the_limits() {
    let (limits, seeds) = (limits(), pickles());
    fuzz("pickle", 200_000, |random| {
        let pickle = random.noise(&seeds);
        let Ok(value) = decode(&pickle, &limits) else { return false };
        assert!(is_within(&value, &limits), "{pickle:?}");
        encode(&value);
        true
    });
}

/// The mutations are made of the payload, which is then deflated; and of the zlib stream itself.
#[test]
fn noise_in_the_jobs_of_rq_stays_within_the_limits() {
    let limits = limits();
    let json: [&[u8]; 2] =
        [b"[\"app.f\", null, [1, \"\\u00fc\", [2.5, null]], {\"k\": [true]}]", b"[\"f\", null, [], {}]"];
    let mut seeds: Vec<Vec<u8>> = pickles().into_iter().chain(json.map(<[u8]>::to_vec)).collect();
    seeds.extend(seeds.clone().iter().map(|payload| deflate(payload)));
    let mut nth = 0_u64;
    fuzz("RQ job", 100_000, |random| {
        nth += 1;
        let payload = random.noise(&seeds);
        let data = if nth.is_multiple_of(2) { deflate(&payload) } else { payload };
        let hash = HashMap::from([("data".to_owned(), data), ("timeout".to_owned(), b"180".to_vec())]);
        RqJob::decode("id", &hash, &limits).is_ok()
    });
}

/// Small pickles that use every opcode the decoder knows.
pub(in crate::intake) fn pickles() -> Vec<Vec<u8>> {
    let script = "
import pickle, datetime, uuid, decimal, collections, zoneinfo
shared = ['s']
values = [
    ('m.f', None, (1, 'two', 3.0, None, True), {'a': [shared, shared], 'b': {'c': b'd', 'e': 2**70}}),
    [datetime.datetime(2024, 5, 6, tzinfo=zoneinfo.ZoneInfo('America/Nassau')), datetime.timedelta(1), uuid.UUID(int=7)],
    [{1, 2}, frozenset([3]), bytearray(b'x'), decimal.Decimal('1.1'), collections.OrderedDict(a=1), 1j, range(3), ValueError(1)],
    {1: (), 'k': (1, 2), None: [-1, 300, 70000, 'u\\u1234', '\\ud800']},
]
for value in values:
    for protocol in range(6):
        print(pickle.dumps(value, protocol).hex())
";
    run(script, "").lines().map(unhex).collect()
}
