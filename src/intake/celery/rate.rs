//! Rates as Celery writes them: `10/m`, `100/h`, `0.5/s`, or a number a second.
//!
//! Its worker lets one task start each so many seconds; ours counts starts in windows: `10/m` is no more than ten in any
//! minute, `0.5/s` one in any two seconds.

use std::time::Duration;

use serde_json::Value;

use crate::config::Rate;

/// The windows that a limit of ours may have.
const WINDOWS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
/// The most starts in one.
const MOST: f64 = 1_000_000.0;

/// What a client asks for; `None`: no limit.
///
/// # Errors
/// Why it is none, as Celery's worker says it.
pub(super) fn read(value: Option<&Value>) -> Result<Option<Rate>, String> {
    let (count, unit) = match value {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Number(number)) => (number.as_f64().unwrap_or(f64::NAN), 1.0),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => parse(text)?,
        Some(_) => return Err(invalid("it is a number and s, m or h, such as 10/m")),
    };
    if count == 0.0 {
        return Ok(None);
    }
    let points = count.floor().max(1.0);
    let window = unit * points / count;
    if !(1.0..=MOST).contains(&points) || !WINDOWS.contains(&window) {
        return Err(invalid("jobsd counts 1 to 1000000 starts in windows from a second to a day"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number within bounds")]
    let points = points as u64;
    Ok(Some(Rate { points, window: Duration::from_secs_f64(window) }))
}

/// How many in how many seconds.
fn parse(text: &str) -> Result<(f64, f64), String> {
    let (count, unit) = text.split_once('/').unwrap_or((text, ""));
    let unit = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(invalid("after the / stands s, m or h")),
    };
    let number = count.trim().parse::<f64>().ok().filter(|count| count.is_finite() && *count >= 0.0);
    number.map(|count| (count, unit)).ok_or_else(|| invalid("before the / stands a number"))
}

fn invalid(why: &str) -> String {
    format!("Invalid rate limit string: ValueError('{why}')")
}

/// The same as Celery writes it.
pub(super) fn write(rate: &Rate) -> String {
    let seconds = rate.window.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "it is at most a million")]
    let points = rate.points as f64;
    for (unit, letter) in [(1.0, 's'), (60.0, 'm'), (3600.0, 'h')] {
        let count = points * unit / seconds;
        if (count.round() - count).abs() < 1e-9 || letter == 'h' {
            return format!("{count}/{letter}");
        }
    }
    unreachable!("the last unit is always taken")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rate_is_read_as_celery_reads_it() {
        let rate = |value: Value| read(Some(&value)).expect("it is one").map(|rate| (rate.points, rate.window));
        let seconds = Duration::from_secs_f64;
        assert_eq!(rate(json!("10/m")), Some((10, seconds(60.0))));
        assert_eq!(rate(json!("100/h")), Some((100, seconds(3600.0))));
        assert_eq!(rate(json!("7")), Some((7, seconds(1.0))));
        assert_eq!(rate(json!(7)), Some((7, seconds(1.0))));
        assert_eq!(rate(json!("0.5/s")), Some((1, seconds(2.0))));
        assert_eq!(rate(json!("1.5/m")), Some((1, seconds(40.0))));
        for none in [json!(null), json!(""), json!(0), json!("0"), json!("0/m")] {
            assert_eq!(rate(none), None);
        }
        assert_eq!(read(None), Ok(None));
    }

    #[test]
    fn what_is_none_is_refused_in_words() {
        for (value, why) in [
            (json!("many/m"), "before the /"),
            (json!("-1/m"), "before the /"),
            (json!("10/d"), "after the /"),
            (json!("nan"), "before the /"),
            (json!(["10/m"]), "such as 10/m"),
            (json!(-3), "from a second to a day"),
            (json!("0.00001/s"), "from a second to a day"),
            (json!("2000000/s"), "from a second to a day"),
        ] {
            let error = read(Some(&value)).expect_err("it is none");
            assert!(error.starts_with("Invalid rate limit string: ") && error.contains(why), "{value}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["10/m", "100/h", "7/s", "30/m", "90/h"] {
            let rate = read(Some(&json!(text))).expect("it is one").expect("it limits");
            assert_eq!(write(&rate), text);
        }
        let slow = read(Some(&json!("0.5/s"))).expect("it is one").expect("it limits");
        assert_eq!(write(&slow), "30/m");
    }
}
