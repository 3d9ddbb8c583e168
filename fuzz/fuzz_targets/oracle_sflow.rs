//! sFlow beside sflow-parser.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../collector/tests/support/oracles.rs"]
#[allow(dead_code)]
mod oracles;

fuzz_target!(|data: &[u8]| {
    oracles::sflow(data);
});
