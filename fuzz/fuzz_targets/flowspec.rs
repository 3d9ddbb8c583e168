//! FlowSpec rules: what is read, is written the same; what weir can say, it can send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_bgp::flowspec::{self, Afi};
use weir_bgp::rib::RouteKey;
use weir_model::{Action, Filter, Match, Measure};

fuzz_target!(|data: &[u8]| {
    for afi in [Afi::Ipv4, Afi::Ipv6] {
        for (_, rule) in flowspec::decode_all(afi, data) {
            let Ok(rule) = rule else { continue };
            assert!(!rule.to_string().is_empty());
            if let Ok(sent) = flowspec::encode_nlri(&rule) {
                assert!(sent.len() <= flowspec::MAX_BODY + 1);
                assert_eq!(flowspec::decode(afi, &sent).as_ref(), Ok(&rule));
            }
            if let Ok(packets) = Match::try_from(&rule) {
                let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
                let _ = RouteKey::of(&measure);
            }
        }
    }
});
