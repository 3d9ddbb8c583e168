use super::*;

const SERVERS: &str = r#"{"object":"list","data":[{"object":"server","attributes":{
 "id":"7","uuid":"7a7ce997-259b-452e-8b4e-cecc464142c1","name":"lob\u001b[31mby\u202e","status":null,
 "suspended":false,"user":11,"node":1,"allocation":101,"egg":1,"limits":[],
 "container":{"startup_command":"LD_PRELOAD=x.so ./RustDedicated +rcon.password hunter2","image":"ghcr.io/x/games:rust",
  "environment":{"RCON_PORT":"28016","QPORT":28017,"RCON_PASS":"hunter2","PORTAL_PIN":"12345","PORT_TOKEN":"4242",
   "BAD_PORT":"99999","ZERO_PORT":0,"STARTUP":"hunter2"}},
 "relationships":{"allocations":{"object":"list","data":[
  {"object":"allocation","attributes":{"id":102,"ip":"::ffff:203.0.113.10","alias":"","port":"28016"}},
  {"object":"allocation","attributes":{"id":101,"ip":"203.0.113.10","alias":"play.example.net","port":28015}},
  {"object":"allocation","attributes":{"id":103,"ip":"nowhere","alias":null,"port":70000}},
  {"object":"allocation","attributes":{"id":101,"ip":"203.0.113.10","alias":null,"port":28015}}]}}}}],
 "meta":{"pagination":{"total":"1","count":1,"per_page":"50","current_page":1,"total_pages":1,"links":{}}}}"#;

#[test]
fn a_server_is_reduced_to_what_is_needed() {
    let page = servers(SERVERS.as_bytes()).unwrap();
    assert_eq!((page.total, page.pages, page.skipped), (1, 1, 1));
    let server = &page.rows[0];
    assert_eq!(server.id, 7);
    assert_eq!(server.name, "lob[31mby");
    assert_eq!(server.program, "RustDedicated");
    assert_eq!(server.image_tag, "rust");
    assert_eq!(
        server.port_variables,
        [("QPORT".to_owned(), 28017), ("RCON_PORT".to_owned(), 28016)]
    );
    let ids: Vec<u64> = server.allocations.iter().map(|a| a.id).collect();
    assert_eq!(ids, [101, 102]);
    assert_eq!(server.allocations[1].ip, Some("203.0.113.10".parse().unwrap()));
    assert_eq!(server.allocations[1].alias, None);
}

#[test]
fn no_secret_leaves_the_parser() {
    let text = format!("{:?}", servers(SERVERS.as_bytes()).unwrap());
    for secret in ["hunter2", "12345", "4242"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    // Nor in errors: a broken body must not be quoted.
    let broken = SERVERS.replace("\"node\":1", "\"node\":\"hunter2\"");
    let error = servers(broken.as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn an_include_that_is_denied_is_not_an_empty_one() {
    let denied = r#"{"data":[{"attributes":{"id":1,"uuid":"u","node":1,"relationships":{"allocations":
        {"object":"null_resource","attributes":null}}}}],"meta":{"pagination":{"total":1,"total_pages":1}}}"#;
    assert_eq!(servers(denied.as_bytes()), Err(ParseError::Forbidden("allocations")));
    let absent = denied.replace("\"allocations\"", "\"other\"");
    assert_eq!(servers(absent.as_bytes()), Err(ParseError::Missing("allocations")));
}

#[test]
fn pages_that_are_not_data_are_told_apart() {
    assert_eq!(nodes(b" \n<!doctype html><p>Login"), Err(ParseError::Html));
    assert!(matches!(nodes(b""), Err(ParseError::Shape { .. })));
    assert!(matches!(nodes(b"[]"), Err(ParseError::Shape { .. })));
    assert_eq!(nodes(b"{\"data\":[]}"), Err(ParseError::Missing("page numbers")));
    let deep = "[".repeat(100_000);
    assert!(matches!(nodes(deep.as_bytes()), Err(ParseError::Shape { .. })));
}

#[test]
fn states_are_understood_and_new_ones_do_no_harm() {
    let check = |status: &str, suspended, expected| assert_eq!(state(status, suspended), expected);
    check("", false, ServerState::Normal);
    check("", true, ServerState::Suspended);
    check("suspended", false, ServerState::Suspended);
    check("install_failed", false, ServerState::Installing);
    check("restoring_backup", false, ServerState::Restoring);
    check("hibernating", false, ServerState::Other);
}

#[test]
fn an_environment_that_is_empty_is_an_array_in_php() {
    let body = SERVERS.split("\"environment\":{").next().unwrap().to_owned()
        + "\"environment\":[]},"
        + SERVERS.split("\"STARTUP\":\"hunter2\"}},").nth(1).unwrap();
    assert_eq!(servers(body.as_bytes()).unwrap().rows[0].port_variables, []);
}

#[test]
fn an_address_of_e_mail_must_be_the_whole_one() {
    let body = br#"{"data":[{"attributes":{"id":3,"username":"x","email":"xowner@example.org"}},
        {"attributes":{"id":4,"username":"y","email":"Owner@Example.org"}}]}"#;
    assert_eq!(user_with_email(body, " owner@example.org"), Ok(Some(4)));
    assert_eq!(user_with_email(body, "wner@example.org"), Ok(None));
    assert_eq!(user_with_email(body, ""), Ok(None));
}
