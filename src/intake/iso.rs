//! ISO 8601 as Python writes and reads it. Instants are UTC; a time without an offset is taken as UTC, which is what
//! Celery does with an app whose timezone was not set.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};

/// A parsed date and time, and its distance from UTC if it had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) local: NaiveDateTime,
    pub(crate) offset: Option<TimeDelta>,
}

impl Stamp {
    /// Reads `2030-01-02`, `2030-01-02T03:04`, `2030-01-02 03:04:05.678901+00:00`, `20300102T030405Z` and what lies
    /// between. Digits after the sixth of a second are dropped, as Python does. `None` if it is none of these.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (date, rest) = date(text)?;
        if rest.is_empty() {
            return Some(Self { local: date.and_time(NaiveTime::MIN), offset: None });
        }
        let separator = rest.chars().next().filter(|first| matches!(first, 'T' | 't' | ' '))?;
        let (local, offset) = time_and_offset(&rest[separator.len_utf8()..])?;
        let local = match local {
            Clock::Time(time) => date.and_time(time),
            Clock::Midnight => date.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN),
        };
        Some(Self { local, offset })
    }

    /// Milliseconds since 1970 in UTC, rounded up so that nothing starts early.
    pub(crate) fn unix_millis(self) -> Option<i64> {
        let utc = self.local.checked_sub_signed(self.offset.unwrap_or_default())?.and_utc();
        let rest = i64::from(utc.timestamp_subsec_micros() % 1000 > 0);
        Some(utc.timestamp_millis() + rest)
    }

    /// `datetime.isoformat()`.
    pub(crate) fn isoformat(self) -> String {
        let offset = self.offset.map(offset_text).unwrap_or_default();
        let mut text = date_text(self.local.date());
        text.push('T');
        push_time(&mut text, self.local.time());
        text + &offset
    }
}

/// A time of day with its offset, `time.isoformat()` reversed.
pub(crate) fn parse_time(text: &str) -> Option<(NaiveTime, Option<TimeDelta>)> {
    match time_and_offset(text)? {
        (Clock::Time(time), offset) => Some((time, offset)),
        (Clock::Midnight, _) => None,
    }
}

/// `time.isoformat()`.
pub(crate) fn time_isoformat(time: NaiveTime, offset: Option<TimeDelta>) -> String {
    time_text(time) + &offset.map(offset_text).unwrap_or_default()
}

/// An instant as Celery writes it in `date_done`: `2026-11-23T10:34:57.158956+00:00`.
pub(crate) fn celery(instant: DateTime<Utc>) -> String {
    Stamp { local: instant.naive_utc(), offset: Some(TimeDelta::zero()) }.isoformat()
}

/// An instant as RQ writes it: `2026-11-23T10:33:06.003946Z`, always six digits.
pub(crate) fn rq(instant: DateTime<Utc>) -> String {
    let mut text = date_text(instant.date_naive());
    text.push('T');
    push_clock(&mut text, instant.time());
    push_micros(&mut text, instant.time());
    text.push('Z');
    text
}

/// An instant as RQ writes it, read.
pub(crate) fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let stamp = Stamp::parse(text)?;
    Some(stamp.local.checked_sub_signed(stamp.offset.unwrap_or_default())?.and_utc())
}

enum Clock {
    Time(NaiveTime),
    /// `24:00`, the end of the day.
    Midnight,
}

fn date(text: &str) -> Option<(NaiveDate, &str)> {
    let (year, rest) = number(text, 4)?;
    let dash = if rest.starts_with('-') { "-" } else { "" };
    let (month, rest) = number(rest.strip_prefix(dash)?, 2)?;
    let (day, rest) = number(rest.strip_prefix(dash)?, 2)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day).filter(|_| year > 0)?;
    Some((date, rest))
}

fn time_and_offset(text: &str) -> Option<(Clock, Option<TimeDelta>)> {
    let zone = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone);
    let offset = match zone {
        "" => None,
        "Z" | "z" => Some(TimeDelta::zero()),
        signed => Some(offset(signed)?),
    };
    Some((time(clock)?, offset))
}

fn time(text: &str) -> Option<Clock> {
    let parts = ClockParts::parse(text)?;
    if parts.hour == 24 && (parts.minute, parts.second, parts.micros) == (0, 0, 0) {
        return Some(Clock::Midnight);
    }
    NaiveTime::from_hms_micro_opt(parts.hour, parts.minute, parts.second, parts.micros).map(Clock::Time)
}

fn offset(text: &str) -> Option<TimeDelta> {
    let (sign, digits) = text.split_at(1);
    let ClockParts { hour, minute, second, micros } = ClockParts::parse(digits)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    let ahead = TimeDelta::seconds(seconds) + TimeDelta::microseconds(i64::from(micros));
    Some(if sign == "-" { -ahead } else { ahead })
}

struct ClockParts {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

impl ClockParts {
    /// `HH`, `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`, with or without the colons.
    fn parse(text: &str) -> Option<Self> {
        let (hour, rest) = number(text, 2)?;
        let colon = if rest.starts_with(':') { ":" } else { "" };
        let (minute, rest) = Self::next(rest, colon)?;
        let (second, rest) = Self::next(rest, colon)?;
        let micros = if rest.is_empty() { 0 } else { micros(rest.strip_prefix(['.', ','])?)? };
        Some(Self { hour, minute, second, micros })
    }

    fn next<'a>(text: &'a str, colon: &str) -> Option<(u32, &'a str)> {
        if text.is_empty() || text.starts_with(['.', ',']) {
            return Some((0, text));
        }
        number(text.strip_prefix(colon)?, 2)
    }
}

fn micros(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<6}")[..6].parse().ok()
}

/// Exactly `width` digits and what follows them.
fn number(text: &str, width: usize) -> Option<(u32, &str)> {
    let digits = text.get(..width).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((digits.parse().ok()?, &text[width..]))
}

// By hand, because every answer holds such texts, and reading a pattern each time takes ten times as long.

/// `2030-01-02`, for the years that Python knows.
fn date_text(date: NaiveDate) -> String {
    let mut text = String::with_capacity(32);
    push_digits(&mut text, date.year().unsigned_abs(), 4);
    text.push('-');
    push_digits(&mut text, date.month(), 2);
    text.push('-');
    push_digits(&mut text, date.day(), 2);
    text
}

fn time_text(time: NaiveTime) -> String {
    let mut text = String::new();
    push_time(&mut text, time);
    text
}

/// With microseconds only if there are any.
fn push_time(text: &mut String, time: NaiveTime) {
    push_clock(text, time);
    if time.nanosecond() / 1000 > 0 {
        push_micros(text, time);
    }
}

fn push_clock(text: &mut String, time: NaiveTime) {
    push_digits(text, time.hour(), 2);
    text.push(':');
    push_digits(text, time.minute(), 2);
    text.push(':');
    push_digits(text, time.second(), 2);
}

fn push_micros(text: &mut String, time: NaiveTime) {
    text.push('.');
    push_digits(text, time.nanosecond() / 1000 % 1_000_000, 6);
}

fn push_digits(text: &mut String, number: u32, width: u32) {
    for place in (0..width).rev() {
        text.push(char::from(b'0' + (number / 10u32.pow(place) % 10) as u8));
    }
}

/// `+HH:MM`, with seconds and microseconds only where there are any.
fn offset_text(offset: TimeDelta) -> String {
    let sign = if offset < TimeDelta::zero() { '-' } else { '+' };
    let ahead = offset.abs();
    let (seconds, micros) = (ahead.num_seconds(), ahead.subsec_micros());
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 > 0 || micros > 0 {
        text.push_str(&format!(":{:02}", seconds % 60));
    }
    if micros > 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_is_the_instant_it_means() {
        let new_year = 1_893_456_000_000;
        let cases = [
            ("2030-01-01T00:00:00+00:00", new_year),
            ("2030-01-01T00:00:00Z", new_year),
            ("2030-01-01T00:00:00", new_year),
            ("2030-01-01 00:00", new_year),
            ("2030-01-01", new_year),
            ("20300101T000000Z", new_year),
            ("2029-12-31T24:00:00", new_year),
            ("2029-12-31T19:00:00-05:00", new_year),
            ("2030-01-01T05:30:00+0530", new_year),
            ("2030-01-01T01:00:00.000+01", new_year),
            ("2030-01-01T00:00:00.5", new_year + 500),
            ("2030-01-01T00:00:00.678901+00:00", new_year + 679),
            ("2030-01-01T00:00:00.678000999+00:00", new_year + 678),
            ("1969-12-31T23:59:59.999500Z", 0),
        ];
        for (text, millis) in cases {
            assert_eq!(Stamp::parse(text).and_then(Stamp::unix_millis), Some(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "tomorrow",
            "2030",
            "2030-13-01",
            "2030-02-30",
            "2030-01-01T",
            "2030-01-01T25:00",
            "0000-01-01",
            "2030-01-01T00:00:60",
            "2030-01-01T00:00:00+25:00",
            "2030-01-01T00:00:00.",
            "2030-01-01X00:00",
            "2030-1-1",
            "2030-01-01T00:00:00Zjunk",
            "é030-01-01",
            "2030-01-01Té",
            "2030-01-01T00:00:00+é",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn python_reads_back_what_is_written() {
        for text in [
            "2024-05-06T07:08:09",
            "2024-05-06T07:08:09.123456",
            "2024-05-06T07:08:09+00:00",
            "2024-05-06T07:08:09.000001-05:30",
            "0001-01-01T00:00:00+00:00:01",
            "9999-12-31T23:59:59.999999-23:59:59.000001",
        ] {
            assert_eq!(Stamp::parse(text).expect(text).isoformat(), text);
        }
        let instant = parse_instant("2026-11-23T10:33:06.003946Z").expect("RQ's own form");
        assert_eq!(rq(instant), "2026-11-23T10:33:06.003946Z");
        assert_eq!(celery(instant), "2026-11-23T10:33:06.003946+00:00");
    }
}
