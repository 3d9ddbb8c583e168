//! Server-sent events: lines of `field: value`, an empty line ends an event.

/// Largest event: a snapshot and its signature, escaped once more.
const EVENT_MAX: usize = 2 * crate::protocol::PAYLOAD_MAX;

/// Events of a stream, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// Takes the next piece; returns the data of every event that it completes. Comments keep the connection
    /// alive and yield nothing.
    ///
    /// # Errors
    /// The size reached, when an event does not end.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, usize> {
        let mut done = Vec::new();
        for octet in piece {
            if *octet != b'\n' {
                self.line.push(*octet);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() && !self.data.is_empty() {
                done.push(std::mem::take(&mut self.data));
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        let held = self.line.len() + self.data.len();
        if held > EVENT_MAX { Err(held) } else { Ok(done) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_cut() {
        let stream = b": hello\nevent: state\ndata: {\"a\":1}\n\ndata:x\r\n\r\n\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                found.extend(events.push(piece).unwrap());
            }
            assert_eq!(found, [b"{\"a\":1}".to_vec(), b"x".to_vec()], "{cut}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let piece = vec![b'a'; 1 << 20];
        assert!((0..40).any(|_| events.push(&piece).is_err()));
    }
}
