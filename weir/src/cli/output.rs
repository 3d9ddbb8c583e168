//! Tables for people, JSON and CSV for programs.

use std::io::Write as _;

use serde_json::Value;

use crate::text::Si;

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Aligned columns.
    Table,
    /// As the API gave it.
    Json,
    /// With a first line of names.
    Csv,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    form: Form,
}

/// How a value is written in a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum As {
    /// As it is.
    Text,
    /// Milliseconds since 1970 as a time.
    Time,
    /// With a prefix: 1.2 M.
    Number,
    /// How many there are.
    Count,
}

/// A column: its title, where its value stands, and how it is written.
pub(super) type Column = (&'static str, &'static str, As);

impl Output {
    /// In this form.
    pub const fn new(form: Form) -> Self {
        Self { form }
    }

    /// Whether people read it, or a spreadsheet.
    pub(super) fn is_text(&self) -> bool {
        !matches!(self.form, Form::Json)
    }

    /// Writes one thing: in a table, the given text.
    ///
    /// # Errors
    /// When it is to be CSV and has parts that fit in no row.
    pub(super) fn one(&self, value: &Value, text: &str) -> anyhow::Result<()> {
        match self.form {
            Form::Json => say(&format!("{value:#}")),
            Form::Csv => say(row(value)?.trim_end()),
            Form::Table => say(text.trim_end()),
        }
    }

    /// Writes a list.
    pub(super) fn list(&self, list: &Value, columns: &[Column]) -> anyhow::Result<()> {
        let empty = Vec::new();
        let rows = list.as_array().unwrap_or(&empty);
        match self.form {
            Form::Json => say(&format!("{list:#}")),
            Form::Csv => say(csv(rows, columns).trim_end()),
            Form::Table => say(table(rows, columns).trim_end()),
        }
    }
}

/// Standard output that ends quietly when whoever reads has seen enough: `| head` is no failure.
#[derive(Debug, Default)]
pub struct Stdout {
    closed: bool,
}

impl Stdout {
    fn done<T>(&mut self, outcome: std::io::Result<T>, enough: T) -> std::io::Result<T> {
        match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(enough)
            }
            other => other,
        }
    }
}

impl std::io::Write for Stdout {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        if self.closed {
            return Ok(octets.len());
        }
        let outcome = std::io::stdout().lock().write(octets);
        self.done(outcome, octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let outcome = std::io::stdout().lock().flush();
        self.done(outcome, ())
    }
}

/// Writes a text and a line's end to standard output.
///
/// # Errors
/// What the system says, but that nobody reads on.
pub fn say(text: &str) -> anyhow::Result<()> {
    let mut out = Stdout::default();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

pub(super) fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines: Vec<Vec<String>> =
        vec![columns.iter().map(|(title, ..)| (*title).to_uppercase()).collect()];
    for row in rows {
        lines.push(columns.iter().map(|(_, at, how)| cell(row.pointer(at), *how)).collect());
    }
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (field, width) in line.iter().zip(&widths) {
            let gap = width - field.chars().count() + 2;
            text.push_str(field);
            text.extend(std::iter::repeat_n(' ', gap));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Control characters never reach the terminal, wherever the text comes from.
fn cell(value: Option<&Value>, how: As) -> String {
    let number = value.and_then(Value::as_f64);
    let text = match (value, how) {
        (None | Some(Value::Null), _) => "-".to_owned(),
        (Some(value), As::Time) => time(value),
        (Some(_), As::Number) => {
            number.map_or_else(|| "-".to_owned(), |n| Si(n).to_string().trim().to_owned())
        }
        (Some(Value::Array(list)), As::Count) => list.len().to_string(),
        (Some(Value::Array(list)), _) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        (Some(value), _) => plain(value),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |ms| weir_model::Millis(ms).to_string())
}

fn csv(rows: &[Value], columns: &[Column]) -> String {
    let mut text = line(columns.iter().map(|(title, ..)| (*title).to_owned()));
    for row in rows {
        text.push_str(&line(columns.iter().map(|(_, at, how)| match (row.pointer(at), how) {
            (None | Some(Value::Null), _) => String::new(),
            (Some(value), As::Time) => time(value),
            (Some(Value::Array(list)), As::Count) => list.len().to_string(),
            (Some(value), _) => plain(value),
        })));
    }
    text
}

fn line(fields: impl Iterator<Item = String>) -> String {
    let quote = |field: String| {
        let formula = field.starts_with(['=', '+', '@', '\t', '\r']);
        let field = if formula { format!("'{field}") } else { field };
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field
        }
    };
    fields.map(quote).collect::<Vec<_>>().join(",") + "\r\n"
}

/// One thing as a line of names and a line of values; what is in another thing is named with a dot.
fn row(value: &Value) -> anyhow::Result<String> {
    fn flatten(
        name: &str,
        value: &Value,
        fields: &mut Vec<(String, String)>,
    ) -> anyhow::Result<()> {
        match value {
            Value::Object(parts) => parts.iter().try_for_each(|(part, value)| {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{part}"), value, fields)
            }),
            Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
                anyhow::bail!("{name:?} is a list, which fits in no CSV row: ask with --json")
            }
            Value::Array(list) => {
                let list = list.iter().map(plain).collect::<Vec<_>>().join(" ");
                fields.push((name.to_owned(), list));
                Ok(())
            }
            Value::Null => {
                fields.push((name.to_owned(), String::new()));
                Ok(())
            }
            value => {
                fields.push((name.to_owned(), plain(value)));
                Ok(())
            }
        }
    }
    if value.is_null() {
        return Ok(String::new());
    }
    let mut fields = Vec::new();
    flatten("", value, &mut fields)?;
    let (names, values): (Vec<String>, Vec<String>) = fields.into_iter().unzip();
    Ok(line(names.into_iter()) + &line(values.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] =
        &[("id", "/id", As::Text), ("at", "/at", As::Time), ("tags", "/tags", As::Count)];

    #[test]
    fn columns_are_aligned_and_escapes_disarmed() {
        let rows = [json!({"id": "a\u{1b}[2J", "at": 0, "tags": [1, 2]}), json!({"id": "longer"})];
        assert_eq!(
            table(&rows, COLUMNS),
            "ID      AT                        TAGS\n\
             a [2J   1970-01-01T00:00:00.000Z  2\n\
             longer  -                         -\n"
        );
    }

    #[test]
    fn one_thing_is_one_row_or_an_error() {
        let status =
            json!({"at": 5, "mode": "auto", "tags": ["a", "b"], "of": {"x": null, "y": 1.5}});
        assert_eq!(row(&status).unwrap(), "at,mode,of.x,of.y,tags\r\n5,auto,,1.5,a b\r\n");
        let nested = json!({"id": 1, "rules": [{"id": 2}]});
        assert!(row(&nested).unwrap_err().to_string().contains("\"rules\""));
        assert_eq!(row(&Value::Null).unwrap(), "");
    }

    #[test]
    fn csv_is_quoted() {
        let rows = [json!({"id": "=a,\"b\""})];
        assert_eq!(csv(&rows, COLUMNS), "id,at,tags\r\n\"'=a,\"\"b\"\"\",,\r\n");
    }
}
