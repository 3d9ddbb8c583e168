//! The API document against the API: what schemathesis makes of it meets no 500, no answer of another
//! shape, and no success without a right to it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use weir_tests::process::{Archive, Weir, text};
use weir_tests::{lab::find_program, skip};

/// Under the hundred requests a second that one address may make; refusals test nothing.
const REQUESTS: &str = "--rate-limit=90/s";

/// Where it answers, as its log says.
fn address(weir: &Weir) -> String {
    let log = weir.log();
    let after = |mark: &str| log.split_once(mark).map(|(_, rest)| rest.to_owned());
    let rest = after("\"api\":\"").or_else(|| after("api=")).expect("the log names the API");
    rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
}

/// Runs schemathesis within a time; everything it said, when it found something.
fn fuzz(address: &str, seconds: &str, arguments: &[&str]) -> Result<(), String> {
    let program = std::env::var_os("WEIR_SCHEMATHESIS").map(Into::into);
    let program = program.or_else(|| find_program("schemathesis")).expect("looked for before");
    let folder = tempfile::tempdir().unwrap();
    let out = Command::new(program)
        .arg("run")
        .arg(format!("http://{address}/api/v1/openapi.json"))
        .args(["--seed=1", "--no-shrink", "--warnings=off", "--phases=coverage,fuzzing"])
        .args(["--max-time", seconds, REQUESTS])
        // Answers for two minutes; tests of its own.
        .arg("--exclude-path=/api/v1/live")
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = text(&out) + &String::from_utf8_lossy(&out.stderr);
    if out.status.success() && said.contains("Test cases:") { Ok(()) } else { Err(said) }
}

#[test]
fn the_document_is_kept_with_a_token_and_without() {
    let test = "the_document_is_kept_with_a_token_and_without";
    if std::env::var_os("WEIR_SCHEMATHESIS").is_none() && find_program("schemathesis").is_none() {
        skip(test, "not installed: schemathesis (from PyPI, on the path or in WEIR_SCHEMATHESIS)");
        return;
    }
    let archive = tempfile::tempdir().unwrap();
    let _flows = Archive::start(archive.path());
    let socket = archive.path().join("flows.sock");
    let weir = Weir::start(&format!("[flows]\nsocket = {socket:?}\n"));
    weir.wait_for("the archive", |weir| weir.ask(&["flows", "udp"]).status.success().then_some(()));
    let made = weir.ask(&["token", "create", "--name", "fuzz", "--role", "owner"]);
    let secret = text(&made).trim().to_owned();
    assert!(secret.starts_with("weir_"), "{made:?}");
    let address = address(&weir);
    // With the token first: guesses at passwords and tokens close the door to this address.
    let found = fuzz(
        &address,
        "25",
        &[
            &format!("--header=Authorization: Bearer {secret}"),
            "--checks=not_a_server_error,response_schema_conformance,content_type_conformance,\
             unsupported_method",
            // It would take the token itself away.
            "--exclude-operation-id=delete_tokens_id",
            "--exclude-path=/api/v1/login",
            "--exclude-path=/api/v1/setup",
        ],
    );
    assert_eq!(found, Ok(()), "with a token");
    // Reading metrics from loopback needs no account.
    let open = ["--checks=not_a_server_error,ignored_auth", "--exclude-path=/metrics"];
    assert_eq!(fuzz(&address, "10", &open), Ok(()), "without one");
    // Still there, and its audit chain whole after all that.
    assert!(text(&weir.ask(&["audit", "verify"])).starts_with("intact: "));
}
