use super::super::tests::{config, everything};
use super::*;
use crate::adapter::Kind;

#[test]
fn a_deletion_always_names_a_route() {
    let whole = Path {
        family: Some(codes(Family::Ipv4Unicast)),
        nlri_binary: vec![32, 203, 0, 113, 7],
        ..Path::default()
    };
    let made = deletion(0, &whole).unwrap();
    assert!(made.path.is_some_and(|p| p.is_withdraw && p.nlri_binary == whole.nlri_binary));
    assert_eq!(deletion(0, &Path::default()), None);
    assert_eq!(deletion(0, &Path { family: None, ..whole.clone() }), None);
    assert_eq!(deletion(0, &Path { nlri_binary: Vec::new(), ..whole }), None);
}

#[test]
fn what_is_written_is_known_again() {
    let config = config(Kind::Gobgp);
    let wanted = everything();
    let (additions, deletions, refused) = changes(&config, &wanted, &Present::new());
    assert_eq!((additions.len(), deletions.len(), refused.len()), (5, 0, 0));
    let mut present = Present::new();
    for (expected, path) in additions {
        let key = key(expected.family(), &path.nlri_binary).unwrap();
        assert_eq!(key, expected);
        let number = mark(&config, &path);
        assert!(number.is_some());
        present.insert(key, Own { number, path });
    }
    let (additions, deletions, refused) = changes(&config, &wanted, &present);
    assert_eq!((additions.len(), deletions.len(), refused.len()), (0, 0, 0));
    let (_, deletions, _) = changes(&config, &Wanted::new(), &present);
    assert_eq!(deletions.len(), 5);
}

#[test]
fn an_operators_route_stays() {
    let config = config(Kind::Gobgp);
    let wanted = everything();
    let hole = RouteKey::Unicast("203.0.113.7/32".parse().unwrap());
    let path = Path { nlri_binary: vec![32, 203, 0, 113, 7], ..Path::default() };
    let present = Present::from([(hole.clone(), Own { number: None, path })]);
    let (additions, deletions, refused) = changes(&config, &wanted, &present);
    assert!(additions.iter().all(|(key, _)| *key != hole));
    assert_eq!((additions.len(), deletions.len()), (4, 0));
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&hole]);
    assert!(changes(&config, &Wanted::new(), &present).1.is_empty());
}

#[test]
fn only_what_gobgp_originates_is_its_own() {
    let from = |neighbor_ip: &str| Path { neighbor_ip: neighbor_ip.into(), ..Path::default() };
    assert!(is_local(&from("<nil>")) && is_local(&from("")));
    assert!(!is_local(&from("127.0.0.1")) && !is_local(&from("2001:db8::1")));
}

#[test]
fn long_attributes_have_long_lengths() {
    let long = attribute(OPTIONAL_TRANSITIVE, 8, &[0; 256]).unwrap();
    assert_eq!(long[..4], [0xd0, 8, 1, 0]);
    assert_eq!(attribute(WELL_KNOWN, 1, &[0]).unwrap(), [0x40, 1, 1, 0]);
}
