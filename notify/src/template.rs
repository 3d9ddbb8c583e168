//! Texts with holes. The shape of a body is data and its strings alone are templates, so that no value can
//! break out of the string it stands in; inside a string each value is escaped as its reader wants it.

use std::fmt::Write as _;

use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value};
use serde_json::Value as Json;

/// Elements of a list that a template makes, at most.
const LIST_MAX: usize = 100;

/// Depth of a body.
const DEPTH_MAX: usize = 16;

/// What is wrong with a template, in words.
pub(crate) type Wrong = String;

/// The engine: the same for every service.
#[derive(Debug)]
pub(crate) struct Engine {
    environment: Environment<'static>,
}

impl Default for Engine {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // A template is rendered under the name of the escape that its values get.
        environment.set_auto_escape_callback(|name| AutoEscape::Custom(name.to_owned().into()));
        environment.set_formatter(format);
        environment.add_filter("cut", |text: String, max: usize| cut(&text, max));
        environment.add_filter("base64", |text: String| base64(text.as_bytes()));
        environment.add_filter("cef", |text: String| escape("cef", &text));
        environment
            .add_filter("json", |value: Value| serde_json::to_string(&value).unwrap_or_default());
        Self { environment }
    }
}

impl Engine {
    /// A text with its holes filled; `escape` is one of [`ESCAPES`].
    pub(crate) fn text(
        &self,
        escape: &str,
        source: &str,
        context: &Value,
    ) -> Result<String, Wrong> {
        let rendered = self.environment.render_named_str(escape, source, context.clone());
        rendered.map_err(|error| wrong(&error))
    }

    /// What an expression comes to.
    pub(crate) fn value(&self, source: &str, context: &Value) -> Result<Value, Wrong> {
        let expression = self.environment.compile_expression(source).map_err(|e| wrong(&e))?;
        expression.eval(context.clone()).map_err(|error| wrong(&error))
    }

    /// Whether an expression holds. What an answer lacks makes it false.
    pub(crate) fn holds(&self, source: &str, context: &Value) -> bool {
        self.value(source, context).is_ok_and(|value| value.is_true())
    }

    /// A body with its holes filled.
    ///
    /// A string that begins with `=` is an expression, whose value keeps its type; any other string is a text. A
    /// table with `$text` is a text with an escape (`$escape`) or a length (`$max`) of its own; one with `$each`
    /// is a list: `$item` for each element, which is called `it`. A key that ends in `?` is left out where its
    /// value is empty.
    pub(crate) fn body(
        &self,
        escape: &str,
        shape: &toml::Value,
        context: &Value,
        depth: usize,
    ) -> Result<Json, Wrong> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        Ok(match shape {
            toml::Value::String(text) => match text.strip_prefix('=') {
                Some(expression) => to_json(&self.value(expression, context)?),
                None => Json::String(self.text(escape, text, context)?),
            },
            toml::Value::Table(table) if table.contains_key("$text") => {
                let part = |key: &str| table.get(key).and_then(toml::Value::as_str);
                let text = part("$text").ok_or("$text is no string")?;
                let own = part("$escape").unwrap_or(escape);
                if !ESCAPES.contains(&own) {
                    return Err(format!("there is no escape {own:?}"));
                }
                let text = self.text(own, text, context)?;
                let max = table.get("$max").and_then(toml::Value::as_integer);
                let max = max.and_then(|max| usize::try_from(max).ok());
                Json::String(max.map_or_else(|| text.clone(), |max| cut(&text, max)))
            }
            toml::Value::Table(table) if table.contains_key("$each") => {
                let list = table.get("$each").and_then(toml::Value::as_str);
                let item = table.get("$item").ok_or("$each without $item")?;
                let list = self.value(list.ok_or("$each is no string")?, context)?;
                let list = list.try_iter().map_err(|error| wrong(&error))?;
                let element = |it: Value| {
                    let context = minijinja::context! { it => it, ..context.clone() };
                    self.body(escape, item, &context, depth + 1)
                };
                Json::Array(list.take(LIST_MAX).map(element).collect::<Result<_, _>>()?)
            }
            toml::Value::Table(table) => {
                let mut map = serde_json::Map::new();
                for (key, value) in table {
                    let value = self.body(escape, value, context, depth + 1)?;
                    match key.strip_suffix('?') {
                        Some(_) if is_empty(&value) => {}
                        Some(key) => drop(map.insert(key.to_owned(), value)),
                        None => drop(map.insert(key.clone(), value)),
                    }
                }
                Json::Object(map)
            }
            toml::Value::Array(list) => {
                let element = |value| self.body(escape, value, context, depth + 1);
                Json::Array(list.iter().map(element).collect::<Result<_, _>>()?)
            }
            toml::Value::Integer(number) => Json::from(*number),
            toml::Value::Float(number) => Json::from(*number),
            toml::Value::Boolean(yes) => Json::Bool(*yes),
            toml::Value::Datetime(at) => Json::String(at.to_string()),
        })
    }
}

fn wrong(error: &minijinja::Error) -> String {
    error.to_string()
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn to_json(value: &Value) -> Json {
    // An undefined value has no form.
    serde_json::to_value(value).unwrap_or(Json::Null)
}

/// Ways of escaping: `none` for readers that take text as it is.
pub(crate) const ESCAPES: [&str; 6] = ["none", "html", "markdown", "mrkdwn", "url", "cef"];

fn format(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let plain = value.to_string();
    let text = match state.auto_escape() {
        _ if value.is_safe() || value.is_undefined() && plain.is_empty() => plain,
        AutoEscape::Custom(name) => escape(name, &plain),
        _ => plain,
    };
    out.write_str(&text).map_err(|_| minijinja::ErrorKind::WriteFailure.into())
}

/// A value as it stands inside a text of that kind.
pub(crate) fn escape(kind: &str, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    match kind {
        "html" => {
            for c in text.chars() {
                match c {
                    '&' => out.push_str("&amp;"),
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '"' => out.push_str("&quot;"),
                    '\'' => out.push_str("&#39;"),
                    c => out.push(c),
                }
            }
        }
        // Slack: these three, and nothing that makes a format across the value's ends.
        "mrkdwn" => {
            for c in text.chars() {
                match c {
                    '&' => out.push_str("&amp;"),
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '*' | '_' | '~' | '`' => {
                        out.push('\u{200b}');
                        out.push(c);
                    }
                    c => out.push(c),
                }
            }
        }
        "markdown" => {
            let mut before = ' ';
            for c in text.chars() {
                match c {
                    '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '|'
                    | '~' | '>' | '<' | '&' | '!' => {
                        out.push('\\');
                        out.push(c);
                    }
                    // Nobody is called, and no address becomes a link.
                    '@' => out.push_str("@\u{200b}"),
                    '/' if before == ':' => out.push_str("\u{200b}/"),
                    c => out.push(c),
                }
                before = c;
            }
        }
        "url" => {
            for byte in text.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        // ArcSight's Common Event Format: one line, `|`, `=` and `\` behind a backslash.
        "cef" => {
            for c in text.chars() {
                match c {
                    '\\' | '|' | '=' => {
                        out.push('\\');
                        out.push(c);
                    }
                    c if c.is_control() => out.push(' '),
                    c => out.push(c),
                }
            }
        }
        _ => out.push_str(text),
    }
    out
}

/// The first `max` characters, with a mark where something was left out.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    if max > 0 {
        out.push('…');
    }
    out
}

/// RFC 4648 §4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut word = 0u32;
        for at in 0..3 {
            word = word << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * at) & 63).unwrap_or(0);
            out.push(if at > three.len() { '=' } else { char::from(DIGITS[digit]) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> (Engine, Value) {
        let hostile = "x\"}<b>*_`[a](http://e.vil) @everyone |=\\&\n";
        let context = minijinja::context! { name => hostile, list => vec!["a", "b"], number => 7, nothing => "" };
        (Engine::default(), context)
    }

    #[test]
    fn values_cannot_break_out_of_their_text() {
        let (engine, context) = engine();
        let check = |kind: &str, expected: &str| {
            assert_eq!(engine.text(kind, "{{ name }}", &context).unwrap(), expected, "{kind}");
        };
        check("html", "x&quot;}&lt;b&gt;*_`[a](http://e.vil) @everyone |=\\&amp;\n");
        check(
            "mrkdwn",
            "x\"}&lt;b&gt;\u{200b}*\u{200b}_\u{200b}`[a](http://e.vil) @everyone |=\\&amp;\n",
        );
        check(
            "markdown",
            "x\"\\}\\<b\\>\\*\\_\\`\\[a\\]\\(http:\u{200b}//e.vil\\) @\u{200b}everyone \\|=\\\\\\&\n",
        );
        check(
            "url",
            "x%22%7D%3Cb%3E%2A_%60%5Ba%5D%28http%3A%2F%2Fe.vil%29%20%40everyone%20%7C%3D%5C%26%0A",
        );
        check("cef", "x\"}<b>*_`[a](http://e.vil) @everyone \\|\\=\\\\& ");
        assert_eq!(engine.text("html", "<i>{{ number }}</i>", &context).unwrap(), "<i>7</i>");
    }

    #[test]
    fn the_shape_of_a_body_stays_whatever_its_values_are() {
        let (engine, context) = engine();
        let shape: toml::Value = toml::from_str::<toml::Table>(
            r#"
            text = "<b>{{ name }}</b>"
            number = "=number"
            "left_out?" = "{{ nothing }}"
            "there?" = "=number"
            fixed = 3
            short = { "$text" = "{{ name }}", "$escape" = "none", "$max" = 4 }
            list = { "$each" = "list", "$item" = { value = "{{ it }}", of = "=number" } }
            "#,
        )
        .unwrap()
        .into();
        let body = engine.body("html", &shape, &context, 0).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.starts_with("<b>x&quot;}") && text.ends_with("</b>"), "{text}");
        assert_eq!(body["number"], 7);
        assert!(body.get("left_out").is_none() && body["there"] == 7 && body["fixed"] == 3);
        assert_eq!(body["short"], "x\"}…");
        assert_eq!(body["list"][1]["value"], "b");
        assert!(engine.text("html", "{{ unknown }}", &context).is_err());
        assert!(engine.text("html", "{{ name", &context).is_err());
    }

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
