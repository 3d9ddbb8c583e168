//! NetFlow version 9 beside netflow_parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../collector/tests/support/oracles.rs"]
#[allow(dead_code)]
mod oracles;

fuzz_target!(|data: &[u8]| {
    // Two octets of length before each datagram.
    let (mut datagrams, mut rest) = (Vec::new(), data);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (datagram, after) = after.split_at(len);
        datagrams.push(datagram);
        rest = after;
    }
    oracles::netflow_v9(&datagrams);
});
