//! Two columns of what clients saw, row by row.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a check saw.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) seen: Value,
}

impl Row {
    /// The lines of a suite.
    #[track_caller]
    pub(super) fn read(lines: Vec<Value>) -> Vec<Self> {
        let row = |line: Value| Self {
            name: line["row"].as_str().expect("a row has a name").to_owned(),
            seen: line["seen"].clone(),
        };
        lines.into_iter().map(row).collect()
    }
}

/// Prints both columns and panics when a row differs without a reason, or has a reason and does not differ.
#[track_caller]
pub(super) fn compare(suite: &str, real: &[Row], ours: &[Row], differences: &[(&str, &str)]) {
    let reasons: BTreeMap<&str, &str> = differences.iter().copied().collect();
    let names = |rows: &[Row]| rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(real), names(ours), "{suite}: both columns have the same rows");
    let (mut equal, mut wrong) = (0, Vec::new());
    println!("{suite}: {} rows, the real workers and jobsd", real.len());
    for (real, ours) in real.iter().zip(ours) {
        match (real.seen == ours.seen, reasons.get(real.name.as_str())) {
            (true, None) => {
                equal += 1;
                println!("  =  {:<48} {}", real.name, real.seen);
            }
            (false, Some(reason)) => {
                println!("  ~  {}: {reason}\n       real   {}\n       jobsd  {}", real.name, real.seen, ours.seen);
            }
            (same, _) => {
                println!("  !  {}\n       real   {}\n       jobsd  {}", real.name, real.seen, ours.seen);
                wrong.push(format!("{}{}", real.name, if same { ": is equal and has a reason" } else { "" }));
            }
        }
    }
    println!("{suite}: {equal} equal, {} explained", real.len() - equal - wrong.len());
    assert!(wrong.is_empty(), "{suite}: {} rows differ without a reason: {}", wrong.len(), wrong.join("; "));
}
