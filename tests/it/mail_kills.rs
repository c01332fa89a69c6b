//! `kill -9` between "the provider has the mail" and "the job is settled": the mail that is sent again has the same key and
//! the same Message-ID. So have a notification of OneSignal's its key, and a signed request its id. Long form: `JOBSD_MAIL_KILLS=200 cargo test --test it mail_kills -- --nocapture`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::bench::{Home, Jobs, MailProvider, Redis, post};

const PROVIDERS: [&str; 6] = ["sendgrid", "ses", "mailgun", "smtp", "onesignal", "webhook"];
/// Two of each provider.
const SHORT: usize = 12;

/// What came of the kills.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Sent again, of those that were killed while the provider held its answer.
    unanswered: usize,
    /// Sent again, of those that were killed when it had answered.
    answered: usize,
}

#[test]
fn a_mail_that_is_sent_again_can_be_recognised() {
    let kills = std::env::var("JOBSD_MAIL_KILLS").map_or(SHORT, |text| text.parse().expect("a number"));
    let each = kills.div_ceil(PROVIDERS.len());
    let tallies: Vec<(&str, Tally)> = std::thread::scope(|scope| {
        let running = PROVIDERS.map(|name| (name, scope.spawn(move || with_provider(name, each))));
        running.map(|(name, thread)| (name, thread.join().expect("its promises hold"))).into_iter().collect()
    });
    for (name, Tally { kills, unanswered, answered }) in &tallies {
        let (held, after) = (kills.div_ceil(2), kills / 2);
        println!(
            "{name:9} {kills:3} kills: sent again {unanswered} of {held} before its answer, {answered} of {after} after it"
        );
        assert_eq!(*unanswered, held, "{name}: what was not answered must be sent again");
    }
    let all = tallies.iter().map(|(_, tally)| tally.kills).sum::<usize>();
    let repeats = tallies.iter().map(|(_, tally)| tally.unanswered + tally.answered).sum::<usize>();
    println!("{all} kills, {repeats} sent twice, each under its one key and Message-ID, 0 lost");
}

/// Kills alternate: while the provider holds its answer, and right after it has given it.
fn with_provider(name: &'static str, kills: usize) -> Tally {
    let (redis, provider) = (Redis::start(), MailProvider::start(name));
    let home = Home::new(&redis, &config(name, provider.port));
    let mut jobs = Jobs::of(&redis, "emails");
    let mut daemon = home.start();
    let (mut tally, mut keys) = (Tally { kills, ..Tally::default() }, BTreeSet::new());
    for number in 0..kills {
        let job = json!({"task": "greet", "args": {"to": "ann@example.bs"}});
        let id = post(daemon.admin, "/api/v1/jobs", &job).json()["id"].as_str().expect("an id").to_owned();
        let first = provider.next();
        let (key, message_id) = (first.key.clone(), first.message_id.clone());
        match name {
            "onesignal" => assert!(uuid::Uuid::parse_str(&key).is_ok(), "{key}"),
            "webhook" => assert_eq!(key, id),
            _ => assert_eq!((key, message_id), (format!("{id}-0"), format!("<{id}-0@hireme.test>"))),
        }
        let (key, message_id) = (first.key.clone(), first.message_id.clone());
        assert!(keys.insert(key.clone()), "another job has the key {key}");
        let answered = number % 2 == 1;
        if answered {
            first.answer();
            daemon.kill();
        } else {
            daemon.kill();
            drop(first);
        }
        daemon = home.start();
        let again = if answered {
            // It may have been settled before it died.
            let ended = || jobs.history(&id).is_some_and(|history| !history["end"].is_null());
            crate::bench::until("the mail to be sent again, or its job to have ended", move_on(&provider, ended))
        } else {
            Some(provider.next())
        };
        if let Some(again) = again {
            assert_eq!((&again.key, &again.message_id), (&key, &message_id), "{name}: the repeat has other names");
            again.answer();
            *(if answered { &mut tally.answered } else { &mut tally.unanswered }) += 1;
        }
        let history = jobs.ended(&id, "completed");
        if !message_id.is_empty() {
            assert_eq!(history["end"]["result"]["key"], key.as_str(), "{history:#}");
        }
        assert!(provider.already().is_none(), "{name}: sent a third time");
    }
    tally
}

/// The repeat, or that there will be none.
fn move_on<'a>(
    provider: &'a MailProvider,
    mut ended: impl FnMut() -> bool + 'a,
) -> impl FnMut() -> Option<Option<crate::bench::Accepted>> + 'a {
    move || match provider.already() {
        Some(again) => Some(Some(again)),
        None => ended().then_some(None),
    }
}

fn config(name: &str, port: u16) -> String {
    match name {
        "onesignal" => {
            return format!(
                "[push]\nprovider = \"onesignal\"\n[push.onesignal]\napp_id = \"5eb5a37e-b458-11e3-ac11-000c2940e62c\"\napi_key = \"k\"\n\
                 endpoint = \"http://127.0.0.1:{port}\"\n[queues.emails]\nconcurrency = 1\n\
                 [tasks.greet]\nqueue = \"emails\"\nparams = {{ to = \"email\" }}\n\
                 push = {{ user = \"{{{{ to }}}}\", title = \"Hi\", body = \"Hello\" }}\n"
            );
        }
        "webhook" => {
            return format!(
                "[queues.emails]\nconcurrency = 1\n[tasks.greet]\nqueue = \"emails\"\nparams = {{ to = \"email\" }}\n\
                 http = {{ url = \"http://127.0.0.1:{port}/\", \
                 signing_secrets = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\" }}\n"
            );
        }
        _ => {}
    }
    let keys = match name {
        "sendgrid" => "api_key = \"k\"",
        "ses" => "region = \"eu-west-1\"\naccess_key = \"k\"\nsecret_key = \"k\"",
        "mailgun" => "domain = \"mg.hireme.test\"\napi_key = \"k\"",
        _ => "host = \"127.0.0.1\"\ntls = \"none\"",
    };
    let place =
        if name == "smtp" { format!("port = {port}") } else { format!("endpoint = \"http://127.0.0.1:{port}\"") };
    format!(
        "[email]\nprovider = \"{name}\"\nfrom = \"HireMe <no-reply@hireme.test>\"\n[email.{name}]\n{keys}\n{place}\n\
         [queues.emails]\nconcurrency = 1\n[tasks.greet]\nqueue = \"emails\"\nparams = {{ to = \"email\" }}\n\
         email = {{ to = \"{{{{ to }}}}\", subject = \"Hi\", text = \"Hello\" }}\n"
    )
}
