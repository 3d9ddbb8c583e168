//! An RTR cache that says anything: the reader, and the session behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_bgp::rpki::{Input, Output, Reader, Session};
use weir_model::Millis;

fuzz_target!(|data: &[u8]| {
    let Some((step, data)) = data.split_first() else { return };
    let mut session = Session::default();
    let mut reader = Reader::default();
    let mut now = Millis(0);
    let mut out = Vec::new();
    session.handle(now, Input::Tick, &mut out);
    session.handle(now, Input::Connected, &mut out);
    for part in data.chunks(usize::from(*step).max(1)) {
        reader.push(part);
        now = now + 1_000;
        loop {
            match reader.next_pdu() {
                Ok(Some(pdu)) => session.handle(now, Input::Pdu(pdu), &mut out),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    reader = Reader::default();
                    session.handle(now, Input::Closed, &mut out);
                    session.handle(now, Input::Connected, &mut out);
                    break;
                }
            }
        }
        session.handle(now, Input::Tick, &mut out);
        for output in out.drain(..) {
            if let Output::Replace(table) = output {
                assert!(table.len() <= data.len());
            }
        }
    }
});
