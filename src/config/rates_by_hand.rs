//! Other rates for one task than the file gives it.

use std::sync::Arc;

use super::{Config, Limit, LimitError, Limits, Points, Rate};
use crate::job::TaskName;

impl Config {
    /// The same configuration in which no more of the task's jobs start than these rates allow, counted in each queue by
    /// itself and over all nodes as every limit is; without any, as many as there are. Its limits by key, and how many of
    /// them may run at once, stay as they are.
    ///
    /// # Errors
    /// [`LimitError`] when a job of the task takes more points than that: none could ever start.
    pub(crate) fn with_rates(&self, task: &TaskName, rates: &[Rate]) -> Result<Self, LimitError> {
        let mut config = self.clone();
        let Some(changed) = config.tasks.get_mut(task) else { return Ok(config) };
        let limits = &mut Arc::make_mut(changed).limits;
        let points = limits.iter().find(|limit| limit.key.is_none()).map(|limit| limit.points.clone());
        match limits.iter_mut().find(|limit| limit.key.is_none()) {
            Some(limit) => limit.rates = rates.to_vec(),
            None => limits.push(Limit {
                task: Some(task.clone()),
                key: None,
                concurrency: None,
                rates: rates.to_vec(),
                points: Points::Each(1),
            }),
        }
        limits.retain(|limit| limit.concurrency.is_some() || !limit.rates.is_empty());
        if let (Some(Points::Each(points)), Some(bound)) = (points, rates.iter().map(|rate| rate.points).min())
            && points > bound
        {
            return Err(LimitError::TooMany { limit: task.to_string(), points, bound });
        }
        let of_task = limits.clone();
        for queue in config.queues.values_mut() {
            let fair_by = queue.limits.fair_by.clone();
            let others = queue.limits.all.iter().filter(|limit| limit.task.as_ref() != Some(task));
            let all = others.chain(&of_task).cloned().collect();
            Arc::make_mut(queue).limits = Limits::new(fair_by, all);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::parse;

    const TEXT: &str = "[queues.calls]\nlimit = { concurrency = 9 }\n[queues.other]\n\
        [tasks.free]\nqueue = \"calls\"\nprobe = \"noop\"\n\
        [tasks.call]\nqueue = \"calls\"\nprobe = \"noop\"\nparams = { user = \"id\" }\n\
        limit = [{ concurrency = 2, rate = \"5/s\", points = 2 }, { key = \"{{ user }}\", rate = \"1/h\" }]\n";

    fn names(config: &Config, queue: &str) -> Vec<(String, Vec<u64>)> {
        let queue = config.queues.values().find(|one| one.name.as_str() == queue).expect("it is there");
        let points = |limit: &Limit| limit.rates.iter().map(|rate| rate.points).collect();
        queue.limits.all.iter().map(|limit| (limit.name(), points(limit))).collect()
    }

    fn rate(points: u64) -> Rate {
        Rate { points, window: Duration::from_secs(60) }
    }

    #[test]
    fn only_the_rates_of_all_jobs_of_the_task_change_in_every_queue() {
        let config = parse(TEXT, Path::new("jobsd.toml"), &|_| None, &[]).expect("it is valid").config;
        let of = |text: &str, points: &[u64]| (text.to_owned(), points.to_vec());
        let task = |name: &str| config.tasks.keys().find(|one| one.as_str() == name).expect("it is there").clone();
        let with = |name: &str, rates: &[Rate]| config.with_rates(&task(name), rates);

        let limited = with("free", &[rate(7)]).expect("it fits");
        assert_eq!(names(&limited, "other"), [of("call", &[5]), of("call/user", &[1]), of("free", &[7])]);
        assert_eq!(names(&limited, "calls")[0], of("*", &[]));
        let again = limited.with_rates(&task("free"), &[]).expect("it fits");
        assert_eq!((&again.queues, &again.tasks), (&config.queues, &config.tasks), "as if nothing had been said");

        let slower = with("call", &[rate(4)]).expect("it fits");
        assert_eq!(names(&slower, "calls"), [of("*", &[]), of("call", &[4]), of("call/user", &[1])]);
        let free = with("call", &[]).expect("it fits");
        assert_eq!(names(&free, "calls"), [of("*", &[]), of("call", &[]), of("call/user", &[1])]);
        let error = with("call", &[rate(1)]).expect_err("a job takes two points").to_string();
        assert!(error.contains("2 points") && error.contains("no more than 1"), "{error}");
    }
}
