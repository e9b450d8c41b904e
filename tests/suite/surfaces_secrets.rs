//! Secrets: logins in the log at any level, pictures and prompts for other users of the machine; and text
//! that must not command a terminal.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::paid::{Paid, picture, task};
use retouch_tests::stand_in::StandIn;
use serde_json::json;

#[tokio::test]
async fn the_log_tells_no_secret_at_any_level() {
    let paid = Paid::on_servers().await;
    let everything = "trace,lapin=trace,lapin::channel=trace,amq_protocol=trace,hyper=trace,sqlx=trace";
    // A login of its own shows among the bytes that the client sends.
    let login = "guest:guest@";
    assert!(paid.site.env.amqp_url().contains(login));
    let worker = paid.worker_with("", &[("RUST_LOG", everything)]).await;
    paid.site.publish(&task("order-1", "remove_watermark", "remove the text", &[picture(1)])).await;
    assert_eq!(paid.site.ended("order-1").await.status, "completed");
    let signed = "http://127.0.0.1:9/a.png?X-Amz-Signature=SECRETSIGNATURE";
    let mut elsewhere = task("order-2", "remove_watermark", "x", &[]);
    elsewhere["images"] = json!([{"url": signed}]);
    paid.site.publish(&elsewhere).await;
    worker.line("delayed").await;
    let log = worker.stderr();
    assert!(
        log.lines().any(|line| line.contains(r#""level":"DEBUG""#) || line.contains(r#""level":"TRACE""#)),
        "no details at all:\n{log}"
    );
    let bytes = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    for secret in ["guest", StandIn::KEY, "SECRETSIGNATURE"] {
        let told =
            |line: &&str| line.contains(&bytes(secret)) || (secret != "guest" && line.contains(secret));
        assert_eq!(log.lines().find(told), None, "{secret} is told");
    }
    for told in ["guest:guest", "guest\\u0000guest", "PLAIN"] {
        assert_eq!(log.lines().find(|line| line.contains(told)), None, "{told} is told");
    }
    let libraries = log.lines().filter(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let below_info = matches!(line["level"].as_str(), Some("DEBUG" | "TRACE"));
        below_info && !line["target"].as_str().is_some_and(|target| target.starts_with("retouch_"))
    });
    assert_eq!(libraries.count(), 0, "a library tells of its inner workings");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

#[tokio::test]
async fn stored_files_are_private_and_delivered_files_are_not() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let edit = ["edit", "cat.png", "-t", "invert"];
    assert_eq!(counts(&laptop.report(&edit).await), [0, 0, 1, 0]);
    let data = laptop.path(".local/share/retouch");
    let check = || {
        assert_eq!(mode(&data.join("retouch.sqlite")), 0o600);
        assert_eq!(mode(&data.join("blobs/sha256")), 0o700);
    };
    check();
    assert_eq!([mode(&data), mode(&data.join("blobs"))], [0o700; 2]);
    let mut blobs = 0;
    for shelf in laptop.list(".local/share/retouch/blobs/sha256") {
        for blob in laptop.list(&format!(".local/share/retouch/blobs/sha256/{shelf}")) {
            assert_eq!(mode(&data.join(format!("blobs/sha256/{shelf}/{blob}"))), 0o600);
            blobs += 1;
        }
    }
    assert_eq!(blobs, 2);
    let result = laptop.list("retouched").remove(0);
    laptop.write("of-the-user", "");
    assert_eq!(mode(&laptop.path(&format!("retouched/{result}"))), mode(&laptop.path("of-the-user")));

    // What an earlier version left open.
    let open = |path: &str, mode| {
        std::fs::set_permissions(data.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open("retouch.sqlite", 0o644);
    open("blobs/sha256", 0o755);
    assert_eq!(counts(&laptop.report(&edit).await), [1, 0, 0, 0]);
    check();
}

#[tokio::test]
async fn foreign_text_commands_no_terminal_on_standard_error_either() {
    let laptop = Laptop::new();
    let name = "\u{1b}[2J\u{1b}]0;title\u{7}gpj.\u{202e}exe\u{2066}.png";
    for arguments in
        [&["edit", name, "-t", "invert"][..], &["edit", "cat.png", "-t", "invert", "--param", name], &[name]]
    {
        let done = laptop.retouch(arguments).run().await;
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(done.stderr.contains("gpj.\u{fffd}exe"), "{:?}", done.stderr);
        let commands = ['\u{1b}', '\u{7}', '\u{202e}', '\u{2066}'];
        assert!(!done.stderr.contains(commands), "{:?}", done.stderr);
    }
}
