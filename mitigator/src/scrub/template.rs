//! Requests with holes: `${name}` is filled in, with what each place needs to stay well-formed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No value of that name.
    #[error("${{{0}}} is not known")]
    Unknown(String),
    /// A `${` without its end.
    #[error("a ${{ is not closed")]
    Open,
    /// Not one of GET, POST, PUT, PATCH, DELETE.
    #[error("method {0} is not known")]
    Method(String),
}

/// Values by name.
pub(crate) type Values = BTreeMap<String, String>;

/// How a value is written where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Inside a URL: everything but unreserved characters is escaped (RFC 3986 §2.1).
    Url,
    /// Inside a JSON string (RFC 8259 §7).
    Json,
}

/// A request with holes. Path and body may hold what the service takes for a password: neither is ever shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestTemplate {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: String,
    /// Appended to the service's address; holes are escaped as URL parts.
    #[serde(default, serialize_with = "hide")]
    pub path: String,
    /// JSON with holes inside its strings; empty for none.
    #[serde(default, serialize_with = "hide")]
    pub body: String,
}

fn hidden(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "***" }
}

fn hide<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(hidden(text))
}

impl fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTemplate")
            .field("method", &self.method)
            .field("path", &hidden(&self.path))
            .field("body", &hidden(&self.body))
            .finish()
    }
}

impl RequestTemplate {
    /// Method, path and body with the holes filled.
    pub(crate) fn fill(
        &self,
        values: &Values,
    ) -> Result<(&'static str, String, String), TemplateError> {
        const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let method = METHODS.into_iter().find(|m| *m == self.method);
        let method = method.ok_or_else(|| TemplateError::Method(self.method.clone()))?;
        let path = fill(&self.path, values, Place::Url)?;
        let body = fill(&self.body, values, Place::Json)?;
        Ok((method, path, body))
    }
}

pub(crate) fn fill(template: &str, values: &Values, place: Place) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or(TemplateError::Open)? + at;
        let name = &rest[at + 2..end];
        let value = values.get(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
        escape(&mut out, value, place);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn escape(out: &mut String, value: &str, place: Place) {
    use std::fmt::Write as _;
    match place {
        Place::Url => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        Place::Json => {
            for c in value.chars() {
                match c {
                    '"' | '\\' => {
                        out.push('\\');
                        out.push(c);
                    }
                    c if u32::from(c) < 0x20 => {
                        let _ = write!(out, "\\u{:04x}", u32::from(c));
                    }
                    c => out.push(c),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_their_place() {
        let values: Values =
            [("a".to_owned(), "203.0.113.0/24\"}\n\\?".to_owned())].into_iter().collect();
        let check = |template: &str, place, expected: Result<&str, TemplateError>| {
            assert_eq!(fill(template, &values, place), expected.map(str::to_owned), "{template}");
        };
        check("/x/${a}/y", Place::Url, Ok("/x/203.0.113.0%2F24%22%7D%0A%5C%3F/y"));
        check(r#"{"a":"${a}"}"#, Place::Json, Ok("{\"a\":\"203.0.113.0/24\\\"}\\u000a\\\\?\"}"));
        check("$a {a} ${a", Place::Url, Err(TemplateError::Open));
        check("${b}", Place::Url, Err(TemplateError::Unknown("b".into())));
    }
}
