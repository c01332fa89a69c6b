//! What a mail template looks up when it is rendered, with all that it extends and includes: so that a name which no task
//! gives it is told by `jobsd check`, and not by the first mail that is not sent.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::Environment;

use super::templates::TemplatesError;

/// Names that the template language gives by itself.
const GIVEN: [&str; 4] = ["loop", "self", "super", "caller"];

/// Every name that rendering `file` may look up, with the field where one follows (`vars.base_url`), and the file that
/// does. Names that a template asks about before it uses them are left out.
///
/// # Errors
/// [`TemplatesError`] when it names a template that is not there.
pub(super) fn lookups(environment: &Environment<'_>, file: &str) -> Result<BTreeMap<String, String>, TemplatesError> {
    let functions: BTreeSet<&str> = environment.globals().map(|(name, _)| name).chain(GIVEN).collect();
    let (mut found, mut seen, mut left) = (BTreeMap::new(), BTreeSet::new(), vec![file.to_owned()]);
    while let Some(file) = left.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let Ok(template) = environment.get_template(&file) else { continue };
        for name in template.undeclared_variables(true) {
            let root = name.split('.').next().unwrap_or_default();
            if !functions.contains(root) && !is_asked_about(template.source(), &name) {
                found.insert(name, file.clone());
            }
        }
        for (name, must_exist) in references(template.source()) {
            match environment.get_template(name) {
                Ok(_) => left.push(name.to_owned()),
                Err(_) if must_exist => return Err(TemplatesError::Reference { file, name: name.to_owned() }),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// The templates that a source names by a text, and whether each must be there. One that is computed cannot be known.
fn references(source: &str) -> impl Iterator<Item = (&str, bool)> {
    source.split("{%").skip(1).filter_map(|rest| {
        let tag = rest.split("%}").next()?.trim_start_matches(['-', '+']).trim_start();
        let (verb, rest) = tag.split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let name = rest[1..].split(quote).next()?;
        let known = ["extends", "include", "import", "from"].contains(&verb);
        known.then(|| (name, !tag.contains("ignore missing")))
    })
}

/// `name | default(…)`, `name is defined`, `name is not defined`.
fn is_asked_about(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let rest = source[at + name.len()..].trim_start();
        let filtered = rest.strip_prefix('|').is_some_and(|rest| rest.trim_start().starts_with("default"));
        let tested = rest.strip_prefix("is ").is_some_and(|rest| {
            let rest = rest.trim_start();
            let rest = rest.strip_prefix("not ").unwrap_or(rest).trim_start();
            rest.starts_with("defined") || rest.starts_with("undefined")
        });
        filtered || tested
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(files: &[(&'static str, &'static str)]) -> Environment<'static> {
        let mut environment = Environment::new();
        for (name, source) in files {
            environment.add_template(name, source).expect("it parses");
        }
        environment
    }

    #[test]
    fn names_are_found_through_layouts_and_includes() {
        let environment = environment(&[
            (
                "layout",
                "{{ vars.site }} {% block a %}{% endblock %} {%- include 'foot' %}{% macro m(x) %}{{ x }}{% endmacro %}",
            ),
            ("foot", "{{ year }} {% include 'extra' ignore missing %}"),
            (
                "mail",
                "{% extends \"layout\" %}{% from 'layout' import m %}{% block a %}{{ m(user.name) }}{{ super() }}\
                 {% for x in items %}{{ loop.index }}{{ x }}{% endfor %}{% set y = range(3) %}{{ y }}\
                 {{ nick | default('you') }}{% if title is defined %}{{ title }}{% endif %}{% endblock %}",
            ),
        ]);
        let found = lookups(&environment, "mail").expect("all are there");
        let found: Vec<(&str, &str)> = found.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
        assert_eq!(found, [("items", "mail"), ("user.name", "mail"), ("vars.site", "layout"), ("year", "foot")]);
    }

    #[test]
    fn a_layout_that_is_not_there_is_told() {
        let environment = environment(&[("mail", "{% extends 'none' %}")]);
        let error = lookups(&environment, "mail").expect_err("it is missing").to_string();
        assert_eq!(error, "read the mail template mail: it names `none`, which is not there");
    }
}
