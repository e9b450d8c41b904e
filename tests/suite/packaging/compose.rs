//! docker-compose.yml, parsed as Docker Compose parses it: variables, anchors, merged maps, short forms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::{is_pinned, stops_in_peace, text, texts, the_program_takes};

/// The keys of the Compose specification that are used here; another one is a mistake, or must be added.
const WORDS: &[&str] = &[
    "build",
    "command",
    "configs",
    "depends_on",
    "deploy",
    "environment",
    "healthcheck",
    "hostname",
    "image",
    "ports",
    "restart",
    "stop_grace_period",
    "volumes",
];
const HEALTHCHECK: &[&str] = &["test", "interval", "timeout", "retries", "start_period", "disable"];

/// The file with each `${NAME:?message}` replaced by its value.
///
/// # Errors
/// The first name that has none, and its message.
fn interpolated(values: &BTreeMap<&str, &str>) -> Result<String, String> {
    let file = text("docker-compose.yml");
    let mut parts = file.split("${");
    let mut whole = parts.next().unwrap().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap();
        let (name, message) = variable.split_once(":?").unwrap_or((variable, "no value"));
        let value = values.get(name).filter(|value| !value.is_empty());
        whole += value.ok_or_else(|| format!("{name} is missing a value: {message}"))?;
        whole += rest;
    }
    Ok(whole)
}

fn example(file: &str) -> BTreeMap<&str, &str> {
    let set = file.lines().filter(|line| !line.starts_with('#'));
    set.filter_map(|line| line.split_once('=')).collect()
}

/// Everything in it, with the values of `.env.example`.
fn understood() -> Value {
    let values = text(".env.example");
    serde_saphyr::from_str(&interpolated(&example(&values)).unwrap()).unwrap()
}

/// `10m30s`.
fn seconds(text: &str) -> Duration {
    let mut total = 0;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit => {
                number.push(digit);
                continue;
            }
        };
        total += unit * number.parse::<u64>().unwrap();
        number.clear();
    }
    Duration::from_secs(total)
}

fn host(settings: &BTreeMap<String, String>, name: &str) -> (String, Option<u16>, Option<String>) {
    let url = Url::parse(&settings[name]).unwrap();
    (url.host_str().unwrap().to_owned(), url.port(), url.password().map(str::to_owned))
}

#[test]
fn it_starts_in_the_order_of_health() {
    let understood = understood();
    let services = &understood["services"];
    for (name, service) in services.as_object().unwrap() {
        for word in service.as_object().unwrap().keys() {
            assert!(WORDS.contains(&word.as_str()), "{name}: {word}");
        }
        for word in service["healthcheck"].as_object().unwrap().keys() {
            assert!(HEALTHCHECK.contains(&word.as_str()), "{name}: healthcheck: {word}");
        }
        assert!(service["image"].is_string(), "{name}");
    }
    let names: BTreeSet<_> = services.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["mariadb", "migrate", "rabbitmq", "s3", "worker"]));
    let waits = |service: &str| {
        let on = services[service]["depends_on"].as_object().unwrap().iter();
        on.map(|(on, how)| (on.clone(), how["condition"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let on = |names: &[(&str, &str)]| {
        names.iter().map(|(on, how)| ((*on).into(), (*how).into())).collect::<Vec<(String, String)>>()
    };
    let healthy = "service_healthy";
    assert_eq!(waits("migrate"), on(&[("mariadb", healthy)]));
    let all = [
        ("mariadb", healthy),
        ("migrate", "service_completed_successfully"),
        ("rabbitmq", healthy),
        ("s3", healthy),
    ];
    assert_eq!(waits("worker"), on(&all));
    for (service, how) in waits("worker") {
        let checked = services[&service]["healthcheck"]["test"].is_array();
        assert_eq!(checked, how == healthy, "{service}");
    }
    assert_eq!(services["worker"]["healthcheck"]["test"], json!(["CMD", "retouch", "health"]));
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    assert_eq!(
        (&services["worker"]["command"], &services["migrate"]["command"]),
        (&json!(["worker"]), &json!(["migrate"]))
    );
    // It ends: a restart would repeat it for ever.
    assert_eq!(services["migrate"]["restart"], "no");
}

#[test]
fn every_server_is_versioned_persistent_and_local_only() {
    let understood = understood();
    let volumes: BTreeSet<_> = understood["volumes"].as_object().unwrap().keys().cloned().collect();
    for (name, service) in understood["services"].as_object().unwrap() {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}");
        }
        if service["build"].is_string() {
            continue;
        }
        is_pinned(service["image"].as_str().unwrap());
        let mounted = service["volumes"].as_array().unwrap();
        let named = |mount: &Value| volumes.contains(mount.as_str().unwrap().split_once(':').unwrap().0);
        assert!(mounted.iter().any(named), "{name}");
    }
}

#[tokio::test]
async fn its_workers_settings_lead_to_its_servers() {
    let understood = understood();
    let services = &understood["services"];
    let worker = texts(&services["worker"]["environment"]);
    the_program_takes(&worker).await;
    // `migrate` has the same ones.
    assert_eq!(texts(&services["migrate"]["environment"]), worker);
    stops_in_peace(&worker, seconds(services["worker"]["stop_grace_period"].as_str().unwrap()));

    let mariadb = texts(&services["mariadb"]["environment"]);
    let (at, port, password) = host(&worker, "DATABASE_URL");
    assert_eq!((at.as_str(), port), ("mariadb", Some(3306)));
    assert_eq!(password.as_ref(), mariadb.get("MARIADB_PASSWORD"));
    let rabbitmq = texts(&services["rabbitmq"]["environment"]);
    let (at, port, password) = host(&worker, "AMQP_URL");
    assert_eq!((at.as_str(), port), ("rabbitmq", Some(5672)));
    assert_eq!(password.as_ref(), rabbitmq.get("RABBITMQ_DEFAULT_PASS"));

    let s3 = texts(&services["s3"]["environment"]);
    let garage = text("deploy/compose/garage.toml");
    let (at, port, _) = host(&worker, "AWS_ENDPOINT_URL");
    assert_eq!(at, "s3");
    assert!(garage.contains(&format!("api_bind_addr = \"[::]:{}\"", port.unwrap())));
    assert!(garage.contains(&format!("s3_region = \"{}\"", worker["AWS_REGION"])));
    assert_eq!(worker["AWS_ACCESS_KEY_ID"], s3["GARAGE_DEFAULT_ACCESS_KEY"]);
    assert_eq!(worker["AWS_SECRET_ACCESS_KEY"], s3["GARAGE_DEFAULT_SECRET_KEY"]);
    assert_eq!(worker["RETOUCH_BLOBS"], format!("s3://{}", s3["GARAGE_DEFAULT_BUCKET"]));
    let check = services["s3"]["healthcheck"]["test"].as_array().unwrap();
    assert_eq!(check.last().unwrap().as_str(), s3.get("GARAGE_DEFAULT_BUCKET").map(String::as_str));

    // One port of the range for each replica, and the first of them in the links.
    let port = services["worker"]["ports"][0].as_str().unwrap();
    let (published, target) = port.strip_prefix("127.0.0.1:").unwrap().split_once(':').unwrap();
    let (first, last) = published.split_once('-').unwrap();
    let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
    assert_eq!(last - first + 1, services["worker"]["deploy"]["replicas"].as_u64().unwrap());
    assert_eq!(target, "8080");
    assert_eq!(worker["RETOUCH_PUBLIC_URL"], format!("http://localhost:{first}/blobs/"));
}

#[test]
fn its_secrets_come_from_outside_and_are_required() {
    let file = text("docker-compose.yml");
    let used: BTreeSet<_> =
        file.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap()).collect();
    let values = text(".env.example");
    let set = example(&values);
    assert_eq!(used, set.keys().copied().collect(), "docker-compose.yml and .env.example");
    for line in file.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once(':') else { continue };
        // A password generated at each start is known to no user.
        let made_up = name == "MARIADB_RANDOM_ROOT_PASSWORD";
        let secret = !made_up && ["PASS", "SECRET", "_KEY", "KEY_ID"].iter().any(|part| name.contains(part));
        let outside = value.trim().is_empty() || value.trim().starts_with("${");
        assert!(!secret || outside, "{line}");
        assert!(
            !line.contains("${") || line.contains(":?"),
            "{line}: a secret that is not set must be asked for"
        );
    }
    let refused = interpolated(&BTreeMap::new()).unwrap_err();
    assert_eq!(refused, "RETOUCH_DB_PASSWORD is missing a value: cp .env.example .env");
}
