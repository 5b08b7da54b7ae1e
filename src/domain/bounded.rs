//! Lists and maps that are counted while they are read.
//!
//! A list that is read first and counted afterwards costs what its writer likes. Here what is over the limit is read past
//! and dropped, and only its number is kept, for the message.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A list of at most `LIMIT` values.
#[derive(Debug)]
pub(crate) struct BoundedList<T, const LIMIT: usize> {
    values: Vec<T>,
    found: usize,
}

/// A map of at most `LIMIT` entries; of two with one name the last counts.
#[derive(Debug)]
pub(crate) struct BoundedMap<T, const LIMIT: usize> {
    entries: BTreeMap<String, T>,
    is_complete: bool,
}

impl<T, const LIMIT: usize> BoundedList<T, LIMIT> {
    /// All values, or else how many there are.
    pub(crate) fn complete(self) -> Result<Vec<T>, usize> {
        if self.found > LIMIT {
            Err(self.found)
        } else {
            Ok(self.values)
        }
    }
}

impl<T, const LIMIT: usize> BoundedMap<T, LIMIT> {
    /// All entries; `None` if there are too many.
    pub(crate) fn complete(self) -> Option<BTreeMap<String, T>> {
        self.is_complete.then_some(self.entries)
    }
}

impl<T, const LIMIT: usize> Default for BoundedList<T, LIMIT> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            found: 0,
        }
    }
}

impl<T, const LIMIT: usize> Default for BoundedMap<T, LIMIT> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            is_complete: true,
        }
    }
}

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for BoundedList<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for BoundedMap<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

struct ListVisitor<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for ListVisitor<T, LIMIT> {
    type Value = BoundedList<T, LIMIT>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut list = BoundedList::default();
        while list.found < LIMIT {
            let Some(value) = sequence.next_element()? else {
                return Ok(list);
            };
            list.values.push(value);
            list.found += 1;
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            list.found += 1;
        }
        Ok(list)
    }
}

struct MapVisitor<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for MapVisitor<T, LIMIT> {
    type Value = BoundedMap<T, LIMIT>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BoundedMap::default();
        while map.entries.len() <= LIMIT {
            let Some((name, value)) = entries.next_entry()? else {
                map.is_complete = map.entries.len() <= LIMIT;
                return Ok(map);
            };
            map.entries.insert(name, value);
        }
        map = BoundedMap {
            entries: BTreeMap::new(),
            is_complete: false,
        };
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type List = BoundedList<u8, 3>;
    type Names = BoundedMap<u8, 3>;

    #[test]
    fn a_list_is_complete_or_only_counted() {
        let read = |text| serde_json::from_str::<List>(text).unwrap().complete();
        assert_eq!(read("[]"), Ok(vec![]));
        assert_eq!(read("[1,2,3]"), Ok(vec![1, 2, 3]));
        assert_eq!(read("[1,2,3,4]"), Err(4));
        // What is dropped is not even of the right type.
        assert_eq!(read(r#"[1,2,3,"x",{}]"#), Err(5));
        assert!(serde_json::from_str::<List>(r#"[1,"x"]"#).is_err());
    }

    #[test]
    fn a_map_is_complete_or_nothing() {
        let read = |text| serde_json::from_str::<Names>(text).unwrap().complete();
        assert_eq!(read("{}").unwrap().len(), 0);
        assert_eq!(read(r#"{"a":1,"b":2,"c":3}"#).unwrap().len(), 3);
        assert_eq!(read(r#"{"a":1,"a":2,"b":3,"c":4}"#).unwrap()["a"], 2);
        assert!(read(r#"{"a":1,"b":2,"c":3,"d":4}"#).is_none());
    }

    #[test]
    fn what_is_over_the_limit_is_not_kept() {
        let text = format!("[{}0]", "0,".repeat(1 << 20));
        let list: List = serde_json::from_str(&text).unwrap();
        assert_eq!((list.found, list.values.capacity() < 16), ((1 << 20) + 1, true));
    }
}
