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
    pub(super) fn one(&self, value: &Value, text: &str) -> anyhow::Result<()> {
        match self.form {
            Form::Json | Form::Csv => write(&format!("{value:#}")),
            Form::Table => write(text.trim_end()),
        }
    }

    /// Writes a list.
    pub(super) fn list(&self, list: &Value, columns: &[Column]) -> anyhow::Result<()> {
        let empty = Vec::new();
        let rows = list.as_array().unwrap_or(&empty);
        match self.form {
            Form::Json => write(&format!("{list:#}")),
            Form::Csv => write(csv(rows, columns).trim_end()),
            Form::Table => write(table(rows, columns).trim_end()),
        }
    }
}

/// Ends quietly when whoever reads has seen enough.
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
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
    let quote = |field: String| {
        let formula = field.starts_with(['=', '+', '@', '\t', '\r']);
        let field = if formula { format!("'{field}") } else { field };
        if field.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field
        }
    };
    let line = |fields: Vec<String>| fields.join(",") + "\r\n";
    let mut text = line(columns.iter().map(|(title, ..)| (*title).to_owned()).collect());
    for row in rows {
        let fields = columns.iter().map(|(_, at, how)| {
            quote(match (row.pointer(at), how) {
                (None | Some(Value::Null), _) => String::new(),
                (Some(value), As::Time) => time(value),
                (Some(Value::Array(list)), As::Count) => list.len().to_string(),
                (Some(value), _) => plain(value),
            })
        });
        text.push_str(&line(fields.collect()));
    }
    text
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
    fn csv_is_quoted() {
        let rows = [json!({"id": "=a,\"b\""})];
        assert_eq!(csv(&rows, COLUMNS), "id,at,tags\r\n\"'=a,\"\"b\"\"\",,\r\n");
    }
}
