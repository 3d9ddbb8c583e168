//! What the configuration holds and nobody is shown: keys, addresses whose path or user is a credential, and
//! values that services want. None of these types can be written out by serde or `{:?}`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize, Serializer};

/// A text that is never shown: neither in logs nor in a dump of the configuration.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// An address of which only scheme, host and port are ever shown: many services hide a token in the path.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The whole address.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        origin(&self.0)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.origin())
    }
}

/// Scheme, host and port of an address; only the scheme where they cannot be told from a password.
pub fn origin(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (_, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let port = match place.rsplit_once(']') {
        Some((_, port)) => port.strip_prefix(':'),
        None => place.split_once(':').map(|(_, port)| port),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return format!("{scheme}://");
    }
    format!("{scheme}://{place}")
}

/// Texts by name, of which only the names are ever shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(BTreeMap<String, String>);

impl Deref for Hidden {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Hidden {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(String, String)> for Hidden {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, "***")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_the_origin_is_shown() {
        for (url, shown) in [
            ("https://hooks.example.net/T0/s3cret", "https://hooks.example.net"),
            ("https://hooks.example.net:8443?key=s3cret", "https://hooks.example.net:8443"),
            ("https://me:s3cret@example.net/x", "https://example.net"),
            ("https://me:s3/cret@example.net/x", "https://"),
            ("http://[2001:db8::1]:8080#s3cret", "http://[2001:db8::1]:8080"),
            ("http://[2001:db8::1]/s3cret", "http://[2001:db8::1]"),
            ("s3cret", ""),
        ] {
            let address = Address::from(url);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("{shown:?}"));
            assert_eq!((format!("{address:?}"), address.to_string()), (shown.into(), shown.into()));
            assert_eq!(address.expose(), url);
        }
    }

    #[test]
    fn of_a_secret_nothing_is_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn of_values_only_the_names_are_shown() {
        let values: Hidden = [("token".to_owned(), "s3cret".to_owned())].into_iter().collect();
        assert_eq!(format!("{values:?}"), "{\"token\"}");
        assert_eq!(serde_json::to_string(&values).unwrap(), "{\"token\":\"***\"}");
    }
}
