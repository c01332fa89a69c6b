//! `concurrency = { min, max }` under a step load: nothing, then 2,000 messages at once, then nothing.
//!
//! Prints the size and the backlog over time. With `JOBSD_STEP_LOAD=FILE` it goes on until the queue has its smallest size
//! again, which takes more than a minute, and writes the samples into FILE as CSV.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, push, until_within};

const JOBS: usize = 2000;
const MIN: u64 = 3;
const MAX: u64 = 10;
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    seconds: f64,
    size: u64,
    backlog: u64,
    active: u64,
    reason: String,
}

impl Sample {
    fn take(daemon: &Daemon, since: Instant) -> Self {
        let row = get(daemon.admin, "/api/v1/queues/step").json()["queue"].take();
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {row:#}"));
        let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let held = words(&row["scale"]["held"]);
        Self {
            seconds: since.elapsed().as_secs_f64(),
            size: number(&row["concurrency"]),
            backlog: number(&row["jobs"]["pending"]) + number(&row["lists"][0]["backlog"]),
            active: number(&row["jobs"]["active"]),
            reason: if held.is_empty() { words(&row["scale"]["reason"]) } else { format!("held: {held}") },
        }
    }
}

/// One line for each time that the size changed, and for each second.
fn plot(samples: &[Sample]) -> String {
    let mut out = String::from("    time  size                backlog\n");
    let mut last = (f64::MIN, 0);
    for sample in samples {
        if sample.size == last.1 && sample.seconds < last.0 + 1.0 {
            continue;
        }
        let reason = if sample.size == last.1 { "" } else { &sample.reason };
        last = (sample.seconds, sample.size);
        let slots = "#".repeat(usize::try_from(sample.size).unwrap_or_default());
        let waiting = "=".repeat(usize::try_from(sample.backlog.div_ceil(50)).unwrap_or_default());
        let _ = writeln!(
            out,
            "{:7.2}s  {:>2} {slots:<10}  {:>5} {waiting:<40}  {reason}",
            sample.seconds, sample.size, sample.backlog
        );
    }
    out
}

fn csv(samples: &[Sample]) -> String {
    let mut out = String::from("seconds,size,active,backlog,reason\n");
    for Sample { seconds, size, active, backlog, reason } in samples {
        let _ = writeln!(out, "{seconds:.3},{size},{active},{backlog},\"{reason}\"");
    }
    out
}

#[test]
fn a_step_load_goes_up_fast_and_comes_down_slowly() {
    let whole = std::env::var("JOBSD_STEP_LOAD").ok();
    let redis = Redis::start();
    let home = Home::new(
        &redis,
        "[queues.step]\nwires = [\"celery\"]\nconcurrency = { min = 3, max = 10 }\n\
         [tasks.step]\nnames = [\"app.step\"]\nqueue = \"step\"\nparams = { seconds = \"number\" }\nprobe = \"sleep\"\n",
    );
    let daemon = home.start();
    let (start, mut samples) = (Instant::now(), Vec::new());
    let sample = |samples: &mut Vec<Sample>| {
        samples.push(Sample::take(&daemon, start));
        std::thread::sleep(EVERY);
    };
    (0..4).for_each(|_| sample(&mut samples));
    assert!(samples.iter().all(|sample| sample.size == MIN), "{samples:#?}");
    let mut client = redis.client();
    (0..JOBS).for_each(|_| drop(push(&mut client, "step", "app.step", &json!({"seconds": 0.05}))));
    let mut jobs = Jobs::of(&redis, "step");
    until_within(Duration::from_secs(180), "the load to be done", || {
        sample(&mut samples);
        (jobs.count("completed") == JOBS).then_some(())
    });
    let top = samples.iter().map(|sample| sample.size).max().expect("there are samples");
    let floor = if whole.is_some() { MIN } else { top - 1 };
    until_within(Duration::from_secs(180), "it to come down", || {
        sample(&mut samples);
        samples.last().is_some_and(|sample| sample.size <= floor).then_some(())
    });
    println!("{}", plot(&samples));
    if let Some(file) = whole {
        std::fs::write(&file, csv(&samples)).expect("the file can be written");
    }

    assert!(samples.iter().all(|sample| (MIN..=MAX).contains(&sample.size)), "it left its bounds");
    let sizes: Vec<u64> = samples.iter().map(|sample| sample.size).collect();
    let turn = sizes.iter().position(|size| *size == top).expect("it has a top");
    assert!(
        sizes[..turn].is_sorted() && sizes[turn..].iter().rev().is_sorted(),
        "it went up once and down once: {sizes:?}"
    );
    // A machine that is too busy holds it back, and says so.
    let held = samples.iter().any(|sample| sample.reason.contains("waits for the CPU"));
    assert!(top == MAX || held, "it came to {top} only");
    assert!(daemon.log().contains("jobs wait and all slots are in use"), "each step is logged with its reason");
    let metrics = get(daemon.admin, "/metrics").body;
    for (name, value) in [("slots", sizes[sizes.len() - 1]), ("slots_min", MIN), ("slots_max", MAX)] {
        assert!(metrics.contains(&format!("jobsd_{name}{{queue=\"step\"}} {value}\n")), "{name} in {metrics}");
    }
}
