//! The names of a struct's fields, asked of its type alone: what a client may show as columns before any answer has come.
//!
//! It works by starting to decode the type and stopping at once. It must never run a value's own decoding.

use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

/// Notes the fields it is asked for and ends the decoding.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only the names were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of `T` as JSON shows them, in order; none if `T` is no struct.
#[must_use]
pub fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // Always an error: the decoding ends as soon as the names are known.
    let _ = T::deserialize(Asked(&mut found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::OPS;

    #[test]
    fn every_operation_answers_a_struct_and_its_columns_are_fields_of_it() {
        assert!(fields::<crate::ops::node::NodeView>().contains(&"type"), "a renamed field has its JSON name");
        for entry in OPS {
            let known = (entry.fields)();
            assert!(!known.is_empty(), "{} answers no struct", entry.sheet.command());
            for column in entry.sheet.columns {
                assert!(known.contains(column), "{} has no field {column}", entry.sheet.command());
            }
        }
    }
}
