//! The lists and maps of an object's metadata, read within bounds.
//!
//! An object may hold a megabyte and a half of labels or owners, and a page holds many objects. Decoded, each short entry
//! takes ten times its text: 46 ConfigMaps of one tenant would be the end of the process, and of the next one. What
//! exceeds a bound is passed over while it is read. A part of another type than it should be is as if it were absent.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::operator::identity::is_policy_image;

/// Most labels, and most annotations, of one object that are read.
const MAX_TEXTS: usize = 512;
/// Most entries of the managed fields that are read.
const MAX_MANAGERS: usize = 64;

/// A part that is there and of the right type, or nothing.
pub(super) struct Lenient<P>(pub(super) Option<P>);

impl<P> Default for Lenient<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, P: Part> Deserialize<'de> for Lenient<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor(PhantomData)).map(Self)
    }
}

/// What is made of a JSON value; nothing, unless a method says otherwise.
pub(super) trait Part: Sized {
    fn of_text(_: &str) -> Option<Self> {
        None
    }

    fn of_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

struct PartVisitor<P>(PhantomData<P>);

impl<'de, P: Part> Visitor<'de> for PartVisitor<P> {
    type Value = Option<P>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(P::of_text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        P::of_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        P::of_list(list)
    }
}

/// A text.
struct Text(String);

impl Part for Text {
    fn of_text(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

/// Labels or annotations: the first [`MAX_TEXTS`].
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl Part for Texts {
    fn of_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut texts = BTreeMap::new();
        while texts.len() < MAX_TEXTS
            && let Some((key, value)) = map.next_entry::<String, Lenient<Text>>()?
        {
            texts.extend(value.0.map(|Text(text)| (key, text)));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(Self(texts)))
    }
}

/// The PolicyImage that controls the object. An object has one controller at most.
pub(super) struct Controller(pub(super) OwnerReference);

impl Part for Controller {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut found = None;
        while found.is_none()
            && let Some(value) = list.next_element::<Value>()?
        {
            let owner = serde_json::from_value::<OwnerReference>(value).ok();
            found = owner.filter(|owner| owner.controller == Some(true) && is_policy_image(owner));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.map(Self))
    }
}

/// Who wrote to the object: the first [`MAX_MANAGERS`], without the fields, which can be nested deeper than a decoder goes.
pub(super) struct Managers(pub(super) Vec<ManagedFieldsEntry>);

#[derive(Deserialize)]
struct Manager {
    #[serde(default)]
    manager: Lenient<Text>,
    #[serde(default)]
    operation: Lenient<Text>,
}

impl Part for Managers {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut managers = Vec::new();
        while managers.len() < MAX_MANAGERS
            && let Some(Manager { manager, operation }) = list.next_element()?
        {
            let text = |part: Lenient<Text>| part.0.map(|Text(text)| text);
            managers.push(ManagedFieldsEntry {
                manager: text(manager),
                operation: text(operation),
                ..ManagedFieldsEntry::default()
            });
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok((!managers.is_empty()).then_some(Self(managers)))
    }
}
