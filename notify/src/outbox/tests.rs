use super::*;

fn outbox(names: &[&str]) -> Outbox<String> {
    let mut outbox = Outbox::default();
    let receivers = names.iter().map(|name| Receiver::webhook(name, true)).collect();
    outbox.set_receivers(receivers, Millis(0));
    outbox
}

fn queue(outbox: &mut Outbox<String>, to: &str, now: Millis) -> DeliveryId {
    outbox.queue(to, "open", false, |id| id.to_string(), now).unwrap()
}

/// Milliseconds at which a letter was tried while everything is answered so.
fn tried(outbox: &mut Outbox<String>, answer: &Answer, seconds: u64) -> Vec<u64> {
    let mut tried = Vec::new();
    for tenth in 0..seconds * 10 {
        let now = Millis(tenth * 100);
        for due in outbox.due(now) {
            tried.push(now.0);
            outbox.done(due.id, answer, now);
        }
    }
    tried
}

#[test]
fn a_failing_receiver_is_tried_four_times_with_growing_spread_waits() {
    let mut outbox = outbox(&["ops"]);
    queue(&mut outbox, "ops", Millis(0));
    let tried = tried(&mut outbox, &Outcome::Status(503).into(), 120);
    let waits: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 3);
    for (wait, least) in waits.into_iter().zip([2000, 8000, 32_000]) {
        assert!((least..=least * 6 / 5 + 100).contains(&wait), "{wait} {least}");
    }
    let record = outbox.log().next().unwrap();
    assert_eq!((record.tries, &record.outcome), (4, &Outcome::Status(503)));
    assert_eq!(outbox.next_due(), None);
    assert_eq!(outbox.dead().count(), 1);
}

#[test]
fn a_receiver_that_says_when_to_come_back_is_believed() {
    let mut outbox = outbox(&["ops"]);
    queue(&mut outbox, "ops", Millis(0));
    queue(&mut outbox, "ops", Millis(0));
    let busy = Answer { retry_after_ms: Some(20_000), ..Outcome::Status(429).into() };
    let due = outbox.due(Millis(0));
    outbox.done(due[0].id, &busy, Millis(10));
    outbox.done(due[1].id, &Outcome::Status(503).into(), Millis(10));
    assert_eq!(outbox.next_due(), Some(Millis(20_010)), "the whole channel waits");
    assert_eq!(outbox.due(Millis(20_009)), []);
    assert_eq!(outbox.due(Millis(20_010)).len(), 2);
}

#[test]
fn a_circuit_opens_and_one_letter_tries_it() {
    let mut outbox = outbox(&["ops", "other"]);
    for _ in 0..10 {
        queue(&mut outbox, "ops", Millis(0));
    }
    queue(&mut outbox, "other", Millis(0));
    let down: Answer = Outcome::Failed("connection refused".into()).into();
    let mut now = Millis(0);
    while !outbox.line("ops").is_open() {
        for due in outbox.due(now) {
            let up = due.to == "other";
            let answer = if up { Outcome::Status(200).into() } else { down.clone() };
            outbox.done(due.id, &answer, now);
        }
        now = now + 100;
    }
    assert_eq!(outbox.line("ops").trouble, "connection refused");
    assert_eq!(outbox.log().next().unwrap().to, "other", "others go on");
    // The rest of those that were under way when it opened.
    let next = outbox.next_due().unwrap();
    assert!(next >= now + 9_000, "{next} {now}");
    let tests = outbox.queue("ops", "test", true, |id| id.to_string(), now);
    assert_eq!(outbox.due(now).first().map(|due| due.id), tests, "a test goes out all the same");
    outbox.done(tests.unwrap(), &Outcome::Status(401).into(), now);
    let probe = outbox.due(next);
    assert_eq!(probe.len(), 1, "one tries whether it is back");
    outbox.done(probe[0].id, &Outcome::Status(200).into(), next);
    assert!(!outbox.line("ops").is_open());
    assert!(outbox.due(next + 60_000).len() > 1);
}

#[test]
fn a_receiver_that_refuses_is_not_asked_again_until_a_person_says_so() {
    let mut outbox = outbox(&["ops"]);
    let id = queue(&mut outbox, "ops", Millis(5));
    assert_eq!(outbox.queue("nobody", "open", false, |id| id.to_string(), Millis(5)), None);
    assert_eq!(outbox.due(Millis(5))[0].id, id);
    let refused = Answer { said: "{\"error\":\n\"no\"}".into(), ..Outcome::Status(404).into() };
    assert_eq!(outbox.done(id, &refused, Millis(6)).map(|e| e.taken), Some(false));
    assert_eq!(outbox.done(id, &Outcome::Status(200).into(), Millis(7)), None);
    assert_eq!(outbox.dead().next().unwrap().why, "status 404: {\"error\": \"no\"}");
    let outcomes: Vec<_> = outbox.log().map(|r| r.outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Status(404)]);
    assert!(!outbox.resend(DeliveryId(1), Millis(8)));
    assert!(outbox.resend(id, Millis(8)));
    assert_eq!(outbox.dead().count(), 0);
    let due = outbox.due(Millis(8));
    assert_eq!((due[0].id, &due[0].content), (id, &id.to_string()));
}

#[test]
fn a_try_without_an_answer_fails_after_its_time() {
    let mut outbox = outbox(&["ops"]);
    let id = queue(&mut outbox, "ops", Millis(0));
    assert_eq!(outbox.due(Millis(0)).len(), 1);
    assert_eq!((outbox.due(Millis(29_999)), outbox.late(Millis(29_999))), (vec![], vec![]));
    assert_eq!(outbox.late(Millis(30_000)), [id]);
    outbox.done(id, &Outcome::Failed("no answer in time".into()).into(), Millis(30_000));
    assert_eq!(outbox.due(Millis(33_000)).len(), 1);
}

#[test]
fn what_waits_outlives_a_restart_and_numbers_go_on() {
    let mut before = outbox(&["ops", "gone"]);
    let now = Millis(1_000_000);
    let ids = [queue(&mut before, "ops", now), queue(&mut before, "gone", now)];
    let dead = queue(&mut before, "ops", now);
    before.due(now);
    before.done(dead, &Outcome::Status(400).into(), now);
    assert!(before.take_changed() && !before.take_changed());
    let text = serde_json::to_string(&before.kept()).unwrap();

    let mut after: Outbox<String> = Outbox::default();
    after.restore(serde_json::from_str(&text).unwrap());
    after.set_receivers(vec![Receiver::webhook("ops", true)], now);
    assert_eq!(after.due(now).iter().map(|due| due.id).collect::<Vec<_>>(), ids[..1]);
    assert_eq!(after.log().next().unwrap().to, "gone");
    assert_eq!(after.dead().next().unwrap().letter.id, dead);
    // Although the clock went back.
    assert!(queue(&mut after, "ops", Millis(5)) > dead);
    // Without the state file, numbers begin at the clock.
    assert!(queue(&mut outbox(&["ops"]), "ops", now + 1) >= DeliveryId(now.0 + 1));
}

#[test]
fn channels_come_change_and_go_while_letters_wait() {
    let mut outbox = outbox(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        queue(&mut outbox, name, Millis(0));
    }
    let receivers = vec![
        Receiver::webhook("c", true),
        Receiver::webhook("b", false),
        Receiver::webhook("d", true),
    ];
    outbox.set_receivers(receivers, Millis(1));
    let due = outbox.due(Millis(1));
    assert_eq!(due.iter().map(|d| d.to.as_str()).collect::<Vec<_>>(), ["c"]);
    let gone: Vec<&str> = outbox.log().map(|r| r.to.as_str()).collect();
    assert_eq!(gone, ["a", "b"]);
    assert_eq!(outbox.queue("b", "open", false, |id| id.to_string(), Millis(2)), None);
    assert!(outbox.queue("b", "test", true, |id| id.to_string(), Millis(3)).is_some());
    assert_eq!(outbox.due(Millis(3))[0].to, "b", "one that is off can be tried");
    // An answer for what is gone comes late and changes nothing.
    outbox.set_receivers(Vec::new(), Millis(4));
    outbox.done(due[0].id, &Outcome::Status(200).into(), Millis(5));
    assert_eq!((outbox.waiting(None), outbox.log().count()), (0, 4));
}

#[test]
fn what_waits_and_the_log_are_bounded_and_a_slow_receiver_gets_few_at_once() {
    let mut outbox = outbox(&["ops"]);
    for _ in 0..5000 {
        queue(&mut outbox, "ops", Millis(0));
    }
    assert_eq!(outbox.due(Millis(0)).len(), UNDER_WAY_MAX);
    assert_eq!(outbox.dropped(), 5000 - DELIVERIES_MAX as u64);
    for second in 0..2000 {
        let now = Millis::from_secs(second);
        for id in outbox.late(now) {
            outbox.done(id, &Outcome::Status(200).into(), now);
        }
        for due in outbox.due(now) {
            outbox.done(due.id, &Outcome::Status(200).into(), now);
        }
    }
    assert_eq!((outbox.waiting(None), outbox.log().count()), (0, LOG_MAX));
}

#[test]
fn a_service_sets_the_pace() {
    let mut outbox: Outbox<String> = Outbox::default();
    let ops = Receiver { every_ms: 1000, ..Receiver::webhook("ops", true) };
    outbox.set_receivers(vec![ops], Millis(0));
    for _ in 0..3 {
        queue(&mut outbox, "ops", Millis(0));
    }
    assert_eq!(tried(&mut outbox, &Outcome::Status(200).into(), 10), [0, 1000, 2000]);
}
