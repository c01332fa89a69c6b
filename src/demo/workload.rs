//! The jobs of the demo: what HireMeBahamas enqueues on an ordinary day, one of each kind.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// One job to put in.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) queue: &'static str,
    /// The task's own name.
    pub(super) task: &'static str,
    pub(super) call: Call,
    pub(super) leaves: Leaves,
}

/// How its producer calls it.
#[derive(Debug, Clone)]
pub(super) enum Call {
    /// `task.delay(*args, **kwargs)`.
    Celery { args: Vec<Value>, kwargs: Map<String, Value> },
    /// `enqueue_job(queue, function, *args, **kwargs)` of the application. The `timeout` that it adds is no option of
    /// RQ 2.0, which leaves it among the keyword arguments.
    Rq { args: Vec<Value>, kwargs: Map<String, Value>, result_ttl: Duration, failure_ttl: Duration },
}

/// What must be there when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    Mail,
    NotificationAndPush,
    Event,
    Videos,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Work {
    /// The function's name in the application's Python.
    pub(super) fn function(&self) -> String {
        let module = match self.call {
            Call::Celery { .. } => "celery_tasks",
            Call::Rq { .. } => "rq_tasks",
        };
        format!("backend_app.core.{module}.{}", self.task)
    }

    pub(super) fn wire(&self) -> &'static str {
        match self.call {
            Call::Celery { .. } => "Celery",
            Call::Rq { .. } => "RQ",
        }
    }
}

/// All of them, in the order in which they are put in. `clip` is what the video's owner has uploaded.
pub(super) fn all(clip: &Path) -> Vec<Work> {
    let mut works = mails();
    works.push(Work {
        queue: "notifications",
        task: "send_push_notification_job",
        call: Call::Rq {
            args: Vec::new(),
            kwargs: keywords([
                ("timeout", json!(300)),
                ("user_id", json!(7)),
                ("title", json!("New follower")),
                ("body", json!("Marcus Bethel started following you")),
                ("notification_type", json!("follow")),
                ("data", json!({"follower_id": 12})),
            ]),
            result_ttl: Duration::from_secs(600),
            failure_ttl: DAY,
        },
        leaves: Leaves::NotificationAndPush,
    });
    works.push(Work {
        queue: "analytics",
        task: "track_user_event_job",
        call: Call::Rq {
            args: vec![json!(7), json!("job_viewed"), json!({"job_id": 42, "from": "search"})],
            kwargs: keywords([("timeout", json!(600))]),
            result_ttl: Duration::from_secs(3600),
            failure_ttl: DAY,
        },
        leaves: Leaves::Event,
    });
    works.push(Work {
        queue: "video_processing",
        task: "process_video_job",
        call: Call::Rq {
            args: vec![json!(31), json!(clip), json!(7)],
            kwargs: keywords([("timeout", json!(1800))]),
            result_ttl: Duration::from_secs(7200),
            failure_ttl: 2 * DAY,
        },
        leaves: Leaves::Videos,
    });
    works
}

fn mails() -> Vec<Work> {
    let welcomed = [("user_email", "keisha@example.com"), ("user_name", "Keisha Rolle"), ("username", "keisha")];
    let token = uuid::Uuid::new_v4().simple().to_string();
    vec![
        mail(
            "send_email_task",
            ["keisha@example.com", "Your weekly summary", "<p>Three jobs match your profile.</p>"].map(Value::from),
        ),
        Work {
            queue: "emails",
            task: "send_welcome_email",
            call: Call::Celery {
                args: Vec::new(),
                kwargs: keywords(welcomed.map(|(name, value)| (name, value.into()))),
            },
            leaves: Leaves::Mail,
        },
        mail(
            "send_job_application_email",
            [
                "hiring@example.com".into(),
                "Lucaya Resort".into(),
                "Front desk agent".into(),
                "Keisha Rolle".into(),
                "keisha@example.com".into(),
                json!(42),
            ],
        ),
        mail(
            "send_message_notification_email",
            ["keisha@example.com", "Keisha Rolle", "Marcus Bethel", "Can you come to the resort on Tuesday at ten?"]
                .map(Value::from),
        ),
        mail("send_password_reset_email", ["keisha@example.com", "Keisha Rolle", &token].map(Value::from)),
    ]
}

fn mail<const N: usize>(task: &'static str, args: [Value; N]) -> Work {
    Work { queue: "emails", task, call: Call::Celery { args: args.into(), kwargs: Map::new() }, leaves: Leaves::Mail }
}

fn keywords<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
