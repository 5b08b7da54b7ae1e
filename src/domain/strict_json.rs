//! JSON that every reader understands alike.
//!
//! **Security invariant:** what we verify or refuse is what OPA, cosign and registries will read. Parsers differ in which
//! of two equal names wins, and Go's takes `Layers` for `layers`; so a text in which one object has a name twice, in
//! whatever case, is refused as a whole.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most levels of arrays and objects.
const MAX_DEPTH: usize = 32;

/// Reads one JSON value of type `T`.
///
/// # Errors
/// What is wrong with the text, or with its shape.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    serde_json::from_value(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("more than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if !seen.insert(fold(&name)) {
                let shown: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("the name '{shown}' twice in one object")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
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

    proptest! {
        #[test]
        fn reads_what_serde_json_writes(names in proptest::collection::btree_set("[a-z]{1,4}", 0..6), number in any::<i64>()) {
            let value: Value = names.into_iter().map(|name| (name, Value::from(number))).collect::<Map<_, _>>().into();
            prop_assert_eq!(parse::<Value>(value.to_string().as_bytes()).unwrap(), value);
        }
    }
}
