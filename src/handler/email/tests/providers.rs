//! Each provider against a server that checks what its documentation asks of a request, and what becomes of its refusals.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::{AttachmentRules, Mailgun, SendGrid, Ses};
use crate::testing::http::{Answer, Seen, Server};

const SECRET: &str = "key-hunter2";
const KEY: &str = "5f0c3a52-0f0e-7000-8000-000000000001-0";

/// A mail that has everything.
fn full_step() -> EmailStep {
    EmailStep {
        to: template("Zoë Rolle <{{ user_email }}>"),
        cc: Some(fixture::value(json!(["cc@b.test", "{{ user_email }}", ""]))),
        bcc: Some(fixture::value(json!("Archive <bcc@b.test>"))),
        reply_to: Some(template("help@hireme.test")),
        headers: vec![("X-Tag".into(), template("näive"))],
        unsubscribe: Some(fixture::value(json!("https://hireme.test/u/1"))),
        attachments: Some(fixture::value(json!([{"path": "invoice.txt", "name": "Invoice é.txt"}]))),
        ..step()
    }
}

fn provider(name: &str, endpoint: String) -> EmailProvider {
    let (key, timeout) = (Secret::new(SECRET), Duration::from_secs(5));
    match name {
        "sendgrid" => EmailProvider::SendGrid(SendGrid { api_key: key, endpoint, timeout }),
        "mailgun" => {
            EmailProvider::Mailgun(Mailgun { domain: "mg.hireme.test".into(), api_key: key, endpoint, timeout })
        }
        _ => EmailProvider::Ses(Ses {
            region: "eu-west-1".into(),
            access_key: Secret::new("AKIDEXAMPLE"),
            secret_key: key,
            session_token: Some(Secret::new("temporary")),
            configuration_set: Some("transactional".into()),
            endpoint,
            timeout,
        }),
    }
}

async fn send_full(name: &str, endpoint: String) -> (Outcome, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temp dir");
    std::fs::write(dir.path().join("invoice.txt"), "$25").expect("written");
    let mut config = fixture::config(dir.path());
    config.email.provider = provider(name, endpoint);
    config.email.attachments = AttachmentRules { roots: vec![dir.path().to_owned()], max: 1000 };
    let args = json!({"user_email": "zoe@example.com", "user_name": "Zoë", "username": "zoe"});
    (send(&config, full_step(), args).await, dir)
}

async fn sent(name: &str, answer: Answer) -> (Value, Seen) {
    let server = Server::start(move |_| answer.clone()).await;
    let (outcome, _dir) = send_full(name, server.url()).await;
    let result = success(outcome);
    assert_eq!(result["message_id"], format!("<{KEY}@hireme.test>"));
    assert_eq!((&result["key"], &result["recipient"]), (&json!(KEY), &json!("zoe@example.com")));
    let [seen] = <[Seen; 1]>::try_from(server.seen()).expect("one request");
    assert_eq!((seen.method.as_str(), seen.header("idempotency-key")), ("POST", KEY));
    assert!(!seen.body.contains(SECRET), "the key stands in a header only");
    (result, seen)
}

/// What is the same in all of them that take MIME.
fn assert_whole(mail: &Value) {
    let header = |name: &str| mail["headers"][name].as_str().unwrap_or_default();
    assert_eq!(mail["defects"], json!([]));
    assert_eq!(header("message-id"), format!("<{KEY}@hireme.test>"));
    assert_eq!(header("x-jobsd-key"), KEY);
    assert_eq!(header("to"), "Zoë Rolle <zoe@example.com>");
    assert_eq!((header("cc"), header("bcc")), ("cc@b.test", ""), "nobody sees a bcc");
    assert_eq!(header("reply-to"), "help@hireme.test");
    assert_eq!(header("x-tag"), "näive");
    assert_eq!(header("list-unsubscribe"), "<https://hireme.test/u/1>");
    assert_eq!(header("list-unsubscribe-post"), "List-Unsubscribe=One-Click");
    assert_eq!(mail["files"], json!([["Invoice é.txt", "text/plain", "$25"]]));
    assert!(text(mail, "html").contains("@zoe") && text(mail, "text").contains("@zoe"));
}

/// "Mail Send" of SendGrid's API reference.
#[tokio::test]
async fn sendgrid_gets_what_it_documents() {
    let (result, seen) = sent("sendgrid", Answer::new(202, "").with("X-Message-Id", "14c5d75ce93")).await;
    assert_eq!(result["provider_id"], "14c5d75ce93");
    assert_eq!(seen.path, "/v3/mail/send");
    assert_eq!(seen.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(seen.header("content-type"), "application/json");
    let body = seen.json();
    let content = body["content"].as_array().expect("an array");
    assert_eq!(
        content.iter().map(|part| part["type"].as_str()).collect::<Vec<_>>(),
        [Some("text/plain"), Some("text/html")],
        "the order is prescribed"
    );
    assert!(content.iter().all(|part| part["value"].as_str().is_some_and(|value| value.contains("@zoe"))));
    let mut rest = body.clone();
    rest.as_object_mut().expect("an object").remove("content");
    assert_eq!(
        rest,
        json!({
            "personalizations": [{
                "to": [{"email": "zoe@example.com", "name": "Zoë Rolle"}],
                "cc": [{"email": "cc@b.test"}],
                "bcc": [{"email": "bcc@b.test", "name": "Archive"}],
                "custom_args": {"jobsd_key": KEY},
            }],
            "from": {"email": "no-reply@hireme.test", "name": "HireMeBahamas"},
            "reply_to": {"email": "help@hireme.test"},
            "subject": "Welcome to HireMeBahamas, Zoë!",
            "headers": {
                "Message-ID": format!("<{KEY}@hireme.test>"),
                "X-Jobsd-Key": KEY,
                "X-Tag": "=?utf-8?b?bsOkaXZl?=",
                "List-Unsubscribe": "<https://hireme.test/u/1>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
            "attachments": [{
                "content": STANDARD.encode("$25"),
                "type": "text/plain; charset=utf-8",
                "filename": "Invoice é.txt",
                "disposition": "attachment",
            }],
        })
    );
}

/// "SendEmail" of the SES API v2 reference. What the signature is worth is shown by its vectors, and by moto's server.
#[tokio::test]
async fn ses_gets_what_it_documents() {
    let (result, seen) = sent("ses", Answer::new(200, r#"{"MessageId": "0100-abc"}"#)).await;
    assert_eq!(result["provider_id"], "0100-abc");
    assert_eq!(seen.path, "/v2/email/outbound-emails");
    assert_eq!(seen.header("x-amz-security-token"), "temporary");
    let (date, signed) = (seen.header("x-amz-date"), seen.header("authorization"));
    let expected = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{}/eu-west-1/ses/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=",
        &date[..8]
    );
    assert!(signed.starts_with(&expected), "{signed}");
    let body = seen.json();
    let mail = parse(&STANDARD.decode(body["Content"]["Raw"]["Data"].as_str().expect("a text")).expect("base64"));
    assert_whole(&mail);
    let mut rest = body.clone();
    rest.as_object_mut().expect("an object").remove("Content");
    assert_eq!(
        rest,
        json!({
            "FromEmailAddress": "no-reply@hireme.test",
            "Destination": {
                "ToAddresses": ["zoe@example.com"],
                "CcAddresses": ["cc@b.test"],
                "BccAddresses": ["bcc@b.test"],
            },
            "EmailTags": [{"Name": "jobsd-key", "Value": KEY}],
            "ConfigurationSetName": "transactional",
        })
    );
}

/// "Send an email in MIME format" of Mailgun's API reference; Python reads the form.
#[tokio::test]
async fn mailgun_gets_what_it_documents() {
    let (result, seen) =
        sent("mailgun", Answer::new(200, r#"{"id": "<x@mg>", "message": "Queued. Thank you."}"#)).await;
    assert_eq!(result["provider_id"], "<x@mg>");
    assert_eq!(seen.path, "/v3/mg.hireme.test/messages.mime");
    assert_eq!(seen.header("authorization"), format!("Basic {}", STANDARD.encode(format!("api:{SECRET}"))));
    let whole = format!("Content-Type: {}\r\nMIME-Version: 1.0\r\n\r\n{}", seen.header("content-type"), seen.body);
    let script = "import sys, json, email\n\
        m = email.message_from_binary_file(sys.stdin.buffer)\n\
        assert m.get_content_type() == 'multipart/form-data' and not m.defects, m.defects\n\
        field = lambda p: [p.get_param('name', header='content-disposition'), p.get_filename(),\n\
            p.get_payload()[0].as_string() if p.is_multipart() else p.get_payload()]\n\
        print(json.dumps([field(p) for p in m.get_payload()]))";
    let fields: Value = serde_json::from_slice(&python(script, whole.as_bytes())).expect("JSON");
    let fields = fields.as_array().expect("an array");
    let (message, plain) = fields.split_last().expect("there are fields");
    let expected = [("to", "zoe@example.com"), ("to", "cc@b.test"), ("to", "bcc@b.test"), ("v:jobsd-key", KEY)];
    assert_eq!(plain, expected.map(|(name, value)| json!([name, null, value])));
    assert_eq!((&message[0], &message[1]), (&json!("message"), &json!("message.eml")));
    let (_, mime) = seen.body.split_once("Content-Type: message/rfc822\r\n\r\n").expect("the message");
    let (mime, _) = mime.rsplit_once("\r\n--jobsd-").expect("the last boundary");
    assert_whole(&parse(mime.as_bytes()));
}

/// The answers that the documentation of each names, through the whole handler.
#[tokio::test]
async fn refusals_say_what_follows() {
    let bad_address =
        r#"{"errors": [{"message": "Does not contain a valid address.", "field": "personalizations.0.to.0.email"}]}"#;
    let sender =
        r#"{"errors": [{"message": "The from address does not match a verified Sender Identity.", "field": "from"}]}"#;
    let no_address = r#"{"message": "'to' parameter is not a valid address. please check documentation"}"#;
    let (never, after) = (Retryable::Never, |seconds| Retryable::After(Duration::from_secs(seconds)));
    let ses = |status, name: &str| Answer::new(status, r#"{"message": "words"}"#).with("x-amzn-ErrorType", name);
    let cases = [
        ("sendgrid", Answer::new(400, bad_address), "InvalidAddress", never, "400 Bad Request: Does not contain"),
        ("sendgrid", Answer::new(403, sender), "MailRejected", never, "verified Sender Identity"),
        ("sendgrid", Answer::new(413, ""), "MailRejected", never, "SendGrid: it answered 413"),
        ("sendgrid", Answer::new(429, ""), "MailThrottled", after(5), "429"),
        ("sendgrid", Answer::new(504, ""), "MailTimeout", Retryable::ByPolicy, "504"),
        ("sendgrid", Answer::new(302, "").with("Location", "/elsewhere"), "MailRejected", never, "302 Found"),
        (
            "ses",
            ses(400, "MessageRejected"),
            "MailRejected",
            never,
            "SES: it answered 400 Bad Request: MessageRejected: words",
        ),
        ("ses", ses(429, "TooManyRequestsException"), "MailThrottled", after(5), "TooManyRequestsException"),
        ("mailgun", Answer::new(400, no_address), "InvalidAddress", never, "Mailgun: it answered 400"),
    ];
    for (name, answer, kind, retry, words) in cases {
        let said = format!("{name} {} {}", answer.status, answer.body);
        let failed = failure(refused(name, answer).await);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{said}: {}", failed.message);
        assert!(failed.message.contains(words), "{said}: {}", failed.message);
    }
    let half = Some(Duration::from_secs(30));
    let cases = [
        ("sendgrid", Answer::new(401, ""), "MailCredentialsError", None, "SendGrid: it answered 401"),
        ("sendgrid", Answer::new(503, "").with("Retry-After", "30"), "MailUnavailable", half, "503"),
        // These used to spend an attempt each.
        ("sendgrid", Answer::new(429, "").with("Retry-After", "30"), "MailThrottled", half, "429"),
        (
            "ses",
            ses(429, "TooManyRequestsException").with("Retry-After", "30"),
            "MailThrottled",
            half,
            "TooManyRequests",
        ),
        ("mailgun", Answer::new(429, "").with("Retry-After", "30"), "MailThrottled", half, "429"),
        ("ses", ses(400, "SendingPausedException"), "MailCredentialsError", None, "SendingPausedException"),
        ("ses", ses(403, "SignatureDoesNotMatch"), "MailCredentialsError", None, "SignatureDoesNotMatch"),
        ("ses", Answer::new(500, "oops"), "MailUnavailable", None, "500"),
        ("mailgun", Answer::new(401, "Forbidden"), "MailCredentialsError", None, "401 Unauthorized: Forbidden"),
        (
            "mailgun",
            Answer::new(404, r#"{"message": "Domain not found: x"}"#),
            "MailCredentialsError",
            None,
            "not found",
        ),
        ("mailgun", Answer::new(502, ""), "MailUnavailable", None, "502"),
    ];
    for (name, answer, kind, waits, words) in cases {
        let said = format!("{name} {} {}", answer.status, answer.body);
        let (failed, retry_after) = outage(refused(name, answer).await);
        assert_eq!((failed.kind.as_str(), retry_after), (kind, waits), "{said}: {}", failed.message);
        assert!(failed.message.contains(words), "{said}: {}", failed.message);
    }
}

/// What becomes of a mail that the provider answers so. It is asked once: a redirect is not followed.
async fn refused(name: &str, answer: Answer) -> Outcome {
    let server = Server::start(move |_| answer.clone()).await;
    let (outcome, _dir) = send_full(name, server.url()).await;
    assert!(!format!("{outcome:?}").contains("hunter2"), "{outcome:?}");
    assert_eq!(server.seen().len(), 1);
    outcome
}

#[tokio::test]
async fn a_provider_that_is_away_is_an_outage_and_one_that_is_silent_is_not() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port").local_addr().expect("an address");
    for name in ["sendgrid", "ses", "mailgun"] {
        let (failed, _) = outage(send_full(name, format!("http://{closed}")).await.0);
        assert_eq!(failed.kind, "MailUnavailable", "{}", failed.message);
    }
    // This one takes connections and says nothing: it may have the mail, so the attempt is spent.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut config = fixture::config(dir.path());
    config.email.provider = EmailProvider::SendGrid(SendGrid {
        api_key: Secret::new(SECRET),
        endpoint: format!("http://{}", silent.local_addr().expect("an address")),
        timeout: Duration::from_millis(200),
    });
    let args = json!({"user_email": "a@b.test", "user_name": "Ann", "username": "ann"});
    let failed = failure(send(&config, step(), args).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("MailTimeout", Retryable::ByPolicy), "{}", failed.message);
}

/// What SMTPUTF8 alone can carry, and a secret that no header can.
#[tokio::test]
async fn what_a_provider_cannot_take_is_refused_before_it_is_asked() {
    let server = Server::start(|_| Answer::new(200, "{}")).await;
    for name in ["sendgrid", "ses", "mailgun"] {
        let dir = tempfile::tempdir().expect("a temp dir");
        let mut config = fixture::config(dir.path());
        config.email.provider = provider(name, server.url());
        let args = json!({"user_email": "zoë@b.test", "user_name": "Zoë", "username": "zoe"});
        let failed = failure(send(&config, step(), args).await);
        assert_eq!((failed.kind.as_str(), failed.retry), ("InvalidAddress", Retryable::Never), "{}", failed.message);
        assert!(failed.message.contains("not ASCII"), "{}", failed.message);
    }
    assert!(server.seen().is_empty());
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut config = fixture::config(dir.path());
    config.email.provider = EmailProvider::SendGrid(SendGrid {
        api_key: Secret::new("two\nlines"),
        endpoint: server.url(),
        timeout: Duration::from_secs(5),
    });
    let error = Handlers::new(&config).expect_err("it is refused").to_string();
    assert_eq!(
        error,
        "prepare the mail handler: read `email.sendgrid.api_key`: it holds a character that no HTTP header can carry"
    );
}
