//! Finds out a type's shape as serde sees it, by decoding it from made-up values again and again until every variant of every
//! enum in it was seen. What comes out is what bincode writes: order, types, variants.

use std::collections::BTreeMap;

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, Deserializer};

/// Texts that types made from texts may want; each is tried.
const TEXTS: [&str; 8] = [
    "x",
    "52:54:00:00:00:01",
    "10.0.0.1/24",
    "10.0.0.5-10.0.0.9",
    "raw",
    "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b",
    "100-199",
    "10.0.0.0/24",
];

/// The shapes found.
#[derive(Default)]
pub(crate) struct Shapes {
    /// Structs by name.
    pub(crate) structs: BTreeMap<String, String>,
    /// Enums by name; a variant's place is its number on the wire.
    pub(crate) enums: BTreeMap<String, Vec<(String, Option<String>)>>,
    /// Which text the n-th question for one gets in this try.
    choices: Vec<usize>,
    asked: usize,
    /// How often an enum was met: one that is known shows its variants in turn, so that what is inside is reached.
    met: BTreeMap<String, usize>,
    /// Which variant the n-th enum of this decoding shows: the same while texts are tried.
    picked: Vec<usize>,
    enums_asked: usize,
}

impl Shapes {
    /// Adds `T` and everything in it.
    pub(crate) fn add<T: for<'de> Deserialize<'de>>(&mut self) {
        for _ in 0..10_000 {
            self.one::<T>();
            if self.enums.values().flatten().all(|(_, shape)| shape.is_some()) {
                return;
            }
        }
        let unseen: Vec<String> = self
            .enums
            .iter()
            .flat_map(|(name, variants)| {
                variants.iter().filter(|v| v.1.is_none()).map(move |v| format!("{name}::{}", v.0))
            })
            .collect();
        panic!("{}: never seen: {}", std::any::type_name::<T>(), unseen.join(", "));
    }

    /// One decoding that succeeds; a text that is refused is replaced by the next.
    fn one<T: for<'de> Deserialize<'de>>(&mut self) {
        self.choices.clear();
        self.picked.clear();
        loop {
            (self.asked, self.enums_asked) = (0, 0);
            let mut shape = String::new();
            let Err(e) = T::deserialize(Tracer { shapes: self, out: &mut shape }) else { return };
            let last = self.asked.checked_sub(1).unwrap_or_else(|| panic!("{}: {e}", std::any::type_name::<T>()));
            self.choices.truncate(self.asked);
            self.choices[last] += 1;
            let all = self.choices[last] < TEXTS.len();
            assert!(all, "{}: none of the texts is taken where {shape} ends: {e}", std::any::type_name::<T>());
        }
    }

    fn pick(&mut self, name: &str, unknown: Option<usize>, variants: usize) -> usize {
        if self.picked.len() == self.enums_asked {
            let met = self.met.entry(name.to_owned()).or_default();
            *met += 1;
            self.picked.push(unknown.unwrap_or(*met % variants));
        }
        self.enums_asked += 1;
        self.picked[self.enums_asked - 1] % variants
    }

    fn text(&mut self) -> &'static str {
        if self.choices.len() == self.asked {
            self.choices.push(0);
        }
        self.asked += 1;
        TEXTS[self.choices[self.asked - 1]]
    }
}

struct Tracer<'a> {
    shapes: &'a mut Shapes,
    out: &'a mut String,
}

macro_rules! plain {
    ($($method:ident $visit:ident $name:literal $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.out.push_str($name);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    plain! {
        deserialize_bool visit_bool "bool" true;
        deserialize_u8 visit_u8 "u8" 1;
        deserialize_u16 visit_u16 "u16" 1;
        deserialize_u32 visit_u32 "u32" 1;
        deserialize_u64 visit_u64 "u64" 1;
        deserialize_u128 visit_u128 "u128" 1;
        deserialize_i8 visit_i8 "i8" 1;
        deserialize_i16 visit_i16 "i16" 1;
        deserialize_i32 visit_i32 "i32" 1;
        deserialize_i64 visit_i64 "i64" 1;
        deserialize_i128 visit_i128 "i128" 1;
        deserialize_f32 visit_f32 "f32" 1.0;
        deserialize_f64 visit_f64 "f64" 1.0;
        deserialize_char visit_char "char" 'c';
        deserialize_bytes visit_bytes "bytes" &[1];
        deserialize_byte_buf visit_bytes "bytes" &[1];
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        panic!("a type asks what comes next (flatten, untagged, Value): bincode cannot tell");
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.out.push_str("text");
        let text = self.shapes.text();
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.out.push('?');
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.out.push_str("()");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.out.push_str("[*]");
        visitor.visit_seq(Items { shapes: self.shapes, left: 1, fields: &[], out: self.out })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let mut items = String::new();
        let value = visitor.visit_seq(Items { shapes: self.shapes, left: len, fields: &[], out: &mut items })?;
        let same = items.replace("u8", "").trim().is_empty();
        self.out.push_str(&if same { format!("[u8 {len}]") } else { format!("({})", items.trim()) });
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.out.push_str("map");
        visitor.visit_map(Items { shapes: self.shapes, left: 1, fields: &[], out: self.out })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut items = String::new();
        let value = visitor.visit_seq(Items { shapes: self.shapes, left: fields.len(), fields, out: &mut items })?;
        let whole = items.trim_start().to_owned();
        // Two structs of one name (in different rooms) are told apart by what is in them.
        let key = match self.shapes.structs.get(name) {
            Some(known) if *known != whole => format!("{name}'"),
            _ => name.to_owned(),
        };
        self.shapes.structs.insert(key.clone(), whole);
        self.out.push_str(&key);
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.out.push_str(name);
        let known = self.shapes.enums.entry(name.to_owned()).or_default();
        if known.is_empty() {
            known.extend(variants.iter().map(|v| ((*v).to_owned(), None)));
        }
        assert_eq!(known.len(), variants.len(), "two enums are called {name}: give one another name");
        let unknown = known.iter().position(|(_, shape)| shape.is_none());
        let next = self.shapes.pick(name, unknown, variants.len());
        visitor.visit_enum(Variant { shapes: self.shapes, name, index: next })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("names are not asked for in this encoding"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

/// The items of a sequence, tuple, struct or map.
struct Items<'a> {
    shapes: &'a mut Shapes,
    left: usize,
    fields: &'static [&'static str],
    out: &'a mut String,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.out.push(' ');
        if let Some(field) = self.fields.get(self.fields.len().saturating_sub(self.left)) {
            self.out.push_str(field);
            self.out.push(':');
        }
        self.left -= 1;
        seed.deserialize(Tracer { shapes: self.shapes, out: self.out }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.out.push('>');
        seed.deserialize(Tracer { shapes: self.shapes, out: self.out })
    }
}

struct Variant<'a> {
    shapes: &'a mut Shapes,
    name: &'static str,
    index: usize,
}

impl Variant<'_> {
    fn known(self, shape: String) {
        if let Some(variants) = self.shapes.enums.get_mut(self.name) {
            variants[self.index].1 = Some(shape);
        }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let number: U32Deserializer<Error> = u32::try_from(self.index).map_err(Error::custom)?.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.known(String::new());
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let mut shape = String::new();
        let value = seed.deserialize(Tracer { shapes: self.shapes, out: &mut shape })?;
        self.known(shape);
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let mut shape = String::new();
        let value = visitor.visit_seq(Items { shapes: self.shapes, left: len, fields: &[], out: &mut shape })?;
        self.known(shape.trim_start().to_owned());
        Ok(value)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let mut shape = String::new();
        let items = Items { shapes: self.shapes, left: fields.len(), fields, out: &mut shape };
        let value = visitor.visit_seq(items)?;
        self.known(shape.trim_start().to_owned());
        Ok(value)
    }
}
