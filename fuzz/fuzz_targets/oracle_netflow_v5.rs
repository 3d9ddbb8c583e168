//! NetFlow version 5 beside netflow_parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../collector/tests/support/oracles.rs"]
#[allow(dead_code)]
mod oracles;

fuzz_target!(|data: &[u8]| {
    oracles::netflow_v5(data);
});
