//! Cron entries become jobs: a tick each second, and for each schedule the fire that is next.
//!
//! tokio-cron-scheduler is the tick only: it fixes a schedule's offset from UTC when it is added, so it would be an hour
//! off after a clock change. The calendar is croner's, in the schedule's own time zone. A fire is claimed in Redis in
//! the same transition that enqueues its job, so any number of nodes may try.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeZone, Utc};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job as Tick, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Fired};
use crate::clock;
use crate::config::{CatchUp, Config, Overlap, Schedule};
use crate::job::{Job, JobId, Origin, Priority, Timestamp};

/// The scheduler of one node.
#[derive(Debug)]
pub(crate) struct Scheduler {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    /// The next fire of each schedule, with the schedule it was computed for.
    next: HashMap<String, (Arc<Schedule>, Option<Timestamp>)>,
}

impl Scheduler {
    pub(crate) fn new(broker: Arc<Broker>, config: Arc<ArcSwap<Config>>) -> Self {
        Self { broker, config, next: HashMap::new() }
    }

    /// Ticks until it is told to stop.
    ///
    /// # Errors
    /// When the tick cannot be set up.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), JobSchedulerError> {
        let tick = Arc::new(Notify::new());
        let mut ticker = JobScheduler::new().await?;
        let told = Arc::clone(&tick);
        ticker.add(Tick::new_repeated(Duration::from_secs(1), move |_, _| told.notify_one())?).await?;
        ticker.start().await?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return ticker.shutdown().await,
                () = tick.notified() => self.pass(clock::now()).await,
            }
        }
    }

    /// Fires what is due at `now`. A fire that did not get through stays due and is tried again with the next tick.
    async fn pass(&mut self, now: Timestamp) {
        let config = self.config.load_full();
        self.next.retain(|name, (schedule, _)| config.schedules.get(name).is_some_and(|s| Arc::ptr_eq(s, schedule)));
        for (name, schedule) in &config.schedules {
            if let Err(error) = self.pass_one(name, schedule, now).await {
                tracing::debug!(schedule = %name, "its fire must wait: {error}");
            }
        }
    }

    async fn pass_one(&mut self, name: &str, schedule: &Arc<Schedule>, now: Timestamp) -> Result<(), BrokerError> {
        if !self.next.contains_key(name) {
            let last = self.broker.last_fire(&schedule.queue, name, now).await?;
            let first = first_fire(schedule, last, now);
            self.next.insert(name.to_owned(), (Arc::clone(schedule), first));
        }
        let Some(fire) = self.next.get(name).and_then(|(_, next)| *next).filter(|fire| *fire <= now) else {
            return Ok(());
        };
        let job = self.job(schedule, fire, now);
        match self.broker.fire(name, fire, &job, schedule.overlap == Overlap::Skip).await? {
            Fired::Enqueued => tracing::info!(schedule = %name, job = %job.id, "fired"),
            Fired::DoneBefore => {}
            Fired::Overlaps => tracing::info!(schedule = %name, %fire, "left out: the previous job has not ended"),
            Fired::Held(holder) => {
                tracing::info!(schedule = %name, %fire, "left out: its unique key is held by {holder}");
            }
        }
        self.next.insert(name.to_owned(), (Arc::clone(schedule), following(schedule, fire.max(now))));
        Ok(())
    }

    /// The job of a fire, by the rules of its task.
    fn job(&self, schedule: &Schedule, fire: Timestamp, now: Timestamp) -> Job {
        let mut job = job(schedule, fire, now);
        let config = self.config.load();
        let Some(task) = config.tasks.get(&schedule.task) else { return job };
        job.buckets = config.buckets(&job.queue, &job.task, &job.args).unwrap_or_else(|error| {
            // There is nobody to refuse it to: a fire is not left out for this.
            tracing::warn!(schedule = %schedule.name, "its job is not held to its limits: {error}");
            Vec::new()
        });
        job.unique = task.unique_of(&job.args, &config.vars).unwrap_or_else(|error| {
            tracing::error!(schedule = %schedule.name, "its job is enqueued without a unique key: {error}");
            None
        });
        job.due = job.unique.as_ref().and_then(|unique| unique.rule.wait()).map(|wait| now.after(wait));
        job.expires = task.expiry(job.due.unwrap_or(now));
        job
    }
}

fn job(schedule: &Schedule, fire: Timestamp, now: Timestamp) -> Job {
    let id = format!("cron:{}:{}", schedule.name, fire.as_millis());
    Job {
        id: JobId::parse(&id).expect("a schedule's name and digits"),
        queue: schedule.queue.clone(),
        task: schedule.task.clone(),
        buckets: Vec::new(),
        args: schedule.args.clone(),
        origin: Origin::Schedule { name: schedule.name.clone(), fire },
        enqueued_at: now,
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

/// The fire to wait for when a schedule is first seen: one that was missed, or the next one.
fn first_fire(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let missed = match schedule.catch_up {
        CatchUp::Last => latest_missed(schedule, last, now),
        CatchUp::None => None,
    };
    missed.or_else(|| following(schedule, now))
}

/// The latest fire after `last` and up to `now`. Searches backwards, so a long outage costs no more than a short one.
fn latest_missed(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let zoned = schedule.timezone.from_utc_datetime(&now.to_utc().naive_utc());
    let latest = timestamp(&schedule.cron.find_previous_occurrence(&zoned, true).ok()?)?;
    (latest > last).then_some(latest)
}

/// The next fire after `at`; `None` when the expression has no further one.
fn following(schedule: &Schedule, at: Timestamp) -> Option<Timestamp> {
    let zoned = schedule.timezone.from_utc_datetime(&at.to_utc().naive_utc());
    timestamp(&schedule.cron.find_next_occurrence(&zoned, false).ok()?)
}

/// In whole seconds: croner hands the fraction of the instant it searched from on to the occurrence it found, and a fire
/// with a fraction would be another one on every node.
fn timestamp<Z: TimeZone>(at: &DateTime<Z>) -> Option<Timestamp> {
    let seconds = u64::try_from(at.with_timezone(&Utc).timestamp()).ok()?;
    Some(Timestamp::from_millis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::job::{Args, QueueName, TaskName};

    fn schedule(cron: &str, timezone: chrono_tz::Tz, catch_up: CatchUp) -> Schedule {
        Schedule {
            name: "nightly".to_owned(),
            cron: croner::Cron::from_str(cron).expect("a valid expression"),
            expression: cron.to_owned(),
            timezone,
            task: TaskName::parse("cleanup").expect("a valid name"),
            queue: QueueName::parse("emails").expect("a valid name"),
            args: Args::new(),
            overlap: Overlap::Skip,
            catch_up,
        }
    }

    fn at(text: &str) -> Timestamp {
        let instant = DateTime::parse_from_rfc3339(text).expect("a valid instant");
        Timestamp::from_millis(u64::try_from(instant.timestamp_millis()).expect("after 1970"))
    }

    #[test]
    fn a_daily_fire_keeps_its_local_hour_over_a_clock_change() {
        let daily = schedule("0 3 * * *", chrono_tz::America::Nassau, CatchUp::Last);
        // Nassau leaves daylight saving time on 2026-11-01: 03:00 is 07:00 UTC before and 08:00 UTC after.
        assert_eq!(following(&daily, at("2026-10-30T12:00:00Z")), Some(at("2026-10-31T07:00:00Z")));
        assert_eq!(following(&daily, at("2026-11-01T12:00:00Z")), Some(at("2026-11-02T08:00:00Z")));
    }

    #[test]
    fn a_fire_is_the_same_instant_whenever_it_is_looked_for() {
        let daily = schedule("0 3 * * *", chrono_tz::UTC, CatchUp::Last);
        let last = at("2026-11-20T03:00:00Z");
        for now in ["2026-11-23T03:00:00.075Z", "2026-11-23T12:00:00.117Z", "2026-11-23T12:00:00Z"] {
            assert_eq!(first_fire(&daily, last, at(now)), Some(at("2026-11-23T03:00:00Z")), "{now}");
            assert_eq!(following(&daily, at(now)), Some(at("2026-11-24T03:00:00Z")), "{now}");
        }
    }

    #[test]
    fn an_outage_of_three_days_is_caught_up_once() {
        let daily = schedule("0 3 * * *", chrono_tz::UTC, CatchUp::Last);
        let (last, now) = (at("2026-11-20T03:00:00Z"), at("2026-11-23T12:00:00Z"));
        assert_eq!(first_fire(&daily, last, now), Some(at("2026-11-23T03:00:00Z")));
        let none = schedule("0 3 * * *", chrono_tz::UTC, CatchUp::None);
        assert_eq!(first_fire(&none, last, now), Some(at("2026-11-24T03:00:00Z")));
    }
}
