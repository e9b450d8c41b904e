//! Canonical parameters: a JSON object with sorted keys in which no key is repeated.
//!
//! A repeated key is refused rather than resolved: parsers disagree on which one wins, so the picture that
//! the producer meant and the one that the key names could differ.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

/// Parameters of an edit. Two are equal if and only if [`Params::canonical`] is. Clones share them: each call
/// of a task has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Params(Arc<Map<String, Value>>);

impl Params {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of one parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All parameters, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// These parameters, with `defaults` for the missing ones.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &Params) -> Self {
        for (name, value) in
            defaults.0.iter().filter(|(name, _)| !self.0.contains_key(*name)).collect::<Vec<_>>()
        {
            Arc::make_mut(&mut self.0).insert(name.clone(), value.clone());
        }
        self
    }

    /// Compact JSON, keys sorted at every level: what enters the edit key and the tables.
    pub fn canonical(&self) -> String {
        // `serde_json::Map` is a sorted map here: the workspace does not enable `preserve_order`
        // (a test below fails if a dependency does).
        serde_json::to_string(&*self.0).unwrap_or_default()
    }

    /// The object itself, e.g. for a provider's request body.
    pub fn as_object(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Params {
    fn from(map: Map<String, Value>) -> Self {
        Self(Arc::new(map))
    }
}

impl std::str::FromStr for Params {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict.deserialize(deserializer)? {
            Value::Object(map) => Ok(Self(Arc::new(map))),
            _ => Err(D::Error::custom("must be an object")),
        }
    }
}

/// A JSON value in which no object repeats a key.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is given twice; give it once")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        text.parse().unwrap()
    }

    #[test]
    fn the_order_of_keys_does_not_matter_at_any_depth() {
        let one = params(r#"{"b": {"y": 1, "x": [ {"q": 1, "p": 2} ]}, "a": "é"}"#);
        let other = params(r#"{"a":"\u00e9","b":{"x":[{"p":2,"q":1}],"y":1}}"#);
        assert_eq!(one.canonical(), other.canonical());
        assert_eq!(one.canonical(), r#"{"a":"é","b":{"x":[{"p":2,"q":1}],"y":1}}"#);
    }

    #[test]
    fn a_repeated_key_is_refused_at_any_depth_and_named() {
        for text in [r#"{"seed":1,"seed":2}"#, r#"{"a":[{"seed":1,"seed":1}]}"#] {
            let error = text.parse::<Params>().unwrap_err().to_string();
            assert!(error.contains("`seed` is given twice"), "{error}");
        }
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["[]", "1", "null", "\"x\""] {
            assert!(text.parse::<Params>().is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_fill_in_only_what_is_missing() {
        let merged = params(r#"{"a":1}"#).with_defaults(&params(r#"{"a":2,"b":3}"#));
        assert_eq!(merged.canonical(), r#"{"a":1,"b":3}"#);
    }
}
