//! JSON that every reader understands alike.
//!
//! **Security invariant:** what we verify or refuse is what OPA, cosign and registries will read. Parsers differ in which
//! of two equal names wins, and Go's takes `Layers` for `layers`; so a text in which one object has a name twice, in
//! whatever case, is refused as a whole.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// Most levels of arrays and objects.
const MAX_DEPTH: usize = 32;
/// Most values and names in one text. A large manifest has a thousand, and a list of ten thousand packages beside an image
/// 40 000. A value in memory costs up to a hundred times its two bytes of text, so bytes alone are no bound.
pub(crate) const MAX_NODES: usize = 50_000;

/// Reads one JSON value of type `T`.
///
/// The text is read twice, first to check it and then for `T`, so that no more of it is ever held than `T` wants and the
/// names of the objects that are open.
///
/// # Errors
/// What is wrong with the text, or with its shape.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut nodes_left = MAX_NODES;
    let check = Check {
        depth: 0,
        nodes_left: &mut nodes_left,
    };
    check.deserialize(&mut deserializer)?;
    deserializer.end()?;
    serde_json::from_slice(bytes)
}

/// Reads past one value, and refuses what two readers could take differently.
struct Check<'a> {
    depth: usize,
    nodes_left: &'a mut usize,
}

impl Check<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<Check<'_>, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("more than {MAX_DEPTH} levels")));
        }
        Ok(Check {
            depth: self.depth + 1,
            nodes_left: self.nodes_left,
        })
    }

    /// The same place, for the next value.
    fn again(&mut self) -> Check<'_> {
        Check {
            depth: self.depth,
            nodes_left: self.nodes_left,
        }
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        let left = self.nodes_left.checked_sub(1);
        *self.nodes_left = left.ok_or_else(|| E::custom(format_args!("more than {MAX_NODES} values")))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        let mut inner = self.deeper()?;
        while sequence.next_element_seed(inner.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            inner.count()?;
            if !seen.insert(fold(&name)) {
                let shown: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("the name '{shown}' twice in one object")));
            }
            entries.next_value_seed(inner.again())?;
        }
        Ok(())
    }
}

/// Folds case as Go does: `ſ` is an `s` and the Kelvin sign is a `k`. Upper case first, because only that way `ſ` moves.
pub(crate) fn fold(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Map, Value};

    #[rstest]
    #[case::twice(r#"{"a":1,"a":1}"#, "the name 'a' twice")]
    #[case::nested(r#"{"a":[{"b":1,"b":2}]}"#, "the name 'b' twice")]
    #[case::escaped(r#"{"a":1,"\u0061":2}"#, "the name 'a' twice")]
    #[case::case_twin(r#"{"layers":1,"Layers":2}"#, "the name 'Layers' twice")]
    #[case::unicode_twin(r#"{"layers":1,"layer\u017f":2}"#, "twice")]
    #[case::trailing("{} {}", "trailing characters")]
    #[case::byte_order_mark("\u{feff}{}", "expected value")]
    #[case::empty("", "EOF")]
    fn refuses_what_two_readers_could_take_differently(#[case] text: &str, #[case] expected: &str) {
        let error = parse::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn refuses_deep_nesting() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse::<Value>(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parse::<Value>(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse::<Value>("[".repeat(1 << 20).as_bytes()).is_err());
    }

    /// A manifest of 4 MiB of `[[0],[0],…` took 182 MiB.
    #[rstest]
    #[case::values("[0", ",0", "]", 1)]
    #[case::lists("[[0]", ",[0]", "]", 2)]
    #[case::objects("[{}", ",{}", "]", 1)]
    #[case::named("[{\"\":0}", ",{\"\":0}", "]", 3)]
    fn values_are_counted_while_they_are_read(
        #[case] first: &str,
        #[case] next: &str,
        #[case] end: &str,
        #[case] nodes: usize,
    ) {
        let text = |count: usize| [first, &next.repeat(count - 1), end].concat();
        let most = (MAX_NODES - 1) / nodes;
        assert!(parse::<serde::de::IgnoredAny>(text(most).as_bytes()).is_ok());
        let error = parse::<serde::de::IgnoredAny>(text(most + 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than 50000 values"), "{error}");
        assert!(parse::<Value>(text(1 << 20).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_writes(names in proptest::collection::btree_set("[a-z]{1,4}", 0..6), number in any::<i64>()) {
            let value: Value = names.into_iter().map(|name| (name, Value::from(number))).collect::<Map<_, _>>().into();
            prop_assert_eq!(parse::<Value>(value.to_string().as_bytes()).unwrap(), value);
        }
    }
}
