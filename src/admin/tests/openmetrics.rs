//! A reader of OpenMetrics text that is stricter than most scrapers: it refuses what the standard forbids.

use std::collections::{BTreeMap, BTreeSet};

/// Every sample by its name and labels, as written. `Err` names the first line that breaks a rule.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end in # EOF")?;
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut current: Option<(String, String)> = None;
    for line in body.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let parts: Vec<&str> = comment.splitn(3, ' ').collect();
            let [what, family, rest] = parts[..] else { return Err(wrong("a comment of too few parts")) };
            let open = current.as_ref().is_some_and(|(name, _)| name == family);
            match what {
                _ if !is_name(family) => return Err(wrong("not a name")),
                "HELP" | "TYPE" | "UNIT" if !open && !families.insert(family.to_owned()) => {
                    return Err(wrong("a family that was there before"));
                }
                "HELP" if !open => current = Some((family.to_owned(), String::new())),
                "TYPE" => current = Some((family.to_owned(), rest.to_owned())),
                "UNIT" if family.ends_with(&format!("_{rest}")) => {}
                "HELP" | "UNIT" => return Err(wrong("out of place")),
                _ => return Err(wrong("an unknown comment")),
            }
            continue;
        }
        let (series, value) = split(line).ok_or_else(|| wrong("not a sample"))?;
        let (family, kind) = current.as_ref().ok_or_else(|| wrong("a sample before its family"))?;
        let name = series.split('{').next().unwrap_or_default();
        let suffix = name.strip_prefix(family.as_str()).ok_or_else(|| wrong("a sample of another family"))?;
        let fits = match kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            "info" => suffix == "_info",
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => return Err(wrong("an unknown type")),
        };
        if !fits {
            return Err(wrong("a suffix that does not fit the type"));
        }
        let value: f64 = value.parse().map_err(|_| wrong("not a number"))?;
        if samples.insert(series.to_owned(), value).is_some() {
            return Err(wrong("a series that was there before"));
        }
    }
    Ok(samples)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name{label="value"} number`; a quoted value may hold anything, escaped.
fn split(line: &str) -> Option<(&str, &str)> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return is_name(name).then_some((name, value));
    };
    let mut rest = rest;
    loop {
        let (label, tail) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = tail.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        let next = tail[end + 1..].chars().next()?;
        if !is_name(label) || !is_name(name) {
            return None;
        }
        rest = &tail[end + 2..];
        match next {
            ',' => {}
            '}' => return Some((&line[..line.len() - rest.len()], rest.strip_prefix(' ')?)),
            _ => return None,
        }
    }
}

#[test]
fn the_reader_refuses_what_is_wrong() {
    let good =
        "# HELP a_b Text.\n# TYPE a_b counter\na_b_total{x=\"1,\\\"}\",y=\"\"} 3\n# TYPE c gauge\nc 1.5\n# EOF\n";
    let samples = parse(good).expect("it is right");
    assert_eq!(samples.get("a_b_total{x=\"1,\\\"}\",y=\"\"}"), Some(&3.0));
    assert_eq!(samples.get("c"), Some(&1.5));
    for bad in [
        "",
        "# TYPE a gauge\na 1\n",
        "a 1\n# EOF\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a gauge\na one\n# EOF\n",
        "# TYPE a gauge\na 1\na 1\n# EOF\n",
        "# TYPE a gauge\n# TYPE b gauge\n# TYPE a gauge\n# EOF\n",
        "# TYPE a gauge\na{x=\"1} 1\n# EOF\n",
        "# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}
