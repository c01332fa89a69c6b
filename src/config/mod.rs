//! What the daemon needs to know, already checked: names resolved, templates parsed, durations typed.
//!
//! `file` reads what the operator wrote and reports every problem of it at once; nothing behind
//! [`Config`] re-checks. `diff` says what a reload changes. Owns no running part.

mod bind;
mod built_in;
mod diff;
mod email;
mod escape;
mod failures;
mod file;
mod http;
mod job_secrets;
mod limit;
mod multi_row;
mod queue;
mod rates_by_hand;
mod redis;
mod schedule;
mod secret;
mod sensitive;
mod service;
mod sql;
mod task;
mod template;
mod unique;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::redis::{Identity, Login, Redis, RedisTls, RedisUrl, Sentinels};
pub(crate) use bind::{BindError, bind, bind_except};
pub(crate) use built_in::WEBHOOK;
pub(crate) use diff::diff;
pub(crate) use email::{AttachmentRules, Email, EmailProvider, Mailgun, SendGrid, Ses, Smtp, SmtpTls};
pub(crate) use failures::{failure_names, is_known};
pub(crate) use file::{Loaded, MAIL_TEMPLATES, Problems, load, parse};
pub(crate) use http::{AllowPrivate, Http, SigningKey};
pub(crate) use job_secrets::JobSecrets;
pub(crate) use limit::{Key, Limit, LimitError, Limits, Points, Rate};
pub(crate) use multi_row::MultiRow;
pub(crate) use queue::{Batch, Concurrency, Queue, Retention};
pub(crate) use schedule::{CatchUp, Overlap, Schedule};
pub(crate) use secret::Secret;
pub(crate) use service::{
    Admin, Celery, Database, Log, LogFormat, Node, OneSignal, OneSignalTarget, Push, PushProvider, SlotOrder,
    SlotRules, Video,
};
pub(crate) use sql::{Dialect, Statement};
pub(crate) use task::{
    BatchRule, EmailStep, ExecLimits, ExecStep, ExecUser, HttpStep, NamePattern, Param, ParamType, ProbeOp, ProbeStep,
    PushStep, SqlStep, Step, Task, VideoMode, VideoStep, WhenDown,
};
pub(crate) use template::{RenderError, Template, ValueTemplate};
pub(crate) use unique::TaskUnique;

use crate::job::{QueueName, TaskName};

/// A complete, valid configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub redis: Redis,
    pub node: Node,
    pub log: Log,
    pub admin: Admin,
    pub database: Database,
    pub email: Email,
    pub push: Push,
    pub video: Video,
    pub http: Http,
    pub celery: Celery,
    /// `[vars]`: values that templates see as `vars.NAME`.
    pub vars: serde_json::Map<String, serde_json::Value>,
    pub queues: BTreeMap<QueueName, Arc<Queue>>,
    pub tasks: BTreeMap<TaskName, Arc<Task>>,
    pub schedules: BTreeMap<String, Arc<Schedule>>,
}

impl Config {
    /// The task of a job.
    pub(crate) fn task(&self, name: &TaskName) -> Option<&Arc<Task>> {
        self.tasks.get(name).or_else(|| built_in::built_in(name))
    }

    /// The task that a producer means by `wire_name`: an exact name wins over a pattern, patterns are tried in
    /// the order of their length, longest first.
    pub(crate) fn task_named(&self, wire_name: &str) -> Option<&Arc<Task>> {
        let best = |task: &&Arc<Task>| {
            task.names.iter().filter(|pattern| pattern.matches(wire_name)).map(NamePattern::weight).max()
        };
        self.tasks.values().filter(|task| best(task).is_some()).max_by_key(|task| best(task))
    }
}
