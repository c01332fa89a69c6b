//! What the templates and statements of a task can see, and the check that they name nothing else.

use serde_json::{Map, Value, json};

use super::diagnostic::nearest;
use super::document::Item;
use super::params::RESERVED;
use crate::config::{Param, ParamType, Statement, Template, ValueTemplate};

/// What a job's template sees under `job`.
const JOB: [&str; 3] = ["id", "queue", "attempt"];
/// What the templates of limits see.
const LIMIT_HELP: &str = "a limit sees the parameters of the job and vars";
/// Functions of the template language.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

/// The names that one step can see.
pub(super) struct Scope<'a> {
    pub(super) task: &'a str,
    pub(super) params: &'a [Param],
    pub(super) vars: &'a Map<String, Value>,
    /// Steps that have run by then.
    pub(super) steps: usize,
}

impl Scope<'_> {
    /// A template that gives a text.
    pub(super) fn template(&self, item: &Item<'_>) -> Option<Template> {
        let template = item.template()?;
        self.check(item, &template);
        Some(template)
    }

    /// A template for a key, which is made before the job is put in.
    pub(super) fn key(&self, item: &Item<'_>) -> Option<Template> {
        const LATER: [&str; 3] = ["now", "job", "steps"];
        let template = self.template(item)?;
        let roots = template.lookups().map(|lookup| lookup.split('.').next().unwrap_or_default());
        let mut later: Vec<&str> = roots.filter(|root| LATER.contains(root)).collect();
        later.dedup();
        for root in later {
            let message = format!("`{root}` is not known yet when the key is made");
            item.error_at(root, message, "a key is made of parameters and vars");
        }
        Some(template)
    }

    /// A value with templates inside.
    pub(super) fn value(&self, item: &Item<'_>) -> Option<ValueTemplate> {
        let value = item.value_template()?;
        value.templates().into_iter().for_each(|template| self.check(item, template));
        Some(value)
    }

    /// The `:names` of a statement, which are parameters or among `values`.
    pub(super) fn names(&self, item: &Item<'_>, statement: &Statement, values: &[&str]) {
        let known = || self.params.iter().map(|param| param.name.as_str()).chain(values.iter().copied());
        for name in statement.names.iter().filter(|&name| known().all(|known| known != name)) {
            let help = match nearest(name, known()) {
                Some(near) => format!("did you mean `:{near}`?"),
                None => format!("add the parameter `{name}`, or `{name}` to the step's `values`"),
            };
            item.error_at(
                &format!(":{name}"),
                format!("`:{name}` is neither a parameter of `{}` nor in `values`", self.task),
                help,
            );
        }
    }

    /// Checks a template of a limit, which sees the parameters and `vars`; says whether all is well. A parameter that this
    /// task does not have is well where the template says what stands for it, such as `stand_in`.
    pub(super) fn limit(&self, item: &Item<'_>, template: &Template, stand_in: &str) -> bool {
        let mut sample = self.sample();
        if let Value::Object(sample) = &mut sample {
            sample.retain(|name, _| !["steps", "now", "job"].contains(&name.as_str()));
        }
        if let Err(error) = template.trial(&sample) {
            let help = "filters and functions are those of Jinja, and `minus` for times";
            item.error(format!("the template cannot work: {error}"), help);
            return false;
        }
        // Some forms, such as a slice of a filtered value, name what they look up only when they are rendered.
        if template.lookups().next().is_none()
            && let Err(error) = template.render(&sample)
        {
            item.error(format!("the template cannot work for the task `{}`: {}", self.task, error.reason), LIMIT_HELP);
            return false;
        }
        let is_param = |name: &str| self.params.iter().any(|param| param.name == name);
        let mut lookups = template.lookups().map(|lookup| (lookup, lookup.split('.').next().unwrap_or_default()));
        let stranger = lookups.find(|(lookup, root)| match lookup.strip_prefix("vars.") {
            Some(field) => !self.vars.contains_key(field),
            None => *root != "vars" && !FUNCTIONS.contains(root) && !is_param(root),
        });
        let Some((lookup, root)) = stranger.filter(|_| template.render(&sample).is_err()) else { return true };
        if let Some(field) = lookup.strip_prefix("vars.") {
            return self.no_variable(item, field);
        }
        let names = || self.params.iter().map(|param| param.name.as_str());
        let help = match nearest(root, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if RESERVED.contains(&root) => LIMIT_HELP.to_owned(),
            None => format!("say what stands for it: \"{{{{ {root} | default({stand_in}) }}}}\""),
        };
        item.error_at(root, format!("the task `{}` has no parameter `{root}`", self.task), help);
        false
    }

    fn check(&self, item: &Item<'_>, template: &Template) {
        // Each name is looked at, so that each is reported.
        let unknown = template.lookups().filter(|lookup| !self.name(item, lookup)).count();
        if unknown > 0 {
            return;
        }
        self.step_numbers(item, template.source());
        if let Err(error) = template.trial(&self.sample()) {
            let help = "filters and functions are those of Jinja, and `minus` for times";
            item.error(format!("the template cannot work: {error}"), help);
        }
    }

    /// `steps[2]` where only two steps come before.
    fn step_numbers(&self, item: &Item<'_>, source: &str) {
        let written = source.split("steps[").skip(1).filter_map(|rest| rest.split(']').next()?.trim().parse().ok());
        for number in written.filter(|&number: &usize| number >= self.steps) {
            item.error_at(
                &format!("steps[{number}]"),
                format!("there is no `steps[{number}]`: {} run by then", counted(self.steps)),
                "steps are counted from 0",
            );
        }
    }

    /// Whether a name is known, with its field where fields are.
    fn name(&self, item: &Item<'_>, lookup: &str) -> bool {
        let mut parts = lookup.split('.');
        match (parts.next().unwrap_or_default(), parts.next()) {
            ("vars", Some(field)) if !self.vars.contains_key(field) => return self.no_variable(item, field),
            ("job", Some(field)) if !JOB.contains(&field) => {
                let message = format!("there is no `job.{field}`");
                item.error_at(&format!("job.{field}"), message, format!("a job has: job.{}", JOB.join(", job.")));
            }
            ("steps", _) if self.steps == 0 => {
                let message = "no step has run yet when this template is rendered";
                item.error_at("steps", message, "`steps` holds the results of earlier steps");
            }
            (root, _) if !self.knows(root) => self.unknown(item, root),
            _ => return true,
        }
        false
    }

    fn knows(&self, name: &str) -> bool {
        RESERVED.contains(&name) || FUNCTIONS.contains(&name) || self.params.iter().any(|param| param.name == name)
    }

    fn unknown(&self, item: &Item<'_>, name: &str) {
        let names = self.params.iter().map(|param| param.name.as_str()).chain(RESERVED);
        let help = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.vars.contains_key(name) => format!("did you mean `vars.{name}`?"),
            None => format!("templates of this task see: {}", names.collect::<Vec<_>>().join(", ")),
        };
        item.error_at(name, format!("unknown variable `{name}` in a template of `{}`", self.task), help);
    }

    fn no_variable(&self, item: &Item<'_>, field: &str) -> bool {
        let help = match nearest(field, self.vars.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `vars.{near}`?"),
            None => format!("add `{field}` to [vars]"),
        };
        item.error_at(&format!("vars.{field}"), format!("there is no `{field}` in [vars]"), help);
        false
    }

    /// Values of the declared types, to try a template with.
    fn sample(&self) -> Value {
        let mut sample: Map<String, Value> =
            self.params.iter().map(|param| (param.name.clone(), sample_of(param.kind))).collect();
        sample.insert("vars".into(), Value::Object(self.vars.clone()));
        sample.insert("steps".into(), vec![json!({}); self.steps].into());
        sample.insert("now".into(), json!("2026-01-01T00:00:00.000Z"));
        sample.insert("job".into(), json!({"id": "1", "queue": "q", "attempt": 1}));
        Value::Object(sample)
    }
}

fn counted(steps: usize) -> String {
    if steps == 1 { "1 step has".into() } else { format!("{steps} steps have") }
}

fn sample_of(kind: ParamType) -> Value {
    match kind {
        ParamType::String | ParamType::Any => json!("text"),
        ParamType::Email => json!("name@example.org"),
        ParamType::Int | ParamType::Number | ParamType::Id => json!(1),
        ParamType::Bool => json!(true),
        ParamType::Object | ParamType::Keywords => json!({}),
        ParamType::Array | ParamType::Rest => json!([]),
    }
}
