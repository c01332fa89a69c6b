//! Arguments of somebody who wants another request than the one that was meant: it comes out as it was meant, or is
//! refused. Long form: `JOBSD_HOSTILE=100000 cargo test --bin jobsd hostile -- --nocapture`.

use std::sync::{Arc, Mutex};

use super::*;
use crate::testing::dice::{self, Dice};

/// What hostile texts are made of.
const PIECES: [&str; 60] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    "\u{b}",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{560d}\u{560a}",
    "\u{feff}",
    "é",
    "🏝",
    "\u{ff0f}",
    "\u{ff0e}",
    "%0d%0a",
    "%00",
    "%2f",
    "%2e%2e",
    "%",
    "%zz",
    "..",
    ".",
    "/",
    "../",
    "\\",
    "..\\",
    "//",
    "?",
    "&",
    "=",
    "#",
    ";",
    "@",
    ":",
    "+",
    "a",
    "admin",
    "evil.test",
    "http://evil.test/",
    "@evil.test",
    "Host: evil.test",
    "X-Evil: 1",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{{ vars }}",
    "${HOME}",
    "$(id)",
    "`id`",
    "'",
    "\"",
    "\",\"admin\":true,\"x\":\"",
    "<",
    "[",
    "]",
];

/// Where an argument can stand in a request.
const SLOTS: [&str; 6] = ["piece", "path", "query", "header", "text", "deep"];

/// A request in which every slot is an argument.
fn open_step(base: &str) -> HttpStep {
    HttpStep {
        headers: vec![("X-A".into(), template("v{{ header }}w"))],
        body: Some(fixture::value(json!({"text": "{{ text }}", "list": [{"deep": "<{{ deep }}>"}]}))),
        ..step(
            "POST",
            &format!("{base}/users/{{{{ piece }}}}/mail/{{{{ path | urlencode }}}}/x?to={{{{ query }}}}&y=1"),
        )
    }
}

fn handlers() -> (Handlers, tempfile::TempDir) {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    (Handlers::new(&fixture::config(dir.path())).expect("the handlers are built"), dir)
}

/// What percent-encoding hides.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (first, after) {
            let hex = [*high, *low];
            let hex = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(hex.expect("two digits"));
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// That the request is the one that was meant, as its receiver sees it.
fn check(seen: &Seen, args: &Value, host: &str) {
    let arg = |name: &str| args[name].as_str().expect("a text");
    assert_eq!((seen.method.as_str(), seen.header("host")), ("POST", host), "{args}");
    let mut names: Vec<&str> = seen.headers.keys().map(reqwest::header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host", "user-agent", "x-a"], "{args}");
    let value = seen.headers["x-a"].as_bytes();
    assert_eq!(String::from_utf8_lossy(value), format!("v{}w", arg("header")), "{args}");
    let (path, query) = seen.path.split_once('?').expect("a query");
    assert_eq!(seen.path.matches('?').count(), 1, "{args}");
    let (piece, rest) = path.strip_prefix("/users/").and_then(|rest| rest.split_once('/')).expect("its place");
    let rest = rest.strip_prefix("mail/").and_then(|rest| rest.strip_suffix("/x")).expect("its place");
    assert_eq!((decoded(piece).as_str(), decoded(rest).as_str()), (arg("piece"), arg("path")));
    let to = query.strip_prefix("to=").and_then(|rest| rest.strip_suffix("&y=1")).expect("its place");
    assert!(!to.contains(['&', '=', '#', '+']) && decoded(to) == arg("query"), "{args}: {query}");
    let body = json!({"text": arg("text"), "list": [{"deep": format!("<{}>", arg("deep"))}]});
    assert_eq!(seen.json(), body);
}

#[tokio::test]
async fn hostile_arguments_stay_in_their_place() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let host = server.url().strip_prefix("http://").expect("a URL").to_owned();
    let ((handlers, _dir), mut dice) = (handlers(), Dice::new());
    let task = fixture::task(vec![Step::Http(open_step(&server.url()))]);
    let rounds = dice::hostile(1_200);
    let (count, mut refused) = (rounds.len(), 0);
    for round in rounds {
        let mut args = json!({"piece": "a", "path": "b/c", "query": "d", "header": "e", "text": "f", "deep": "g"});
        args[SLOTS[round % SLOTS.len()]] = json!(dice.text(&PIECES));
        match attempt::perform(&handlers, &task, args.clone()).await {
            Outcome::Success(_) => match server.take().as_slice() {
                [seen] => check(seen, &args, &host),
                seen => panic!("{args} made {} requests: {seen:?}", seen.len()),
            },
            outcome => {
                let failed = failure(outcome);
                assert_eq!((failed.kind.as_str(), failed.retry), ("InvalidRequest", Retryable::Never), "{args}");
                assert!(!failed.message.contains(char::is_control), "{args}: {:?}", failed.message);
                assert!(server.take().is_empty(), "{args}");
                refused += 1;
            }
        }
    }
    assert!(refused > count / 50 && refused < count / 2, "{refused} of {count} refused");
    println!("{count} hostile requests: {refused} refused, {} as they were meant", count - refused);
}

/// An address of this machine or its network, or one that the cloud keeps for itself, in any of the ways to write it.
fn private(dice: &mut Dice) -> String {
    let any = |dice: &mut Dice| u8::try_from(dice.below(256)).expect("a byte");
    let [a, b, c, d] = match dice.below(9) {
        0..=2 => [127, 0, 0, 1],
        3 => [127, any(dice), any(dice), any(dice)],
        4 => [10, any(dice), any(dice), any(dice)],
        5 => [192, 168, any(dice), any(dice)],
        6 => [169, 254, 169, 254],
        7 => [172, 16 + any(dice) % 16, any(dice), any(dice)],
        _ => [0, 0, 0, 0],
    };
    let whole = u32::from_be_bytes([a, b, c, d]);
    let number = |dice: &mut Dice, n: u32| match dice.below(4) {
        0 => format!("0x{n:x}"),
        1 => format!("0X0{n:X}"),
        2 => format!("0{n:o}"),
        _ => n.to_string(),
    };
    let text = match dice.below(9) {
        0 => number(dice, whole),
        1 => format!("{}.{}", number(dice, a.into()), number(dice, whole & 0xff_ffff)),
        2 => format!("{}.{}.{}", number(dice, a.into()), number(dice, b.into()), number(dice, whole & 0xffff)),
        3 => [a, b, c, d].map(|part| number(dice, part.into())).join("."),
        4 => format!("[::ffff:{a}.{b}.{c}.{d}]"),
        5 => format!("[0:0:0:0:0:FFFF:{:x}:{:x}]", whole >> 16, whole & 0xffff),
        6 => dice.one_of(&["[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[fc00::7]", "[::127.0.0.1]"]).to_owned(),
        7 => dice.one_of(&["localhost", "LOCALHOST", "LocalHost"]).to_owned(),
        _ => format!("{a}.{b}.{c}.{d}"),
    };
    if text.starts_with('[') {
        return text;
    }
    match dice.below(6) {
        0 => text.replace('.', "\u{3002}"),
        1 => text.replace('.', "%2e"),
        2 => text.replace('1', "\u{ff11}"),
        3 => text.replace('7', "%37").replace('l', "\u{ff4c}"),
        4 if !text.to_ascii_lowercase().contains("local") => text + ".",
        _ => text,
    }
}

/// A whole URL to such an address, with what confuses readers of URLs before and behind it.
fn url_to(host: &str, port: &str, dice: &mut Dice) -> String {
    let scheme = dice.one_of(&["http:", "HTTP:", " http:", "https:"]);
    let slashes = dice.one_of(&["//", "//", "\\\\", "/\\", "////"]);
    let user = dice.one_of(&["", "", "8.8.8.8@", "user:pass@", "evil.test:80@", "a@b@", "%40@", "8.8.8.8:443;@"]);
    let end = dice.one_of(&["/", "", "/latest/meta-data/", "?x=8.8.8.8", "#@8.8.8.8", "\\@8.8.8.8/", "/%2e%2e/"]);
    let port = if dice.below(4) == 0 { String::new() } else { format!(":{port}") };
    format!("{scheme}{slashes}{user}{host}{port}{end}")
}

/// By the URL, by a part of it, and by the redirect of a server that may be asked.
#[tokio::test]
async fn hostile_urls_lead_to_nobody_inside() {
    let inner = Server::start(|_| Answer::new(200, "secret")).await;
    let port = inner.url().rsplit(':').next().expect("a port").to_owned();
    let next = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&next);
    let server =
        Server::start(move |_| Answer::new(307, "").with("location", &told.lock().expect("no panic with the lock")))
            .await;
    let ((handlers, _dir), mut dice) = (handlers(), Dice::new());
    let redirected = HttpStep { redirects: 3, ..step("POST", &server.url()) };
    let task = |step| fixture::task(vec![Step::Http(step)]);
    let tasks = [
        task(step("GET", "{{ url }}")),
        task(step("POST", "http://{{ host | safe }}/x")),
        task(step("GET", &format!("http://{{{{ host }}}}:{port}/x"))),
        task(redirected),
    ];
    let rounds = dice::hostile(2_000);
    let (count, mut kinds) = (rounds.len(), std::collections::BTreeMap::<String, usize>::new());
    for round in rounds {
        let host = private(&mut dice);
        let url = url_to(&host, &port, &mut dice);
        if url.is_ascii() {
            url.trim().clone_into(&mut next.lock().expect("no panic"));
        }
        let args = json!({"url": url, "host": host});
        let failed = failure(attempt::perform(&handlers, &tasks[round % tasks.len()], args.clone()).await);
        assert_eq!(failed.retry, Retryable::Never, "{args}: {}", failed.message);
        let kinds_that_refuse = ["HttpAddressRefused", "InvalidRequest", "Http307"];
        assert!(kinds_that_refuse.contains(&failed.kind.as_str()), "{args}: {}", failed.message);
        assert!(inner.take().is_empty(), "{args} reached the inside");
        *kinds.entry(failed.kind).or_default() += 1;
    }
    assert!(kinds["HttpAddressRefused"] > count / 2, "{kinds:?}");
    println!("{count} hostile URLs, 0 reached the inside: {kinds:?}");
}
