//! Reads Rust just well enough to know which paths a file names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use policy_operator::operator::api::crd::definition;
use serde_json::Value;

use super::{FORBIDDEN, HINTS, LAYERS, MAX_LINES, MAX_STORY_LINES, SHARED_ADAPTER, STATES_FACTS, STORIES};

/// One file: where it is, and what it says outside its tests, comments and literals.
pub(super) struct Source {
    path: String,
    /// The module path of the file: `adapters/registry/token.rs` is `["adapters", "registry", "token"]`.
    module: Vec<String>,
    code: String,
    /// Every path named, with `use` trees taken apart and `crate`, `super` and `self` resolved (then starting with
    /// `crate`), and every other word.
    paths: Vec<Vec<String>>,
    /// Every text between quotes.
    literals: Vec<String>,
}

impl Source {
    pub(super) fn read(path: &str, text: &str) -> Self {
        let module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        // Tests may import what they like. What follows an inline test module would go unseen, so it must be the last.
        let code = match text.find("#[cfg(test)]\nmod tests {") {
            Some(start) => text[..start].to_owned(),
            None => text.to_owned(),
        };
        let is_test = module.last().is_some_and(|last| last == "tests") || module.contains(&"tests".to_owned());
        let code = if is_test { String::new() } else { code };
        let (tokens, literals) = tokens(&code);
        let paths = paths(&tokens).into_iter().map(|path| resolve(&module, path)).collect();
        Self {
            path: path.to_owned(),
            module,
            code,
            paths,
            literals,
        }
    }

    fn layer(&self) -> Option<(&'static str, usize)> {
        LAYERS
            .into_iter()
            .find(|(name, _)| Some(*name) == self.module.first().map(String::as_str))
    }

    /// Paths into layers above, beside, or into another adapter.
    pub(super) fn wrong_imports(&self) -> Vec<String> {
        // `lib.rs` only lists the layers.
        if self.path == "lib.rs" {
            return Vec::new();
        }
        let Some((own, rank)) = self.layer() else {
            return vec!["is in no layer".to_owned()];
        };
        let inner = self.paths.iter().filter(|path| path.len() > 1 && path[0] == "crate");
        let mut complaints = Vec::new();
        for path in inner {
            let target = LAYERS.into_iter().find(|(name, _)| *name == path[1]);
            let complaint = match target {
                None => Some("is in no layer"),
                Some((layer, _)) if layer == own && own == "adapters" => {
                    let is_other = |adapter: &String| self.module.get(1) != Some(adapter) && adapter != SHARED_ADAPTER;
                    let other = path.get(2).is_some_and(is_other);
                    (other && self.module.len() > 1).then_some("is another adapter")
                }
                Some((layer, _)) if layer == own => None,
                Some((_, other)) => (other >= rank).then_some("is not below this layer"),
            };
            complaints.extend(complaint.map(|complaint| format!("{} {complaint}", path.join("::"))));
        }
        complaints
    }

    /// Names that this layer must do without.
    pub(super) fn forbidden_names(&self) -> Vec<String> {
        let Some((own, _)) = self.layer() else {
            return Vec::new();
        };
        let forbidden = FORBIDDEN
            .iter()
            .filter(|(layer, _)| *layer == own)
            .flat_map(|(_, names)| names.iter());
        let named = |name: &str| {
            let name: Vec<&str> = name.split("::").collect();
            self.paths
                .iter()
                .any(|path| path.windows(name.len()).any(|part| part == name.as_slice()))
        };
        forbidden
            .filter(|name| named(name))
            .map(|name| format!("names {name}, which {own} must not"))
            .collect()
    }

    /// Messages that name a field or a flag of a program, in layers that programs share.
    pub(super) fn hints(&self) -> Vec<String> {
        if !self.layer().is_some_and(|(own, _)| STATES_FACTS.contains(&own)) {
            return Vec::new();
        }
        let is_hint = |literal: &&String| {
            HINTS.iter().any(|hint| literal.contains(hint)) || names_a_flag(literal) || names_a_field(literal)
        };
        let found = self.literals.iter().filter(is_hint);
        found
            .map(|literal| format!("says {literal}, which only a program can say"))
            .collect()
    }

    /// The module that the file is: `a/b.rs` is `a::b`.
    pub(super) fn name(&self) -> String {
        self.module.join("::")
    }

    /// Imports from one file or folder to another beside it, as pairs of module names with the folder they share. An
    /// import of something inside a folder counts as one of the folder.
    /// An import of a name that the folder re-exports counts as one of the file that the name is from.
    pub(super) fn sibling_imports(
        &self,
        modules: &BTreeSet<String>,
        re_exports: &BTreeMap<String, String>,
    ) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for path in self.paths.iter().filter(|path| path.len() > 1 && path[0] == "crate") {
            let target = path.get(1..).unwrap_or_default();
            let common = self
                .module
                .iter()
                .zip(target)
                .take_while(|(own, other)| own == other)
                .count();
            // Layers are held by a rule of their own; a file may name its own children and its own items.
            if common == 0 || common >= self.module.len() || common >= target.len() {
                continue;
            }
            let (from, to) = (self.module[..=common].join("::"), target[..=common].join("::"));
            let to = if modules.contains(&to) {
                Some(&to)
            } else {
                re_exports.get(&to).filter(|to| **to != from)
            };
            found.extend(to.map(|to| (from, to.clone())));
        }
        found
    }

    /// The names that this file re-exports from its children, with the child that each is from.
    pub(super) fn re_exports(&self) -> Vec<(String, String)> {
        let statements = self.code.split(';').filter_map(re_exported);
        let trees = statements.flat_map(|tree| paths(&tokens(tree).0));
        trees
            .map(|path| path.into_iter().skip_while(|part| part == "self").collect::<Vec<_>>())
            .filter(|path| path.len() > 1)
            .map(|path| {
                let below = |name: &str| format!("{}::{name}", self.name());
                (below(&path[path.len() - 1]), below(&path[0]))
            })
            .collect()
    }

    pub(super) fn too_long(&self) -> Option<String> {
        let lines = self.code.lines().count();
        if STORIES.contains(&self.path.as_str()) {
            let is_told = |line: &&str| {
                let line = line.trim_start();
                !line.is_empty() && !line.starts_with("//") && !line.starts_with("use ")
            };
            let lines = self.code.lines().filter(is_told).count();
            return (lines > MAX_STORY_LINES).then(|| format!("has {lines} lines of code: a step does too little"));
        }
        (lines > MAX_LINES).then(|| format!("has {lines} lines before its tests: it is about more than one thing"))
    }
}

/// What follows `pub use`, or `use` with any other visibility, if the statement is one. Comments may precede it.
fn re_exported(statement: &str) -> Option<&str> {
    let (before, tree) = statement.rsplit_once("use ")?;
    let visibility = before.lines().last()?.trim();
    let is_restricted = visibility.starts_with("pub(") && visibility.ends_with(')');
    (visibility == "pub" || is_restricted).then_some(tree)
}

/// Whether a message names a flag: two hyphens and a lower-case letter. PEM has five hyphens and a capital.
fn names_a_flag(literal: &str) -> bool {
    literal
        .match_indices("--")
        .any(|(at, _)| literal[at + 2..].starts_with(|next: char| next.is_ascii_lowercase()))
}

/// Whether a word of a message is the name of a field of the CRD. Fields of one word, such as `image`, are words of any
/// message.
fn names_a_field(literal: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let mut words = literal.split(|character| !is_part(character));
    words.any(|word| FIELDS.contains(word))
}

/// The fields of the CRD whose names only Kubernetes users know, because they consist of several words.
static FIELDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let definition = definition().expect("the definition");
    let schema = serde_json::to_value(&definition.spec.versions).expect("JSON");
    let mut fields = BTreeSet::new();
    collect_fields(&schema, &mut fields);
    fields.retain(|name| name.contains(char::is_uppercase));
    fields
});

fn collect_fields(schema: &Value, fields: &mut BTreeSet<String>) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::Object(properties)) = entries.get("properties") {
                fields.extend(properties.keys().cloned());
            }
            entries.values().for_each(|value| collect_fields(value, fields));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_fields(item, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Words, `::` and single characters, and apart from them the literals; comments are left out.
fn tokens(code: &str) -> (Vec<String>, Vec<String>) {
    let (mut tokens, mut literals) = (Vec::new(), Vec::new());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            literals.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else if is_word(first) {
            let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    (tokens, literals)
}

/// The length of the string or character literal that `text` starts with.
fn literal(text: &str) -> Option<usize> {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r').filter(|_| prefix <= 1) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let start = prefix + 1 + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    let quote = unprefixed.chars().next().filter(|_| prefix <= 1)?;
    // A lifetime has no closing quote after one character.
    let is_character = || unprefixed.starts_with("'\\") || unprefixed.chars().nth(2) == Some('\'');
    if quote != '"' && !(quote == '\'' && is_character()) {
        return None;
    }
    let mut escaped = false;
    for (at, character) in unprefixed.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Every path among the tokens, `a::{b, c::d}` as `a::b` and `a::c::d`; a single word is a path of one.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at]) {
            at = tree(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|character: char| character.is_alphabetic() || character == '_')
}

/// Reads the tree that starts with the name at `at`, below `prefix`; returns where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut path = prefix.to_vec();
    loop {
        path.push(tokens[at].clone());
        at += 1;
        if token(at) != "::" || !(is_name(token(at + 1)) || token(at + 1) == "{") {
            break;
        }
        at += 1;
        if token(at) == "{" {
            at += 1;
            while at < tokens.len() && token(at) != "}" {
                at = if is_name(token(at)) {
                    tree(tokens, at, &path, found)
                } else {
                    at + 1
                };
            }
            return at + 1;
        }
    }
    found.push(path);
    at
}

/// Makes paths that start with `self` or `super` absolute.
fn resolve(module: &[String], path: Vec<String>) -> Vec<String> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    let names_module = path.len() > 1 && path[0] == "self";
    if ups == 0 && !names_module {
        return path;
    }
    let base = &module[..module.len().saturating_sub(ups)];
    let rest = path.into_iter().skip(if names_module { 1 } else { ups });
    std::iter::once("crate".to_owned())
        .chain(base.iter().cloned())
        .chain(rest)
        .collect()
}
