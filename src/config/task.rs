//! `[tasks.NAME]`: a named kind of work, the parameters it takes, and the steps that do it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Batch, Limit, Queue, RenderError, SigningKey, Statement, TaskUnique, Template, ValueTemplate};
use crate::job::{Args, QueueName, RetryPolicy, TaskName, Timestamp, Unique, glob};

/// A declared task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub name: TaskName,
    /// The names its producers use.
    pub names: Vec<NamePattern>,
    /// Where a job goes whose producer names no queue (HTTP, schedules). A foreign message stays in the queue that
    /// reads its list.
    pub queue: QueueName,
    /// In positional order.
    pub params: Vec<Param>,
    pub timeout: Option<Duration>,
    pub retry: Option<RetryPolicy>,
    /// How long after it became due a job is still worth starting, unless its producer says otherwise.
    pub expires: Option<Duration>,
    /// What its jobs are held to, in every queue for itself.
    pub limits: Vec<Limit>,
    /// Which of its jobs are the same to it.
    pub unique: Option<TaskUnique>,
    pub batch: BatchRule,
    /// At least one; run one after another.
    pub steps: Vec<Step>,
    /// What the producer gets back. Templates see the arguments, `vars`, `steps` (the results, in order), `now`
    /// (RFC 3339) and `job` (`id`, `queue`, `attempt`). `None`: the last step's result.
    pub result: Option<ValueTemplate>,
}

impl Task {
    /// Whether an attempt has something to keep before its end: a finished step, or the devices that a push has reached.
    pub(crate) fn is_done_in_parts(&self) -> bool {
        self.steps.len() > 1 || self.steps.iter().any(|step| matches!(step, Step::Push(_)))
    }

    /// When a job that is due at this instant expires, if its producer does not say.
    pub(crate) fn expiry(&self, due: Timestamp) -> Option<Timestamp> {
        self.expires.map(|span| due.after(span))
    }

    pub(crate) fn has_param(&self, name: &str) -> bool {
        self.params.iter().any(|param| param.name == name)
    }

    /// What makes a job with these arguments unique, if its producer does not say.
    ///
    /// # Errors
    /// [`RenderError`] when its key cannot be worked out.
    pub(crate) fn unique_of(&self, args: &Args, vars: &Map<String, Value>) -> Result<Option<Unique>, RenderError> {
        self.unique.as_ref().map_or(Ok(None), |unique| unique.of(args, vars))
    }

    /// Whether its handler can do many jobs at once.
    pub(crate) fn takes_batches(&self) -> bool {
        match self.steps.as_slice() {
            [Step::Sql(step)] => matches!(step.statements.as_slice(), [statement] if statement.multi_row.is_some()),
            [Step::Probe(_)] => true,
            _ => false,
        }
    }

    /// How many of its jobs that wait in this queue are done at once.
    pub(crate) fn batch_in(&self, queue: &Queue) -> Option<Batch> {
        match self.batch {
            BatchRule::Own(batch) => Some(batch),
            BatchRule::Never => None,
            BatchRule::AsQueue => queue.batch.filter(|_| self.takes_batches()),
        }
    }
}

/// Whether a task does many jobs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchRule {
    /// As the queue says, if its handler can.
    AsQueue,
    Never,
    Own(Batch),
}

/// A producer's name for a task: a dotted path in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern(pub String);

impl NamePattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        glob(&self.0, name)
    }

    /// Order among patterns that match the same name: exact names first, then the one with most literal text.
    pub(super) fn weight(&self) -> (bool, usize) {
        (!self.0.contains('*'), self.0.len())
    }
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Param {
    pub name: String,
    pub kind: ParamType,
    pub required: bool,
    /// What stands for a missing optional argument. `Null` unless the operator says otherwise.
    pub default: Value,
    /// Shown as `***` in logs and by the admin port.
    pub secret: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParamType {
    String,
    /// A string that is one mail address.
    Email,
    Int,
    Number,
    Bool,
    Object,
    Array,
    /// A number or a string, as primary keys are.
    Id,
    Any,
    /// `*args` of Python: an array of the positional arguments that are left over.
    Rest,
    /// `**kwargs` of Python: an object of the keyword arguments that no other parameter is called by.
    Keywords,
}

impl ParamType {
    pub(crate) const ALL: [Self; 11] = [
        Self::String,
        Self::Email,
        Self::Int,
        Self::Number,
        Self::Bool,
        Self::Object,
        Self::Array,
        Self::Id,
        Self::Any,
        Self::Rest,
        Self::Keywords,
    ];

    /// As it stands in `params`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Email => "email",
            Self::Int => "int",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Object => "object",
            Self::Array => "array",
            Self::Id => "id",
            Self::Any => "any",
            Self::Rest => "*",
            Self::Keywords => "**",
        }
    }

    /// Whether it takes what the other parameters leave over.
    pub(crate) fn is_star(self) -> bool {
        matches!(self, Self::Rest | Self::Keywords)
    }

    /// What a parameter of this type is without an argument, if it is not null.
    pub(crate) fn nothing(self) -> Value {
        match self {
            Self::Rest => Value::Array(Vec::new()),
            Self::Keywords => Value::Object(Map::new()),
            _ => Value::Null,
        }
    }
}

/// One step: which handler does it, with what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// On the heap, as the other large one: a task has few steps.
    Email(Box<EmailStep>),
    Sql(SqlStep),
    Push(Box<PushStep>),
    Video(VideoStep),
    Exec(ExecStep),
    Http(HttpStep),
    /// The request that the job's arguments describe, word by word. No file can declare it: [`super::WEBHOOK`].
    Webhook,
    Probe(ProbeStep),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EmailStep {
    pub to: Template,
    /// Rendered to an address, an array of addresses, or nothing; `bcc` too.
    pub cc: Option<ValueTemplate>,
    pub bcc: Option<ValueTemplate>,
    pub subject: Template,
    /// A template by name (itself a template, so that an argument may choose it). Empty once rendered: use `html` and
    /// `text`.
    pub template: Option<Template>,
    /// Further values that the mail template sees, beside the arguments and `vars`; one that is an object is spread.
    pub context: Option<ValueTemplate>,
    pub html: Option<Template>,
    pub text: Option<Template>,
    pub from: Option<Template>,
    pub reply_to: Option<Template>,
    pub headers: Vec<(String, Template)>,
    /// Where the recipient unsubscribes: an `https:` or `mailto:` link, or an array of them.
    pub unsubscribe: Option<ValueTemplate>,
    /// Files: a path, a table of `path`, `name` and `type`, or an array of these.
    pub attachments: Option<ValueTemplate>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SqlStep {
    /// Run in one transaction, in order. `:name` is bound, never spliced.
    pub statements: Vec<Statement>,
    /// Further named values, beside the arguments.
    pub values: Vec<(String, ValueTemplate)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PushStep {
    pub user: ValueTemplate,
    pub title: Template,
    pub body: Template,
    /// Sent as FCM's data payload: an object whose values are made strings.
    pub data: Option<ValueTemplate>,
    /// FCM's options for each platform, put over those that jobsd sets.
    pub android: Option<ValueTemplate>,
    pub apns: Option<ValueTemplate>,
    pub webpush: Option<ValueTemplate>,
    /// Further fields of OneSignal's request.
    pub onesignal: Option<ValueTemplate>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VideoStep {
    pub mode: VideoMode,
    pub input: Template,
    /// Names the output folder below `output_root`.
    pub id: Template,
    /// Names like `720p`, each a height of the short side. Rendered to an array of strings.
    pub quality: ValueTemplate,
    /// Position of the thumbnail: seconds, or `HH:MM:SS.mmm`.
    pub thumbnail_at: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoMode {
    /// Every quality, and a thumbnail.
    Transcode,
    Thumbnail,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExecStep {
    /// An absolute path. There is no shell.
    pub program: PathBuf,
    pub args: Vec<Template>,
    /// Environment variables of the daemon that the program sees, beside PATH and LANG.
    pub env: Vec<String>,
    pub dir: Option<PathBuf>,
    /// Who the program runs as. `None`: as the daemon does.
    pub user: Option<ExecUser>,
    pub limits: ExecLimits,
    /// Whether what an argument of the job gives may begin with `-`, where the step's own text does not.
    pub allow_options: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExecUser {
    pub uid: u32,
    pub gid: u32,
}

/// What each process of a program may use. `None`: what the daemon may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExecLimits {
    /// Bytes of data: heap, and memory mapped for itself alone.
    pub memory: Option<u64>,
    /// Time on a processor.
    pub cpu: Option<Duration>,
    /// Open files.
    pub files: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpStep {
    pub method: String,
    pub url: Template,
    pub headers: Vec<(String, Template)>,
    /// Sent as JSON. `None`: the job's arguments for methods with a body, nothing for the others.
    pub body: Option<ValueTemplate>,
    /// Statuses that mean "not now, later": the job is put off and no attempt is spent.
    pub snooze: Vec<u16>,
    /// Redirects that are followed, one after another.
    pub redirects: u8,
    /// What it means when nobody can be served.
    pub when_down: WhenDown,
    /// From the first connection to the end of the answer. `None`: only the job's own timeout.
    pub timeout: Option<Duration>,
    /// Each signs the request, in the form of Standard Webhooks. None: it is not signed.
    pub signing_keys: Vec<SigningKey>,
}

/// What becomes of a job whose request finds nobody who serves: no connection, 502, 503, 504, or 429 with a `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenDown {
    /// The attempt is spent: it is this job's receiver, and no other's.
    Retry,
    /// The queue waits for the service, at no cost of an attempt.
    Wait,
}

/// The self-test handler: does on request what real handlers do by accident.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProbeStep {
    pub op: ProbeOp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeOp {
    /// Returns the arguments: `{"args": {name: value}}`, or `{"args": […], "kwargs": {…}}` of a task with `*` or `**`.
    Echo,
    /// The argument `x` and the argument `y`, added.
    Add,
    /// The numbers in the argument `numbers`, added up.
    Sum,
    /// Sleeps for the argument `seconds`, and says as often as `report` asks for how far it is; returns when it started.
    Sleep,
    /// Fails with the argument `message` (and `kind`, `args`, `retry` = false for a failure that must not be retried).
    Fail,
    /// Fails (with the argument `kind`) as often as the argument `failures` says, counted by job since the daemon's start, then returns the number of
    /// its runs.
    Flaky,
    /// Ends the daemon's process as SIGKILL would.
    Crash,
    /// Puts the job off for the argument `seconds` (without it, as the retry policy says), with the argument `reason`.
    Snooze,
    /// Does nothing and returns null: for benchmarks.
    Noop,
}
