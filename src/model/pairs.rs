//! Key and value pairs of records. In bytes they have one spelling: keys ascend. It must never take two byte strings for
//! the same pairs, or a damaged row would be read as a whole one and change when it is written again.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

/// Reads pairs: in bytes only with ascending keys, as they are written; in text (raw calls, dumps) in any order.
///
/// # Errors
/// What the format says, or that keys do not ascend.
pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    if d.is_human_readable() { BTreeMap::deserialize(d) } else { d.deserialize_map(Ascending) }
}

struct Ascending;

impl<'de> Visitor<'de> for Ascending {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs with ascending keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if pairs.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(A::Error::custom("its keys do not ascend"));
            }
            pairs.insert(key, value);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Held {
        #[serde(deserialize_with = "deserialize")]
        pairs: BTreeMap<String, String>,
    }

    #[test]
    fn pairs_read_back_and_any_other_spelling_of_them_is_refused() {
        let spelled = |pairs: &[(&str, &str)]| bincode::serialize(pairs).unwrap();
        let whole = Held { pairs: [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into() };
        assert_eq!(bincode::serialize(&whole).unwrap(), spelled(&[("a", "1"), ("b", "2")]));
        assert_eq!(bincode::deserialize::<Held>(&spelled(&[("a", "1"), ("b", "2")])).unwrap(), whole);
        for other in [&[("b", "2"), ("a", "1")][..], &[("a", "1"), ("a", "1")], &[("a", "0"), ("a", "1"), ("b", "2")]] {
            let refused = bincode::deserialize::<Held>(&spelled(other)).unwrap_err();
            assert!(refused.to_string().contains("do not ascend"), "{other:?}: {refused}");
        }
    }
}
