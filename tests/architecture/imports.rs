//! Which modules of the crate a source file names: every `crate::…`, `super::…` and `self::…` path, in `use` or anywhere
//! else, followed to the top-level module it leads into.

use std::collections::BTreeSet;

use crate::source::{Kind, Token};

/// The module of the crate root, where `src/main.rs` stands.
pub(crate) const ROOT: &str = "main";

/// One place where a file names a module below the crate root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The top-level module, or [`ROOT`].
    pub(crate) module: String,
    pub(crate) line: usize,
}

/// The module path of a source file below `src/`: `store/keys.rs` is `[store, keys]`, `main.rs` is `[]`.
pub(crate) fn module_path(file: &str) -> Vec<String> {
    let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|name| name == "mod" || (name == ROOT && path.len() == 1)) {
        path.pop();
    }
    path
}

/// The top-level modules that the tokens of a file with this module path lead into, its own included.
///
/// `modules` are the crate's top-level modules: in the crate root, and only there, they can be named without `crate::`.
pub(crate) fn imports(tokens: &[Token], file: &[String], modules: &BTreeSet<String>) -> Vec<Import> {
    let mut reader = Reader { tokens, at: 0, scopes: Vec::new(), file, modules, found: BTreeSet::new() };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found.into_iter().collect()
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The open braces: those of `mod name {` with the name, all others without.
    scopes: Vec<Option<String>>,
    file: &'a [String],
    modules: &'a BTreeSet<String>,
    found: BTreeSet<Import>,
}

impl Reader<'_> {
    fn step(&mut self) {
        match self.kind(0) {
            Some(Kind::Word(word)) if word == "mod" => self.module_or_word(),
            Some(Kind::Word(_)) => self.word(),
            Some(Kind::Mark('{')) => self.open(None),
            Some(Kind::Mark('}')) => {
                self.scopes.pop();
                self.at += 1;
            }
            _ => self.at += 1,
        }
    }

    fn open(&mut self, module: Option<String>) {
        self.scopes.push(module);
        self.at += 1;
    }

    /// `mod name {` opens a module inside the file; `mod name;` does not.
    fn module_or_word(&mut self) {
        if let (Some(Kind::Word(name)), Some(Kind::Mark('{'))) = (self.kind(1), self.kind(2)) {
            let name = name.clone();
            self.at += 2;
            self.open(Some(name));
        } else {
            self.at += 2;
        }
    }

    /// The first word of a path decides where it starts. A word after `::` is no first word: `other::crate_thing::x`.
    fn word(&mut self) {
        let starts_path =
            self.kind(1) == Some(&Kind::Colons) && (self.at == 0 || self.tokens[self.at - 1].kind != Kind::Colons);
        let Some(Kind::Word(word)) = self.kind(0).filter(|_| starts_path) else {
            self.at += 1;
            return;
        };
        let here = self.here();
        match word.as_str() {
            "crate" => self.path_from(Vec::new()),
            "self" => self.path_from(here),
            "super" => self.path_from(parent(here)),
            name if here.is_empty() && self.modules.contains(name) => {
                self.found.insert(Import { module: name.to_owned(), line: self.tokens[self.at].line });
                self.at += 1;
            }
            _ => self.at += 1,
        }
    }

    /// Follows a path whose first word, at `self.at`, stands for the module `base`.
    fn path_from(&mut self, base: Vec<String>) {
        self.at += 1;
        self.rest_of_path(base);
    }

    /// At `::` after the module `base`, or at the end of a path.
    fn rest_of_path(&mut self, base: Vec<String>) {
        if self.kind(0) != Some(&Kind::Colons) {
            return;
        }
        self.at += 1;
        self.tail(base);
    }

    /// One path below `base`, up to where its top-level module is known.
    fn tail(&mut self, base: Vec<String>) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        match self.kind(0) {
            Some(Kind::Word(word)) if word == "super" => {
                self.at += 1;
                self.rest_of_path(parent(base));
            }
            Some(Kind::Mark('{')) => self.group(base),
            Some(Kind::Word(word)) => {
                let module = base.first().cloned().unwrap_or_else(|| match self.modules.get(word) {
                    Some(module) => module.clone(),
                    // A function or macro of main.rs, or the crate itself.
                    None => ROOT.to_owned(),
                });
                self.found.insert(Import { module, line });
                self.at += 1;
            }
            _ => {
                // A glob takes all of `base`.
                self.found.insert(Import { module: base.first().map_or(ROOT, String::as_str).to_owned(), line });
            }
        }
    }

    /// `{a::b, c::{d, e}}` below `base`: every branch is a path of its own.
    fn group(&mut self, base: Vec<String>) {
        self.at += 1;
        let mut first_of_branch = true;
        let mut depth = 1;
        while depth > 0 {
            match self.kind(0) {
                None => return,
                Some(Kind::Mark('}')) => depth -= 1,
                // Below the first word of a branch the top-level module no longer changes.
                Some(Kind::Mark('{')) => depth += 1,
                Some(Kind::Mark(',')) if depth == 1 => first_of_branch = true,
                Some(_) if first_of_branch => {
                    first_of_branch = false;
                    let before = self.at;
                    self.tail(base.clone());
                    if self.at > before {
                        continue;
                    }
                }
                Some(_) => {}
            }
            self.at += 1;
        }
    }

    /// The module the reader stands in: the file's, and the modules opened inside it.
    fn here(&self) -> Vec<String> {
        self.file.iter().chain(self.scopes.iter().flatten()).cloned().collect()
    }

    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }
}

fn parent(mut path: Vec<String>) -> Vec<String> {
    path.pop();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tokens;

    fn modules_named(file: &str, source: &str) -> Vec<String> {
        let modules = ["broker", "job", "pool", "store"].map(str::to_owned).into();
        let found = imports(&tokens(source), &module_path(file), &modules);
        let names: BTreeSet<String> = found.into_iter().map(|import| import.module).collect();
        names.into_iter().collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        for (file, source, expected) in [
            ("pool/mod.rs", "use crate::store::keys::Keys;", &["store"][..]),
            ("pool/mod.rs", "use crate::{job::{Job, State}, store as s, broker::*};", &["broker", "job", "store"]),
            ("pool/mod.rs", "use crate::{\n    job,\n    store,\n};", &["job", "store"]),
            ("pool/mod.rs", "fn f() { let x = crate::store::now(); }", &["store"]),
            ("pool/mod.rs", "impl<T: crate::job::X> F for T {}", &["job"]),
            ("pool/mod.rs", "macro_rules! m { () => { $crate::store::x() } }", &["store"]),
            ("pool/mod.rs", "use super::store;", &["store"]),
            ("pool.rs", "use super::{store::Keys, job};", &["job", "store"]),
            ("pool/slot.rs", "use super::Pool; use super::super::store::X;", &["pool", "store"]),
            ("pool/slot.rs", "use super::{super::store, Pool};", &["pool", "store"]),
            ("pool/slot.rs", "use self::inner::X;", &["pool"]),
            ("pool/slot.rs", "mod tests { use super::*; use super::super::super::job::J; }", &["job", "pool"]),
            ("pool/slot.rs", "mod a { mod b {} fn f() {} } use super::super::job::J;", &["job"]),
            ("main.rs", "mod store; fn main() { store::open(); tokio::spawn(x) }", &["store"]),
            ("main.rs", "mod tests { use super::store::X; }", &["store"]),
            ("pool/mod.rs", "use crate::helper;", &["main"]),
            ("pool/mod.rs", "use crate::*;", &["main"]),
            ("pool/mod.rs", "use super::*;", &["main"]),
        ] {
            assert_eq!(modules_named(file, source), expected, "{file}: {source}");
        }
    }

    #[test]
    fn what_is_no_path_into_the_crate_is_not_seen() {
        for source in [
            "// use crate::store::X;",
            "fn f() { log(\"crate::store::X\") }",
            "pub(crate) fn f() {} pub(super) fn g() {}",
            "fn f(&self) { self.store.x(); }",
            "use store::X; use other::store::Y;",
            "fn store() {} struct S { job: u8 }",
        ] {
            assert_eq!(modules_named("pool/mod.rs", source), [""; 0], "{source}");
        }
    }

    #[test]
    fn an_import_knows_its_line() {
        let modules = ["job", "store"].map(str::to_owned).into();
        let found = imports(&tokens("use a;\nuse crate::{\n  job,\n  store};"), &module_path("pool.rs"), &modules);
        assert_eq!(
            found.iter().map(|import| (import.module.as_str(), import.line)).collect::<Vec<_>>(),
            [("job", 3), ("store", 4)]
        );
    }
}
