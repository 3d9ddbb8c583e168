//! What is wrong beside attacks, and groups that say who is told.

use weir_model::{Condition, ConditionKind, Conditions, PolicyGroup};

use super::*;

fn silent() -> Conditions {
    let condition = Condition {
        kind: ConditionKind::ExporterSilent,
        subject: "edge1".to_owned(),
        since: Millis::from_secs(1_795_168_960),
        text: "nothing was received from it".to_owned(),
        group: None,
    };
    Conditions { now: vec![condition], settled: false, unknown: Vec::new() }
}

fn ok(job: &Job) -> Reply {
    let _ = job;
    reply(200, json!({"id": "1"}))
}

fn texts(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(|job| String::from_utf8_lossy(&http(job).body).into_owned()).collect()
}

#[test]
fn a_condition_is_told_of_as_what_it_is_and_over_when_it_is() {
    let mut world = World::new(vec![shipped("discord")]);
    world.conditions = silent();
    world.look();
    let told = texts(&world.pass(5, &mut |job| ok(job)));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Exporter is silent: edge1"), "{told:?}");
    assert!(told[0].contains("nothing was received"), "{told:?}");
    assert!(!told[0].contains("bit/s") && !told[0].contains("#/incidents"), "{told:?}");
    // A wave of attacks is another conversation.
    world.set(1, true, json!({}));
    let told = texts(&world.pass(5, &mut |job| ok(job)));
    assert!(told.len() == 1 && told[0].contains("UDP flood on"), "{told:?}");
    // A restart, after which nothing is known at first.
    world.conditions = Conditions::default();
    world.look();
    assert_eq!(texts(&world.pass(60, &mut |job| ok(job))), Vec::<String>::new());
    world.conditions = Conditions { settled: true, ..silent() };
    world.look();
    assert_eq!(texts(&world.pass(60, &mut |job| ok(job))), Vec::<String>::new());
    world.conditions = Conditions { settled: true, ..Conditions::default() };
    world.look();
    let over = texts(&world.pass(40, &mut |job| ok(job)));
    assert!(over.len() == 1 && over[0].contains("Over: Exporter is silent: edge1"), "{over:?}");
}

#[test]
fn every_service_can_tell_of_a_condition() {
    for service in all_services() {
        let mut world = World::new(vec![shipped(&service)]);
        world.conditions = silent();
        world.look();
        let jobs = world.desk.due(world.now + 2000);
        assert_eq!(jobs.len(), 1, "{service}");
    }
}

#[test]
fn a_group_names_who_is_told_of_its_attacks() {
    let channel = |name: &str| ChannelConfig { name: name.to_owned(), ..shipped("discord") };
    let told = |names: &[&str]| {
        let mut world = World::new(vec![channel("noc"), channel("customer")]);
        let group = json!({"name": "acme", "prefixes": ["203.0.113.0/24"], "notify": names});
        let group: PolicyGroup = serde_json::from_value(group).unwrap();
        world.inventory.policies = Arc::new(vec![group].into());
        world.set(1, true, json!({}));
        let mut told: Vec<String> =
            world.pass(5, &mut |job| ok(job)).iter().map(|job| job.to().to_owned()).collect();
        told.sort();
        told
    };
    assert_eq!(told(&["customer"]), ["customer"]);
    assert_eq!(told(&["customer", "noc"]), ["customer", "noc"]);
    assert_eq!(told(&["gone", "noc"]), ["noc"]);
    assert_eq!(told(&["gone"]), ["customer", "noc"], "better too many than nobody");
}
