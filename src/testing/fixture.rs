//! A job, a task and a configuration, as small as they can be.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::{
    Admin, AttachmentRules, BatchRule, Celery, Concurrency, Config, Database, Dialect, Email, EmailProvider, Http,
    Limits, Log, LogFormat, Node, Param, ParamType, Push, PushProvider, Queue, Redis, RedisTls, RedisUrl, Retention,
    SlotOrder, SlotRules, Statement, Step, Task, Template, ValueTemplate, Video,
};
use crate::job::{Backoff, Job, JobId, Origin, Priority, QueueName, RetryPolicy, TaskName, Timestamp};

pub(crate) const JOB_ID: &str = "5f0c3a52-0f0e-7000-8000-000000000001";

/// A job with these arguments; anything that is not an object stands for none.
pub(crate) fn job(args: Value) -> Job {
    Job {
        id: JobId::parse(JOB_ID).expect("a valid id"),
        queue: QueueName::parse("emails").expect("a valid name"),
        task: TaskName::parse("greet").expect("a valid name"),
        buckets: Vec::new(),
        args: match args {
            Value::Object(args) => args,
            _ => Map::new(),
        },
        origin: Origin::Api,
        enqueued_at: Timestamp::from_millis(0),
        due: None,
        timeout: None,
        expires: None,
        retry: None,
        priority: Priority::default(),
        args_apart: None,
        unique: None,
        flow: None,
    }
}

/// The queue of [`job`], which keeps whatever ends and retries nothing.
pub(crate) fn queue() -> Queue {
    const HOUR: Duration = Duration::from_secs(3600);
    let keep = Retention { age: HOUR, count: 1000, bytes: u64::MAX };
    let retry = RetryPolicy {
        limit: 0,
        backoff: Backoff::Fixed { delay: HOUR },
        max_delay: HOUR,
        jitter: 0.0,
        span: None,
        never: Vec::new(),
    };
    Queue {
        name: QueueName::parse("emails").expect("a valid name"),
        lists: Vec::new(),
        concurrency: Concurrency::fixed(10),
        timeout: HOUR,
        retry,
        crash_limit: 3,
        keep_completed: keep,
        keep_dead: keep,
        batch: None,
        weight: 1,
        ageing: Queue::AGEING,
        limits: Limits::default(),
    }
}

pub(crate) fn task(steps: Vec<Step>) -> Task {
    Task {
        name: TaskName::parse("greet").expect("a valid name"),
        names: Vec::new(),
        queue: QueueName::parse("emails").expect("a valid name"),
        params: Vec::new(),
        timeout: None,
        retry: None,
        expires: None,
        limits: Vec::new(),
        unique: None,
        batch: BatchRule::AsQueue,
        steps,
        result: None,
    }
}

pub(crate) fn param(name: &str) -> Param {
    Param { name: name.into(), kind: ParamType::Any, required: true, default: Value::Null, secret: false }
}

pub(crate) fn template(source: &str) -> Template {
    Template::parse(source).expect("a valid template")
}

pub(crate) fn value(value: Value) -> ValueTemplate {
    ValueTemplate::parse(value).expect("a valid template")
}

/// A statement for the SQLite of [`config`].
pub(crate) fn statement(sql: &str) -> Statement {
    Statement::parse(sql, Dialect::Sqlite).expect("a valid statement")
}

/// Everything stays below `dir`: SQLite, outboxes, videos.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        redis: Redis {
            url: RedisUrl::Embedded { port: None },
            prefix: "jobsd".into(),
            timeout: Duration::from_secs(5),
            tls: RedisTls::default(),
            accept_eviction: false,
        },
        node: Node {
            name: "test".into(),
            state_dir: dir.join("state"),
            drain: Duration::from_secs(1),
            lease: Duration::from_secs(15),
            slots: SlotRules { bound: None, order: SlotOrder::Weighted },
        },
        log: Log { format: LogFormat::Text, level: "info".into() },
        admin: Admin { listen: ([127, 0, 0, 1], 0).into(), token: None, max_body: 1 << 20 },
        database: Database::Sqlite { path: dir.join("app.db"), timeout: Duration::from_secs(10) },
        email: Email {
            provider: EmailProvider::Outbox { folder: dir.join("mail") },
            from: "HireMeBahamas <no-reply@hireme.test>".into(),
            reply_to: None,
            templates: None,
            attachments: AttachmentRules { roots: Vec::new(), max: 10 << 20 },
        },
        push: Push {
            provider: PushProvider::Outbox { folder: dir.join("push") },
            tokens_query: None,
            remove_device: None,
        },
        video: Video {
            helper: None,
            input_roots: vec![dir.join("uploads")],
            output_root: dir.join("videos"),
            public_url: "https://cdn.test/videos/".into(),
            preset: "veryfast".into(),
            crf: 23,
            max_pixels: 8192 * 4320,
            max_duration: Duration::from_secs(3600),
        },
        http: Http::default(),
        celery: Celery::default(),
        vars: Map::from_iter([("base_url".to_owned(), Value::from("https://hireme.test"))]),
        queues: BTreeMap::new(),
        tasks: BTreeMap::new(),
        schedules: BTreeMap::new(),
    }
}

/// The provider that `main` installs; whoever is first installs it.
pub(crate) fn tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
