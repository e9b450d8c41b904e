//! Checks the broker: connection, declarations, rights of this login, alarms.

use super::{Check, no_answer, within};
use crate::broker::BrokerError;
use crate::broker::rabbitmq::topology::{Finding, FindingState};
use crate::broker::rabbitmq::{Greeting, RabbitMq, Rights};
use crate::config::{BrokerChoice, Parts};

const NAME: &str = "broker";
/// Checks that need a connection.
const OTHERS: [&str; 5] = ["broker version", "queues", "broker rights", "broker alarms", "consumer timeout"];
/// The oldest version that the suite has run on.
const LEAST: (u32, u32) = (3, 10);

pub(super) async fn check(parts: &Parts) -> Vec<Check> {
    let (Ok(choice), Ok(names)) = (&parts.broker, &parts.topology) else {
        return skipped(Some(NAME), "the settings");
    };
    let BrokerChoice::RabbitMq { url } = choice else {
        return vec![Check::good(
            NAME,
            "embedded in the SQLite file, for one machine; its queues are rows there",
        )];
    };
    let broker = match RabbitMq::lazy(url, names.clone()) {
        Ok(broker) => broker,
        Err(error) => return not_reached(&error.to_string()),
    };
    match within(broker.reach()).await {
        Some(Ok(())) => {}
        answer => {
            return not_reached(&answer.and_then(Result::err).map_or_else(no_answer, |error| reason(&error)));
        }
    }
    let encrypted = if url.starts_with("amqps://") { "encrypted" } else { "not encrypted" };
    let mut checks = vec![Check::good(NAME, format!("{}, {encrypted}", broker.place()))];
    let lanes = parts.offer.as_ref().map(|offer| offer.served_lanes()).unwrap_or_default();
    let (greeting, findings, rights) =
        tokio::join!(within(broker.greeting()), within(broker.check(&lanes, None)), within(broker.rights()));
    checks.push(version(greeting));
    let rights = rights.unwrap_or_else(|| Err(BrokerError::Unavailable(no_answer())));
    let may_declare = rights.as_ref().is_ok_and(|rights| matches!(rights.declare, Some(Ok(()))));
    checks.extend(queues(findings, may_declare));
    checks.extend(judged(rights));
    checks.push(Check::skipped(
        "consumer timeout",
        "cannot be asked over AMQP; it must be 20 minutes or more (RabbitMQ's default is 30; a delivery is held for 10, or as long as one call takes)",
    ));
    checks
}

fn skipped(first: Option<&str>, needs: &str) -> Vec<Check> {
    let names = first.into_iter().chain(OTHERS);
    names.map(|name| Check::skipped(name, format!("skipped: it needs {needs}"))).collect()
}

/// Drops our prefix, which adds nothing to the broker's message.
fn reason(error: &BrokerError) -> String {
    let text = error.to_string();
    text.strip_prefix("the broker is unreachable: ").unwrap_or(&text).to_owned()
}

fn not_reached(why: &str) -> Vec<Check> {
    // The broker's messages for a wrong login and a wrong virtual host.
    let fix = if why.contains("ACCESS_REFUSED") && !why.contains("vhost") {
        "correct user and password in AMQP_URL"
    } else if why.contains("vhost") || why.contains("NOT_ALLOWED") {
        "correct the virtual host at the end of AMQP_URL (/%2f is the default one), or grant the user rights on it"
    } else if why.contains("certificate")
        || why.contains("TLS")
        || why.contains("certfile")
        || why.contains("keyfile")
    {
        "see the section TLS of docs/operations/doctor.md"
    } else if why.contains("lookup address") {
        "correct the host in AMQP_URL"
    } else {
        "start RabbitMQ, or correct host and port in AMQP_URL"
    };
    let mut checks = vec![Check::failed(NAME, why, fix)];
    checks.extend(skipped(None, "the broker"));
    checks
}

fn version(greeting: Option<Result<Option<Greeting>, BrokerError>>) -> Check {
    let name = "broker version";
    let Some(Ok(Some(Greeting { product, version }))) = greeting else {
        return Check::skipped(name, "the broker did not say");
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let at = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if product == "RabbitMQ" && at < LEAST {
        let fix = "use RabbitMQ 3.10 or later";
        return Check::failed(name, format!("RabbitMQ {version} has no dead-lettering at least once"), fix);
    }
    Check::good(name, format!("{product} {version}"))
}

fn queues(findings: Option<Result<Vec<Finding>, BrokerError>>, may_declare: bool) -> Vec<Check> {
    let name = "queues";
    let findings = match findings {
        None => return vec![Check::failed(name, no_answer(), "look at the broker's log: it answers slowly")],
        Some(Err(error)) => return vec![Check::failed(name, reason(&error), "look at the broker's log")],
        Some(Ok(findings)) => findings,
    };
    let mut checks = Vec::new();
    let (mut missing, mut unknown) = (Vec::new(), 0);
    for finding in &findings {
        match &finding.state {
            FindingState::Same => {}
            FindingState::Missing => missing.push(finding.what.as_str()),
            FindingState::Unknown(_) => unknown += 1,
            FindingState::Different(how) => checks.push(Check::failed_as_told(name, how)),
        }
    }
    let all = findings.len();
    if !missing.is_empty() && !may_declare {
        let detail = format!(
            "{} of {all} are missing, and this login may not declare them: {}",
            missing.len(),
            some(&missing)
        );
        checks.push(Check::failed(
            name,
            detail,
            "import `retouch topology export`, or grant the right to configure",
        ));
    } else if missing.len() == all {
        checks.push(Check::good(
            name,
            format!(
                "none of the {all} exchanges and queues is there yet; a worker declares them when it starts"
            ),
        ));
    } else if !missing.is_empty() {
        let detail =
            format!("{} of {all} exchanges and queues are missing: {}", missing.len(), some(&missing));
        checks.push(Check::warning(name, detail, "a worker declares them when it starts"));
    }
    if unknown > 0 {
        let detail = format!("{unknown} of {all} are there, and this login may not compare their arguments");
        checks.push(Check::warning(
            name,
            detail,
            "run `retouch topology check` as a user with the right to configure",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::good(name, format!("{all} exchanges and queues are as they must be")));
    }
    checks
}

/// The first few names, so that the line stays readable.
fn some(names: &[&str]) -> String {
    match names {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    }
}

fn judged(rights: Result<Rights, BrokerError>) -> [Check; 2] {
    let (name, alarms) = ("broker rights", "broker alarms");
    let rights = match rights {
        Ok(rights) => rights,
        Err(error) => {
            let failed = Check::failed(name, reason(&error), "look at the broker's log");
            return [failed, Check::skipped(alarms, "skipped: it needs the broker's answer")];
        }
    };
    let Rights { declare, publish, consume, blocked, took_one } = rights;
    // Rights that a worker cannot do without come first.
    let tried =
        [("publish", "write", &publish), ("consume", "read", &consume), ("declare", "configure", &declare)];
    let refused = tried.iter().find_map(|(what, right, tried)| match tried {
        Some(Err(why)) => Some((what, right, why)),
        Some(Ok(())) | None => None,
    });
    let may = match refused {
        // A broker managed by definitions gives no such right, and the queue check shows whether it is
        // needed.
        Some((&"declare", _, why)) => Check::warning(
            name,
            format!("this login may not declare, so consuming was not tried: {why}"),
            "grant the right to configure names of the namespace, or import `retouch topology export` at each upgrade",
        ),
        Some((what, right, why)) => Check::failed(
            name,
            format!("this login may not {what}: {why}"),
            format!("grant the right to {right} names of the namespace"),
        ),
        None => {
            let may = tried.iter().filter(|(_, _, tried)| tried.is_some()).map(|(what, _, _)| *what);
            Check::good(name, format!("this login may {}", may.collect::<Vec<_>>().join(", ")))
        }
    };
    let alarm = match blocked {
        Some(why) => Check::failed(
            alarms,
            format!("the broker takes no messages: {why}"),
            "free memory or disk on the broker's machine; `rabbitmq-diagnostics alarms` says which",
        ),
        None if took_one => Check::good(alarms, "none: it took a message"),
        None => Check::skipped(alarms, "skipped: it needs the right to publish"),
    };
    [may, alarm]
}
