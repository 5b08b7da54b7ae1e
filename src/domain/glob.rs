//! Globs for names of hosts, matched without a regular-expression engine.
//!
//! The syntax is that of Go's `path.Match`, by which kubelet compares hosts: `*` is any run of characters, `?` any one,
//! `[a-z]` and `[^a-z]` one of a class, and a backslash takes away the meaning of what follows it.
//!
//! **Security invariant:** the pattern is the only state. Nothing is compiled, so a pattern costs the memory of its
//! text, and to match takes at most as many steps as pattern and text have bytes, multiplied.

/// Longest pattern, in bytes: a host has at most 253, a port 6, and the rest is room for a path.
pub const MAX_GLOB_BYTES: usize = 300;

/// A pattern that is whole: no class is left open, and nothing ends in a backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// What one element of a pattern stands for.
enum Element {
    /// Any run of bytes.
    Any,
    /// One byte; whether it is this one.
    One(bool),
}

impl Glob {
    /// Reads a pattern; `None` if it is malformed or over [`MAX_GLOB_BYTES`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        if rest.len() > MAX_GLOB_BYTES {
            return None;
        }
        while !rest.is_empty() {
            (_, rest) = element(rest, 0)?;
        }
        Some(Self(text.to_owned()))
    }

    /// Whether all of `text` is what the pattern stands for.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_bytes(), text.as_bytes());
        // After the last `*`: the rest of the pattern, and the text behind what the `*` has taken so far. An earlier
        // `*` never has to be revisited, for whatever it could give up, the later one can take.
        let mut resume: Option<(&[u8], &[u8])> = None;
        loop {
            match (element(pattern, text.first().copied().unwrap_or_default()), text) {
                (Some((Element::Any, rest)), _) => {
                    resume = Some((rest, text));
                    pattern = rest;
                }
                (Some((Element::One(true), rest)), [_, behind @ ..]) => (pattern, text) = (rest, behind),
                (None, []) => return true,
                _ => {
                    let Some((rest, [_, behind @ ..])) = resume else {
                        return false;
                    };
                    resume = Some((rest, behind));
                    (pattern, text) = (rest, behind);
                }
            }
        }
    }
}

/// The first element of a pattern as `byte` meets it, and the rest of the pattern. None at its end, and if it is
/// malformed.
fn element(pattern: &[u8], byte: u8) -> Option<(Element, &[u8])> {
    match pattern {
        [] | [b'\\'] => None,
        [b'*', rest @ ..] => Some((Element::Any, rest)),
        [b'?', rest @ ..] => Some((Element::One(true), rest)),
        [b'[', b'^', rest @ ..] => class(rest, byte).map(|(within, rest)| (Element::One(!within), rest)),
        [b'[', rest @ ..] => class(rest, byte).map(|(within, rest)| (Element::One(within), rest)),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => Some((Element::One(*literal == byte), rest)),
    }
}

/// Whether `byte` is in the class, and the rest of the pattern. A class has at least one range or byte.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (mut within, mut rest) = (false, pattern);
    loop {
        let (low, behind) = class_byte(rest)?;
        let (high, behind) = match behind {
            [b'-', behind @ ..] => class_byte(behind)?,
            _ => (low, behind),
        };
        within |= (low..=high).contains(&byte);
        match behind {
            [b']', behind @ ..] => return Some((within, behind)),
            _ => rest = behind,
        }
    }
}

fn class_byte(pattern: &[u8]) -> Option<(u8, &[u8])> {
    match pattern {
        [] | [b'\\'] | [b'-' | b']', ..] => None,
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Some((*byte, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::time::{Duration, Instant};

    #[rstest]
    #[case::same("prefix", "prefix", true)]
    #[case::shorter("prefix", "pre", false)]
    #[case::longer("pre", "prefix", false)]
    #[case::all("*", "", true)]
    #[case::any_end("pre*", "prefix", true)]
    #[case::any_start("*-good", "prefix-good", true)]
    #[case::any_within("k*y", "quay", false)]
    #[case::two_runs("a*b*c", "a-b-b-c", true)]
    #[case::gives_back("*ab", "aab", true)]
    #[case::one("a?c", "abc", true)]
    #[case::one_is_not_none("a?", "a", false)]
    #[case::class("[a-c]x", "bx", true)]
    #[case::class_of_bytes("[xyz]", "y", true)]
    #[case::outside_class("[a-c]x", "dx", false)]
    #[case::negated("[^a-c]x", "dx", true)]
    #[case::negated_within("[^a-c]x", "ax", false)]
    #[case::class_is_not_none("[^a]", "", false)]
    #[case::escaped(r"\*", "*", true)]
    #[case::escaped_is_no_run(r"\*", "a", false)]
    #[case::escaped_in_class(r"[\]]", "]", true)]
    fn matches_as_gos_path_match(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(Glob::parse(pattern).unwrap().matches(text), expected);
    }

    #[rstest]
    #[case::open_class("[a")]
    #[case::empty_class("[]")]
    #[case::open_range("[a-]")]
    #[case::half_range("[-a]")]
    #[case::trailing_backslash(r"a\")]
    #[case::backslash_in_class(r"[\")]
    fn refuses_what_go_calls_a_bad_pattern(#[case] pattern: &str) {
        assert_eq!(Glob::parse(pattern), None);
    }

    #[test]
    fn a_pattern_has_a_length() {
        assert!(Glob::parse(&"a".repeat(MAX_GLOB_BYTES)).is_some());
        assert_eq!(Glob::parse(&"a".repeat(MAX_GLOB_BYTES + 1)), None);
    }

    proptest! {
        #[test]
        fn any_pattern_is_decided_at_once(pattern in "([*?]|a|\\[\\^?[a-c]-?[a-c]\\]|\\\\.){0,60}|(\\*a){0,150}b?", text in "[a-c]{0,253}") {
            let started = Instant::now();
            let _ = Glob::parse(&pattern).map(|glob| glob.matches(&text));
            prop_assert!(started.elapsed() < Duration::from_millis(200));
        }

        #[test]
        fn a_run_matches_whatever_it_stands_for(head in "[a-z]{0,9}", middle in "[a-z]{0,9}", tail in "[a-z]{0,9}") {
            let glob = Glob::parse(&format!("{head}*{tail}")).unwrap();
            let text = format!("{head}{middle}{tail}");
            prop_assert!(glob.matches(&text));
        }
    }
}
