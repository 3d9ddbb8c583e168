//! Values as panels really send them: numbers as strings, empty objects as arrays, nulls.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most port variables kept of one server.
const PORT_VARIABLES_MAX: usize = 64;
/// Longest name of a variable kept, octets.
const VARIABLE_NAME_MAX: usize = 64;
/// Longest text taken from a value, octets.
const TEXT_MAX: usize = 4096;

/// A scalar of any kind.
enum Scalar {
    Nothing,
    Number(u64),
    Text(String),
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Number(u64::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(u64::try_from(value).map_or(Scalar::Nothing, Scalar::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        let end = value.floor_char_boundary(TEXT_MAX);
        Ok(Scalar::Text(value[..end].to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }
}

impl Scalar {
    fn number(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Number(n) => Some(n),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// A number, or a string that holds one.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    optional_number(deserializer)?.ok_or_else(|| serde::de::Error::custom("no number"))
}

/// A number, a string that holds one, or nothing.
pub(super) fn optional_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    Ok(deserializer.deserialize_any(ScalarVisitor)?.number())
}

/// A text, or nothing as an empty one.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Nothing => String::new(),
        Scalar::Number(n) => n.to_string(),
        Scalar::Text(text) => text,
    })
}

/// A list of texts; anything else is an empty one.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element::<Element>()? {
                if let Scalar::Text(text) = item.0
                    && list.len() < 32
                {
                    list.push(text);
                }
            }
            Ok(list)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Vec::new())
        }
    }
    deserializer.deserialize_any(Texts)
}

struct Element(Scalar);

impl<'de> serde::Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

/// The port variables of an environment, and nothing else of it. PHP writes an empty one as `[]`.
pub(super) fn environment<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, u16)>, D::Error> {
    struct Ports;
    impl<'de> Visitor<'de> for Ports {
        type Value = Vec<(String, u16)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an environment")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut ports = Vec::new();
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                if !speaks_of_a_port(&name) || ports.len() == PORT_VARIABLES_MAX {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                let value = map.next_value::<Element>()?.0.number();
                if let Some(port) = value.and_then(|n| u16::try_from(n).ok()).filter(|p| *p > 0) {
                    ports.push((name.to_ascii_uppercase(), port));
                }
            }
            ports.sort();
            Ok(ports)
        }
    }
    deserializer.deserialize_any(Ports)
}

/// Whether one of the words of a name ends in `PORT` and none speaks of a secret: `RCON_PORT` and
/// `QPORT` do, `PORTAL_PIN` and `EXPORT_PASSWORD` do not.
fn speaks_of_a_port(name: &str) -> bool {
    const SECRETS: [&str; 8] =
        ["PASS", "PASSWORD", "TOKEN", "SECRET", "KEY", "PIN", "PASSWD", "PWD"];
    let upper = name.to_ascii_uppercase();
    name.len() <= VARIABLE_NAME_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && upper.split('_').any(|w| w.ends_with("PORT") && !w.ends_with("EXPORT"))
        && !upper.split('_').any(|w| SECRETS.contains(&w))
}
