//! A real Prometheus scrapes a running weir, evaluates the alerts and answers what the Grafana dashboard
//! asks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_tests::lab::Lab;

const PROGRAMS: &[&str] = &["ip", "curl", "prometheus"];

const PROMETHEUS: &str = "\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [RULES]
scrape_configs:
  - job_name: weir
    static_configs: [{targets: ['127.0.0.1:8080']}]
";

fn dashboards(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(name)
}

/// Every expression of the dashboard's panels.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| expressions(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn get(lab: &Lab, path: &str, query: Option<&str>) -> Value {
    let url = format!("http://127.0.0.1:9090/api/v1/{path}");
    let mut command = vec!["curl", "-s", "-G", &url];
    let query = query.map(|query| format!("query={query}"));
    if let Some(query) = &query {
        command.extend(["--data-urlencode", query]);
    }
    serde_json::from_str(&lab.ask(&command)).unwrap_or(Value::Null)
}

fn results(answer: &Value) -> usize {
    answer["data"]["result"].as_array().map_or(0, Vec::len)
}

#[test]
fn prometheus_scrapes_weir_and_knows_every_metric_asked_for() {
    let test = "prometheus_scrapes_weir_and_knows_every_metric_asked_for";
    let Some(mut lab) = Lab::new(test, PROGRAMS) else { return };
    let config = format!(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[collector]\nlisten = [\"127.0.0.1:2055\"]\n\
         [[collector.exporters]]\naddress = \"127.0.0.0/8\"\nname = \"edge\"\n\
         [[uplink]]\nname = \"transit\"\nexporter = \"edge\"\ninterfaces = [1]\n\
         capacity_bits_per_sec = 1000000000\n\
         [api]\nlisten = \"127.0.0.1:8080\"\nsocket = \"\"\n[store]\npath = {:?}\n",
        lab.path("state.db")
    );
    let config = lab.write("weir.toml", &config);
    let weir = weir_tests::weir_binary();
    let flowgen = weir.with_file_name("flowgen");
    lab.spawn("weir", &[weir.to_str().unwrap(), "run", "--config", config.to_str().unwrap()]);
    lab.wait_for("weir", 30, |lab| lab.log("weir").contains("ready").then_some(()));
    lab.spawn(
        "flowgen",
        &[
            flowgen.to_str().unwrap(),
            "sflow",
            "127.0.0.1:2055",
            "--rate",
            "2000",
            "--seconds",
            "60",
        ],
    );
    let rules = dashboards("alerts.yml").canonicalize().unwrap();
    let scrape = lab.write("prometheus.yml", &PROMETHEUS.replace("RULES", rules.to_str().unwrap()));
    let data = format!("--storage.tsdb.path={}", lab.path("tsdb").display());
    let scrape = format!("--config.file={}", scrape.display());
    let listen = "--web.listen-address=127.0.0.1:9090";
    lab.spawn("prometheus", &["prometheus", &scrape, &data, listen]);

    lab.wait_for("a scrape", 30, |lab| {
        let up = get(lab, "query", Some("up{job=\"weir\"} == 1"));
        (results(&up) == 1).then_some(())
    });
    lab.wait_for("decoded records", 20, |lab| {
        let seen = get(lab, "query", Some("sum(weir_collector_records_total) > 0"));
        (results(&seen) == 1).then_some(())
    });
    // What the uplink carries; what may be wrong has its series before anything is.
    lab.wait_for("an uplink", 20, |lab| {
        let query = "weir_uplink_bits_per_second{uplink=\"transit\",direction=\"inbound\"} > 0";
        let carries = get(lab, "query", Some(query));
        (results(&carries) == 1).then_some(())
    });
    assert_eq!(results(&get(&lab, "query", Some("weir_conditions == 0"))), 5);
    let board = std::fs::read_to_string(dashboards("grafana.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&serde_json::from_str(&board).unwrap(), &mut asked);
    assert!(asked.len() > 5, "{asked:?}");
    for expression in &asked {
        // Grafana fills its own variables in.
        let expression = expression.replace("$__rate_interval", "5s");
        let answer = get(&lab, "query", Some(&expression));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    lab.wait_for("every alert evaluated", 20, |lab| {
        let groups = get(lab, "rules", None);
        let rules: Vec<Value> = groups["data"]["groups"]
            .as_array()?
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        let healthy = rules.iter().filter(|rule| rule["health"] == "ok").count();
        (healthy > 3 && healthy == rules.len()).then_some(())
    });
}
