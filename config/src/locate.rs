//! Where in the file a contradiction stands: errors begin with the key they are about.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Fault, Place};

/// Each error with its place in `text`, as far as it can be told.
pub(crate) fn locate(text: &str, errors: Vec<String>) -> Vec<Fault> {
    let document = DeTable::parse(text).ok();
    let place = |what: &str| {
        let offset = find(document.as_ref()?.get_ref(), what)?;
        Some(Place::of(text, offset))
    };
    errors.into_iter().map(|what| Fault { place: place(&what), what }).collect()
}

/// Follows `bgp.peer "edge1": hold_time_secs: ...` or `mitigator.ttl_secs = 5 ...` as far as the file has
/// it, and gives where the last part of it begins; `None` when the file has none of it.
fn find(document: &DeTable<'_>, what: &str) -> Option<usize> {
    let end = what.find(|c: char| !is_key(c) && c != '.').unwrap_or(what.len());
    let (path, rest) = what.split_at(end);
    let mut found = None;
    let mut here: Option<&DeTable<'_>> = Some(document);
    let mut list: Option<&Spanned<DeValue<'_>>> = None;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let Some((name, value)) = here.and_then(|table| entry(table, key)) else { break };
        found = Some(name.span().start);
        here = value.get_ref().as_table();
        list = Some(value);
    }
    let quoted = rest.strip_prefix(" \"").and_then(|rest| rest.split_once('"'));
    let Some((name, rest)) = quoted else { return found };
    let elements = list.and_then(|value| value.get_ref().as_array());
    let element = elements.into_iter().flatten().find(|element| is_called(element, name));
    let Some(element) = element else { return found };
    found = Some(element.span().start);
    let field = rest.trim_start_matches([':', ' ']);
    let field = &field[..field.find(|c| !is_key(c)).unwrap_or(field.len())];
    let inner = element.get_ref().as_table().and_then(|table| entry(table, field));
    inner.map(|(name, _)| name.span().start).or(found)
}

const fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn entry<'a, 'i>(
    table: &'a DeTable<'i>,
    key: &str,
) -> Option<(&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    table.iter().find(|(name, _)| name.get_ref() == key)
}

fn is_called(element: &Spanned<DeValue<'_>>, name: &str) -> bool {
    let table = element.get_ref().as_table();
    let value = table.and_then(|table| entry(table, "name").or_else(|| entry(table, "address")));
    value.is_some_and(|(_, value)| value.get_ref().as_str() == Some(name))
}
