//! Netlink's layout: messages and attributes, both of a length that is checked before it is believed.
//!
//! ```text
//! message    length:4  type:2  flags:2  sequence:4  port:4 | family:1 version:1 resource:2 | attributes
//! attribute  length:2  type:2 (bit 15: nested) | value, padded to 4
//! ```

/// Octets of a message header with nfnetlink's own part.
pub(super) const HEADER: usize = 20;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    /// What follows the 16 octets that all netlink messages share.
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// nfnetlink's attributes.
    pub(super) fn attributes(self) -> Attributes<'a> {
        Attributes(self.body.get(4..).unwrap_or_default())
    }
}

/// The messages of one datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;
    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(array(self.0.get(..4)?)?)).ok()?;
        let kind = u16::from_ne_bytes(array(self.0.get(4..6)?)?);
        let body = self.0.get(16..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    }
}

/// A sequence of attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a type.
    pub(super) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The same, itself a sequence.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Attributes)
    }

    /// The same as text, without its closing zero.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// The same as a number in network order.
    pub(super) fn number64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(array(self.find(kind)?)?))
    }

    /// The same as a number in network order.
    pub(super) fn number32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(array(self.find(kind)?)?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        const TYPE_MASK: u16 = 0x3fff;
        let length = usize::from(u16::from_ne_bytes(array(self.0.get(..2)?)?));
        let kind = u16::from_ne_bytes(array(self.0.get(2..4)?)?) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn array<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    octets.try_into().ok()
}

/// Adds a text attribute.
pub(super) fn push_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let length = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(text.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_end_the_walk() {
        for bytes in [&[][..], &[0; 4], &[255; 64], &[3, 0, 1, 0, 0, 0, 0, 0], &[64, 0, 1, 0]] {
            assert!(Attributes(bytes).count() <= 1);
            assert!(Messages(bytes).count() <= 1);
        }
    }

    #[test]
    fn attributes_come_back() {
        let mut out = Vec::new();
        push_text(&mut out, 1, "weir");
        push_text(&mut out, 2, "svc4");
        assert_eq!(Attributes(&out).text(2), Some("svc4"));
        assert_eq!(Attributes(&out).text(3), None);
    }
}
