//! What changes between two configurations, as a value: the reload applies it, and says it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Concurrency, Config, Queue, Schedule};
use crate::job::QueueName;

/// All that differs between a running configuration and a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Diff {
    pub queues_added: Vec<QueueName>,
    pub queues_removed: Vec<QueueName>,
    pub queues_changed: Vec<QueueChange>,
    /// Tasks by name.
    pub tasks: Changes,
    /// Schedules by name.
    pub schedules: Changes,
    /// Sections that take effect at once: `email`, `vars`, …
    pub services: Vec<&'static str>,
    /// Keys and sections that take effect at the next start only: `redis`, `admin.listen`, …
    pub restart: Vec<&'static str>,
}

/// A queue that stays, and in what way it is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueChange {
    pub name: QueueName,
    /// Old and new concurrency, when they differ.
    pub resized: Option<(Concurrency, Concurrency)>,
    /// Whether it reads other foreign lists.
    pub lists: bool,
    /// Whether timeout, retry, crash limit or retention differ.
    pub policy: bool,
}

/// Names of what is new, gone or different.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

/// What must be done to get from `old` to `new`.
pub(crate) fn diff(old: &Config, new: &Config) -> Diff {
    let queues = changes(&old.queues, &new.queues, |a, b| a == b);
    let queue_change = |name: &QueueName| queue_change(old.queues.get(name)?, new.queues.get(name)?);
    Diff {
        queues_changed: queues.changed.iter().filter_map(queue_change).collect(),
        queues_added: queues.added,
        queues_removed: queues.removed,
        tasks: changes(&old.tasks, &new.tasks, |a, b| a == b).named(),
        schedules: changes(&old.schedules, &new.schedules, same_schedule).named(),
        services: services(old, new),
        restart: restart(old, new),
    }
}

fn services(old: &Config, new: &Config) -> Vec<&'static str> {
    let pairs = [
        ("admin.token", old.admin.token != new.admin.token),
        ("admin.max_body", old.admin.max_body != new.admin.max_body),
        ("node.drain", old.node.drain != new.node.drain),
        ("node.concurrency", old.node.slots.bound != new.node.slots.bound),
        ("node.order", old.node.slots.order != new.node.slots.order),
        ("database", old.database != new.database),
        ("email", old.email != new.email),
        ("push", old.push != new.push),
        ("video", old.video != new.video),
        ("http", old.http != new.http),
        ("celery", old.celery != new.celery),
        ("vars", old.vars != new.vars),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// What is bound, opened or announced once, at the start.
fn restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let pairs = [
        ("redis", old.redis != new.redis),
        ("node.name", old.node.name != new.node.name),
        ("node.state_dir", old.node.state_dir != new.node.state_dir),
        ("node.lease", old.node.lease != new.node.lease),
        ("log", old.log != new.log),
        ("admin.listen", old.admin.listen != new.admin.listen),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn queue_change(old: &Arc<Queue>, new: &Arc<Queue>) -> Option<QueueChange> {
    let (lists, size) = (new.lists.clone(), new.concurrency);
    let same_policy = Queue { lists, concurrency: size, ..Queue::clone(old) } == **new;
    (old != new).then(|| QueueChange {
        name: new.name.clone(),
        resized: (old.concurrency != size).then_some((old.concurrency, size)),
        lists: old.lists != new.lists,
        policy: !same_policy,
    })
}

/// The parsed expression says nothing that its text does not.
fn same_schedule(old: &Schedule, new: &Schedule) -> bool {
    let key = |s: &Schedule| (s.expression.clone(), s.timezone, s.task.clone(), s.queue.clone(), s.overlap, s.catch_up);
    key(old) == key(new) && old.args == new.args
}

struct NameChanges<N> {
    added: Vec<N>,
    removed: Vec<N>,
    changed: Vec<N>,
}

impl<N: fmt::Display> NameChanges<N> {
    fn named(self) -> Changes {
        let named = |names: Vec<N>| names.iter().map(N::to_string).collect();
        Changes { added: named(self.added), removed: named(self.removed), changed: named(self.changed) }
    }
}

fn changes<N: Ord + Clone, V>(
    old: &BTreeMap<N, Arc<V>>,
    new: &BTreeMap<N, Arc<V>>,
    same: impl Fn(&V, &V) -> bool,
) -> NameChanges<N> {
    let without = |names: &BTreeMap<N, Arc<V>>, other: &BTreeMap<N, Arc<V>>| {
        names.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let differs = |name: &&N| old.get(*name).zip(new.get(*name)).is_some_and(|(a, b)| !same(a, b));
    NameChanges {
        added: without(new, old),
        removed: without(old, new),
        changed: new.keys().filter(differs).cloned().collect(),
    }
}

/// For the log and the answer to a reload: `queues: +video ~emails (10 → 20); needs a restart: redis`.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = self.queues_added.iter().map(|name| format!("+{name}"));
        let queues = queues.chain(self.queues_removed.iter().map(|name| format!("-{name}")));
        let queues: Vec<_> = queues.chain(self.queues_changed.iter().map(QueueChange::to_string)).collect();
        let parts = [
            ("queues: ", queues.join(" ")),
            ("tasks: ", self.tasks.to_string()),
            ("schedules: ", self.schedules.to_string()),
            ("changed: ", self.services.join(", ")),
            ("needs a restart: ", self.restart.join(", ")),
        ];
        let said: Vec<_> =
            parts.iter().filter(|(_, what)| !what.is_empty()).map(|(name, what)| format!("{name}{what}")).collect();
        f.write_str(if said.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&said.join("; "))
    }
}

impl fmt::Display for QueueChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.name)?;
        match self.resized {
            Some((old, new)) => write!(f, " ({old} → {new})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marked =
            |mark: char, names: &[String]| names.iter().map(|name| format!("{mark}{name}")).collect::<Vec<_>>();
        let all = [marked('+', &self.added), marked('-', &self.removed), marked('~', &self.changed)].concat();
        f.write_str(&all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::parse;

    const FILE: &str = r#"
[admin]
listen = "127.0.0.1:9180"
[vars]
greeting = "hello"
[queues.a]
concurrency = 10
[queues.b]
[tasks.t]
queue = "a"
sql = "SELECT 1"
[tasks.u]
queue = "a"
probe = { op = "echo" }
[schedules.s]
cron = "0 3 * * *"
task = "t"
"#;

    fn config(edit: impl Fn(&str) -> String) -> Config {
        parse(&edit(FILE), Path::new("jobsd.toml"), &|_| None, &[])
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config
    }

    /// What the reload would say after replacing `old` by `new`.
    fn said(old: &str, new: &str) -> String {
        assert!(FILE.contains(old));
        diff(&config(str::to_owned), &config(|file| file.replace(old, new))).to_string()
    }

    #[test]
    fn each_change_is_named_once() {
        let cases = [
            ("[vars]", "# only a comment\n[vars]", "nothing changed"),
            ("concurrency = 10", "concurrency = 20", "queues: ~a (10 → 20)"),
            ("concurrency = 10", "concurrency = { min = 3, max = 12 }", "queues: ~a (10 → 3 to 12)"),
            ("concurrency = 10", "timeout = \"1m\"", "queues: ~a"),
            ("[queues.b]", "[queues.c]", "queues: +c -b"),
            ("SELECT 1", "SELECT 2", "tasks: ~t"),
            ("[tasks.u]", "[tasks.v]", "tasks: +v -u"),
            ("op = \"echo\"", "op = \"noop\"", "tasks: ~u"),
            ("0 3 * * *", "0 4 * * *", "schedules: ~s"),
            ("[schedules.s]", "[schedules.r]", "schedules: +r -s"),
            ("hello", "good day", "changed: vars"),
            ("[queues.b]", "[queues.b]\nweight = 2", "queues: ~b"),
            ("[vars]", "[node]\nconcurrency = 9\n[vars]", "changed: node.concurrency"),
            ("[vars]", "[node]\nconcurrency = 9\norder = \"strict\"\n[vars]", "changed: node.concurrency, node.order"),
            ("127.0.0.1:9180", "127.0.0.1:9181", "needs a restart: admin.listen"),
            ("[vars]", "[log]\nlevel = \"debug\"\n[vars]", "needs a restart: log"),
            (
                "[admin]",
                "[redis]\nprefix = \"x\"\n[node]\nstate_dir = \"/x\"\n[admin]",
                "changed: database, email, push, video; needs a restart: redis, node.state_dir",
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(said(old, new), expected, "{old} → {new}");
        }
    }

    #[test]
    fn a_resized_queue_keeps_its_policy() {
        let changed =
            diff(&config(str::to_owned), &config(|file| file.replace("concurrency = 10", "concurrency = 20")));
        let [change] = changed.queues_changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!(
            (change.resized, change.policy, change.lists),
            (Some((Concurrency::fixed(10), Concurrency::fixed(20))), false, false)
        );
        assert_ne!(changed, Diff::default());
        let wires = "[queues.b]\nwires = [\"rq\"]\n";
        let changed = diff(
            &config(str::to_owned),
            &config(|file| file.replace("[queues.b]", wires).replace("[tasks.u]", "[tasks.u]\nnames = [\"x.u\"]")),
        );
        let [change] = changed.queues_changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!((change.resized, change.policy, change.lists), (None, false, true));
    }
}
