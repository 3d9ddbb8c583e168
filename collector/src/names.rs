//! What an exporter calls its interfaces: by options (interfaceName, interfaceDescription), by sFlow's port
//! names, and by the operator, whose word stands. Names are shown and nothing is decided by them.

use std::collections::BTreeMap;

use weir_model::InterfaceStatus;

use crate::fields::{Element, number};
use crate::read::be16;
use crate::template::{Kind, Template, VARIABLE};

/// Interfaces of one exporter whose names are kept.
const MAX_NAMES: usize = 4096;
/// Characters of a name.
const MAX_CHARACTERS: usize = 64;

/// What is known of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    name: Box<str>,
    description: Box<str>,
    /// By the operator.
    set: Option<Box<str>>,
}

impl Name {
    /// Says it.
    pub(crate) fn tell(&self, status: &mut InterfaceStatus) {
        let name = self.set.as_ref().unwrap_or(&self.name);
        (status.name, status.description) = (name.to_string(), self.description.to_string());
    }
}

/// The names of one exporter's interfaces, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<u32, Name>);

impl Names {
    pub(crate) fn new(set: &BTreeMap<u32, String>) -> Self {
        let mut names = Self::default();
        names.set(set);
        names
    }

    /// Takes what the operator calls them now.
    pub(crate) fn set(&mut self, set: &BTreeMap<u32, String>) {
        self.0.values_mut().for_each(|name| name.set = None);
        for (index, text) in set {
            self.0.entry(*index).or_default().set = Some(text.as_str().into());
        }
    }

    /// Takes what the exporter says; an empty text says nothing.
    pub(crate) fn told(&mut self, index: u32, name: &[u8], description: &[u8]) {
        if index == 0 || (self.0.len() >= MAX_NAMES && !self.0.contains_key(&index)) {
            return;
        }
        let (name, description) = (text(name), text(description));
        if name.is_empty() && description.is_empty() {
            return;
        }
        let known = self.0.entry(index).or_default();
        for (text, own) in [(name, &mut known.name), (description, &mut known.description)] {
            if !text.is_empty() && text != **own {
                *own = text.into();
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Name)> {
        self.0.iter().map(|(index, name)| (*index, name))
    }
}

/// A text from the network, filled up with zeros or blanks: what can be printed of it.
fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
    let text = String::from_utf8_lossy(octets.get(..end).unwrap_or_default());
    let clean = text.trim().chars().take(MAX_CHARACTERS);
    clean.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether an options template tells names of interfaces.
pub(crate) fn are_told(kind: Kind, elements: impl IntoIterator<Item = Element>) -> bool {
    let named = |element| matches!(element, Element::Iana(82 | 83));
    kind != Kind::Data && elements.into_iter().any(named)
}

/// An options record with the name of an interface, which its scope says or, as Cisco has it, a field. Read field by field: such
/// records are rare.
pub(crate) fn option(names: &mut Names, template: &Template, record: &[u8]) {
    let (mut index, mut name, mut description): (u64, &[u8], &[u8]) = (0, &[], &[]);
    let mut rest = record;
    for field in &template.fields {
        let mut len = usize::from(field.len);
        if field.len == VARIABLE {
            let (long, skip) = match (rest.first(), be16(rest, 1)) {
                (Some(255), Some(long)) => (usize::from(long), 3),
                (Some(short), _) => (usize::from(*short), 1),
                (None, _) => return,
            };
            len = long;
            rest = rest.get(skip..).unwrap_or_default();
        }
        let Some((value, after)) = rest.split_at_checked(len) else { return };
        rest = after;
        match field.element {
            Element::Iana(10 | 14 | 252 | 253) | Element::V9Scope(2) if index == 0 => {
                index = number(value);
            }
            Element::Iana(82) => name = value,
            Element::Iana(83) => description = value,
            _ => {}
        }
    }
    if let Ok(index) = u32::try_from(index) {
        names.told(index, name, description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(names: &Names, index: u32) -> (String, String) {
        let mut status = InterfaceStatus::default();
        names.0[&index].tell(&mut status);
        (status.name, status.description)
    }

    #[test]
    fn the_operators_word_stands_and_texts_are_cleaned() {
        let mut names = Names::new(&BTreeMap::from([(3, "transit-a".to_owned())]));
        names.told(3, b"ge-0/0/3\0\0\0", b"");
        names.told(4, b" xe-0/0/4 ", b"to \x1b[31mrack 7\xff");
        assert_eq!(status(&names, 3), ("transit-a".to_owned(), String::new()));
        assert_eq!(status(&names, 4), ("xe-0/0/4".to_owned(), "to  [31mrack 7\u{fffd}".to_owned()));
        // A record without a text takes nothing away.
        names.told(4, b"", b"");
        assert_eq!(status(&names, 4).0, "xe-0/0/4");
        names.set(&BTreeMap::new());
        assert_eq!(status(&names, 3).0, "ge-0/0/3");
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        for index in 0..10_000 {
            names.told(index, &[b'x'; 1000], b"");
        }
        assert_eq!(names.0.len(), MAX_NAMES);
        assert_eq!(status(&names, 1).0.len(), MAX_CHARACTERS);
    }
}
