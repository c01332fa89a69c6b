//! Hostile arguments in templates: they are texts and nothing else, and no rendering takes long or grows large.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Template, ValueTemplate};
use crate::testing::dice::{Dice, hostile};

const PIECES: [&str; 32] = [
    "{{ vars.secret }}",
    "{{ x }}",
    "{{",
    "}}",
    "{%",
    "%}",
    "{% raw %}",
    "{% endraw %}",
    "{#",
    "#}",
    "{% include 'layout.html' %}",
    "{% for a in range(99999) %}x{% endfor %}",
    "{{ self }}",
    "{{ 7 * 7 }}",
    "{{ x.__class__ }}",
    "${HOME}",
    "%s",
    "{0}",
    "\\",
    "\"",
    "'",
    "<script>",
    "&amp;",
    "</p>",
    "\r\nBcc: a@b.test\r\n",
    "\n",
    "\u{0}",
    "\u{202e}",
    "😀",
    "ü",
    "../",
    "a",
];

/// The templates, and around the argument what they write.
const TEMPLATES: [(&str, &str, &str); 5] = [
    ("{{ x }}!", "", "!"),
    ("Hello, {{ x }}{% if x %}.{% endif %}", "Hello, ", "."),
    ("{% for y in [x] %}[{{ y }}]{% endfor %}", "[", "]"),
    ("{% set y = x %}{{ '{{' }}{{ y ~ '' }}", "{{", ""),
    ("{{ (x | string) | default('none') }} {{ '{{ x }}' }}", "", " {{ x }}"),
];

#[test]
fn hostile_arguments_are_texts_in_templates() {
    let mut dice = Dice::new();
    let count = hostile(10_000).end;
    let templates =
        TEMPLATES.map(|(source, before, after)| (Template::parse(source).expect("it parses"), before, after));
    let table = json!({"a": "{{ x }}", "b": ["<{{ x }}>"], "{{ x }}": "plain"});
    let table = ValueTemplate::parse(table).expect("it parses");
    for n in 0..count {
        let mut x = dice.text(&PIECES);
        x.push_str(if x.is_empty() { "a" } else { "" });
        let context = json!({"x": x, "vars": {"secret": "s3cret"}});
        let (template, before, after) = &templates[n % templates.len()];
        let rendered = template.render(&context).unwrap_or_else(|error| panic!("{x:?}: {error}"));
        assert_eq!(rendered, format!("{before}{x}{after}"));
        let values = table.render(&context).expect("it renders");
        assert_eq!(values, json!({"a": x, "b": [format!("<{x}>")], "{{ x }}": "plain"}), "keys are no templates");
    }
    println!("{count} hostile arguments: each was written as it was");
}

/// Arguments that make a template do much, grow large or go deep.
fn bombs(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let n = dice.one_of(&[1_i64 << 20, 99_999_999, 1 << 31, 1 << 40, i64::MAX, -1]);
    let many = vec![json!("y"); 20_000 + dice.below(20_000)];
    let mut deep = json!("core");
    // No deeper than JSON is read.
    for _ in 0..dice.below(128) {
        deep = if dice.below(2) == 0 { json!([deep]) } else { json!({"d": deep}) };
    }
    let long = "<x>\n".repeat(50_000 + dice.below(200_000));
    vec![
        ("{% for a in range(n) %}{% for b in range(n) %}x{% endfor %}{% endfor %}", json!({"n": n})),
        ("{% for a in range(9999) %}{{ x }}{% endfor %}", json!({"x": long})),
        ("{% for a in many %}{% for b in many %}{{ b }}{% endfor %}{% endfor %}", json!({"many": many})),
        ("{{ x * n }}", json!({"x": dice.text(&PIECES), "n": n})),
        ("{{ ([1] * n) | length }}", json!({"n": n})),
        ("{{ [1] * n }}", json!({"n": n})),
        ("{{ x | indent(n) }}", json!({"x": long, "n": n})),
        ("{{ x | replace('<', x) }}", json!({"x": long})),
        ("{{ many | join(x) }}", json!({"x": long, "many": many})),
        ("{{ x | batch(n) | list }}", json!({"x": many, "n": n})),
        ("{{ x | slice(n) | list }}", json!({"x": many, "n": n})),
        ("{{ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x }}", json!({"x": long})),
        (
            "{% set ns = namespace(t=x) %}{% for a in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t | length }}",
            json!({"x": "ab"}),
        ),
        ("{% macro f(i) %}{{ f(i + 1) }}{% endmacro %}{{ f(0) }}", json!({})),
        ("{{ deep }}", json!({"deep": deep})),
        ("{{ deep | tojson }}", json!({"deep": deep})),
        ("{{ deep == deep }} {{ [deep, deep] | unique | length }}", json!({"deep": deep})),
        ("{{ x | format(1) }}", json!({"x": dice.one_of(&["%0999999999d", "%999999999s", "%.999999999f", "%*d"])})),
        ("{{ '%*d' | format(n, 1) }}", json!({"n": n})),
        ("{{ n ** n }} {{ n * n * n }}", json!({"n": n})),
        ("{{ many | sort | unique | map('upper') | join }}", json!({"many": many})),
    ]
}

#[test]
fn no_template_takes_long_or_grows_large() {
    let mut dice = Dice::new();
    let rounds = (hostile(100).end / 100).clamp(1, 20);
    let (mut slowest, mut largest, mut refused, mut count) = ((Duration::ZERO, ""), (0, ""), 0, 0);
    for _ in 0..rounds {
        for (source, context) in bombs(&mut dice) {
            let template = Template::parse(source).unwrap_or_else(|error| panic!("{source}: {error}"));
            let start = Instant::now();
            let result = template.render(&context);
            slowest = slowest.max((start.elapsed(), source));
            largest = largest.max((result.as_ref().map_or(0, String::len), source));
            refused += usize::from(result.is_err());
            count += 1;
        }
    }
    println!("{count} renderings, {refused} refused; slowest {slowest:?}, largest {largest:?}");
    assert!(largest.0 < 32 << 20, "{largest:?}");
    // No measurement: what is not bounded takes minutes.
    assert!(slowest.0 < Duration::from_secs(60), "{slowest:?}");
}
