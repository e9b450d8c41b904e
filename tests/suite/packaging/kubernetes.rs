//! deploy/kubernetes/: related values in several files agree.

use std::collections::BTreeMap;
use std::time::Duration;

use retouch_shared::topology::Topology;
use retouch_tests::program::Program;
use retouch_tests::python;
use serde_json::{Value, json};

use super::{documents, image, path, stops_in_peace, texts, the_program_takes};

const FOLDER: &str = "deploy/kubernetes";
/// Those of the API itself; KEDA's kinds are not.
const PLAIN: &[&str] = &["config.yaml", "secret.example.yaml", "migrate.yaml", "worker.yaml"];

fn all() -> Vec<Value> {
    let files = PLAIN.iter().chain(&["keda.yaml"]);
    files.flat_map(|file| documents(&format!("{FOLDER}/{file}"))).collect()
}

fn object(kind: &str, name: &str) -> Value {
    let found = all().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn pod(kind: &str, name: &str) -> Value {
    object(kind, name)["spec"]["template"]["spec"].clone()
}

fn worker() -> Value {
    pod("Deployment", "retouch-worker")
}

/// What a worker's environment holds.
fn settings() -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for source in worker()["containers"][0]["envFrom"].as_array().unwrap() {
        for (reference, kind, data) in
            [("configMapRef", "ConfigMap", "data"), ("secretRef", "Secret", "stringData")]
        {
            if let Some(name) = source[reference]["name"].as_str() {
                settings.extend(texts(&object(kind, name)[data]));
            }
        }
    }
    settings
}

/// The text of a file that a volume puts into the worker's container.
fn mounted(file: &str) -> String {
    let pod = worker();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap().iter();
    let inside =
        |mount: &Value| Some(file.strip_prefix(mount["mountPath"].as_str()?)?.strip_prefix('/')?.to_owned());
    let (volume, key) =
        mounts.filter_map(|mount| Some((mount["name"].clone(), inside(mount)?))).next().unwrap();
    let volume = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == volume).unwrap();
    let data = match (volume["configMap"]["name"].as_str(), volume["secret"]["secretName"].as_str()) {
        (Some(name), _) => object("ConfigMap", name)["data"].clone(),
        (_, Some(name)) => object("Secret", name)["stringData"].clone(),
        (None, None) => panic!("{volume}"),
    };
    data[&key].as_str().unwrap_or_else(|| panic!("{file} is not in {data}")).to_owned()
}

#[tokio::test]
async fn the_manifests_are_valid_for_the_api() {
    let files: Vec<_> = PLAIN.iter().map(|file| path(&format!("{FOLDER}/{file}"))).collect();
    let words = ["--strict"].into_iter().chain(files.iter().map(|file| file.to_str().unwrap()));
    let done = python::packaging_tool("kubernetes-validate", &words.collect::<Vec<_>>()).await.run().await;
    let said = done.stdout + &done.stderr;
    assert!(done.status.success(), "{said}");
    assert_eq!(said.matches(" passed ").count(), 9, "{said}");
    let kustomization = documents(&format!("{FOLDER}/kustomization.yaml")).remove(0);
    assert_eq!(kustomization["resources"], json!(["config.yaml", "migrate.yaml", "worker.yaml"]));
}

#[tokio::test]
async fn the_program_takes_the_settings_and_stops_before_it_is_killed() {
    let mut settings = settings();
    let grace = worker()["terminationGracePeriodSeconds"].as_u64().unwrap();
    stops_in_peace(&settings, Duration::from_secs(grace));
    let port = worker()["containers"][0]["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(settings["RETOUCH_HTTP"], format!("0.0.0.0:{port}"));

    // The files are where the settings say, and the program takes what is in them.
    let home = tempfile::tempdir().unwrap();
    for (name, file) in [("RETOUCH_CONFIG", "retouch.toml"), ("DASHSCOPE_API_KEY_FILE", "key")] {
        let place = home.path().join(file);
        std::fs::write(&place, mounted(&settings[name])).unwrap();
        settings.insert(name.to_owned(), place.to_str().unwrap().to_owned());
    }
    the_program_takes(&settings).await;
    let routes =
        Program::new(&["routes", "--json"]).env("RETOUCH_CONFIG", &settings["RETOUCH_CONFIG"]).run().await;
    assert!(routes.status.success(), "{}", routes.stderr);

    let migrate = &pod("Job", "retouch-migrate")["containers"][0];
    assert_eq!(migrate["args"], json!(["migrate"]));
    for variable in migrate["env"].as_array().unwrap() {
        let from = &variable["valueFrom"]["secretKeyRef"];
        assert_eq!(variable["name"], from["key"]);
        let secret = object("Secret", from["name"].as_str().unwrap());
        assert!(secret["stringData"][from["key"].as_str().unwrap()].is_string());
    }
}

#[test]
fn a_service_of_this_name_puts_no_variables_into_the_pods() {
    // RETOUCH_WORKER_PORT and its like are no settings, and a worker would refuse to start.
    assert!(object("Service", "retouch-worker").is_object());
    for pod in [worker(), pod("Job", "retouch-migrate")] {
        assert_eq!(pod["enableServiceLinks"], false);
    }
}

#[test]
fn nothing_runs_as_root_or_writes_where_it_need_not() {
    for pod in [worker(), pod("Job", "retouch-migrate")] {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], image::user());
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        let context = &pod["containers"][0]["securityContext"];
        let expected = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        });
        assert_eq!(*context, expected);
        let resources = &pod["containers"][0]["resources"];
        assert!(resources["requests"]["cpu"].is_string() && resources["limits"]["memory"].is_string());
    }
}

#[test]
fn probes_service_and_budget_point_at_the_workers() {
    let container = &worker()["containers"][0];
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(
            container[probe]["httpGet"],
            json!({ "path": path, "port": container["ports"][0]["name"] })
        );
    }
    assert!(container["lifecycle"].is_null());
    let service = object("Service", "retouch-worker");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    let deployment = object("Deployment", "retouch-worker");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let budget = object("PodDisruptionBudget", "retouch-worker");
    for selector in [
        &service["spec"]["selector"],
        &deployment["spec"]["selector"]["matchLabels"],
        &budget["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
}

#[test]
fn scaling_counts_unacknowledged_messages_of_existing_queues() {
    let scaled = &object("ScaledObject", "retouch-worker")["spec"];
    assert_eq!(scaled["scaleTargetRef"]["name"], object("Deployment", "retouch-worker")["metadata"]["name"]);
    assert!(scaled["minReplicaCount"].as_u64().unwrap() >= 1, "the sweep needs a worker");
    let names = Topology::default();
    let triggers = scaled["triggers"].as_array().unwrap();
    let queues: Vec<_> =
        triggers.iter().map(|trigger| trigger["metadata"]["queueName"].as_str().unwrap()).collect();
    assert_eq!(queues, [names.tasks_queue(), names.edits_queue("local")]);
    for trigger in triggers {
        let metadata = &trigger["metadata"];
        assert_eq!(
            (trigger["type"].as_str(), metadata["mode"].as_str()),
            (Some("rabbitmq"), Some("QueueLength"))
        );
        // KEDA takes texts only, and counts unacknowledged messages over HTTP only.
        assert_eq!(metadata["excludeUnacknowledged"], "false");
        assert_eq!(metadata["protocol"], "http");
        assert!(metadata.as_object().unwrap().values().all(Value::is_string), "{metadata}");
        let authentication =
            object("TriggerAuthentication", trigger["authenticationRef"]["name"].as_str().unwrap());
        for target in authentication["spec"]["secretTargetRef"].as_array().unwrap() {
            let secret = object("Secret", target["name"].as_str().unwrap());
            assert!(
                secret["stringData"][target["key"].as_str().unwrap()]
                    .as_str()
                    .unwrap()
                    .starts_with("http://")
            );
        }
    }
}
