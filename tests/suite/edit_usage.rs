//! What a person may get wrong is said in one clear line, before anything is stored, with the exit code for it.

use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::program::Finished;
use serde_json::json;

/// The one line of complaint behind `retouch: `.
fn complaint(done: &Finished) -> &str {
    assert_eq!(done.stdout, "");
    let line = done.stderr.strip_prefix("retouch: ").and_then(|line| line.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("{:?}", done.stderr));
    assert!(!line.contains('\n'), "{line}");
    line
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_stored() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("notes.txt", "");
    std::fs::create_dir_all(laptop.path("empty")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(laptop.path("pipe.png")).status();
    assert!(pipe.unwrap().success());
    let long = "x".repeat(32_001);
    for (arguments, says) in [
        (
            &["cat.png", "-t", "greyscale"][..],
            "edit_type: \"greyscale\" is not known; known are autocontrast, blur, ",
        ),
        (&["cat.png", "-t", ""], "edit_type: must be 1-32 of"),
        (&["cat.png", "-t", "blur", "--param", "sigma=-3"], "params.sigma: must be 0.1 to 100, not -3"),
        (
            &["cat.png", "-t", "blur", "--param", "sigma=three"],
            "params.sigma: must be 0.1 to 100, not \"three\"",
        ),
        (&["cat.png", "-t", "blur", "--param", "radius=3"], "params.radius: is not known; known are sigma"),
        (&["cat.png", "-t", "blur", "--param", "sigma"], "--param sigma: must be NAME=VALUE"),
        (
            &["cat.png", "-t", "blur", "--param", "sigma=1", "--param", "sigma=2"],
            "--param sigma: given twice; give it once",
        ),
        (&["cat.png", "-t", "crop", "--param", "width=9"], "params.height: is required"),
        (&["cat.png", "-t", "blur", "--model", "wanx"], "model: blur knows only local-2, not \"wanx\""),
        (&["cat.png", "-t", "blur", "--variant", ""], "variant: must be 1 to 64 characters, not 0"),
        (&["cat.png", "-t", "blur", "--prompt", &long], "prompt: must be 0 to 32000 characters, not 32001"),
        (&["cat.png", "-t", "blur", "--mask", "none.png"], "--mask none.png: No such file"),
        (
            &["cat.png", "-t", "rotate", "--mask", "cat.png"],
            "rotate changes the size of the picture and takes no mask",
        ),
        (&["none.png", "-t", "blur"], "none.png: No such file or directory\n"),
        (&["pipe.png", "-t", "blur"], "pipe.png: is not a file but a pipe; read it into a file first\n"),
        (
            &["1.png", "pipe.png", "empty", "4.png", "5.png", "-t", "blur"],
            "1.png: No such file or directory; pipe.png: is not a file but a pipe; read it into a file first; \
             empty: the folder holds no pictures (PNG, JPEG, WebP, GIF, BMP, TIFF); and 2 more\n",
        ),
        (&["cat.png", "-t", "blur", "--mask", "pipe.png"], "--mask pipe.png: is not a file"),
        (
            &["ftp://host/cat.png", "-t", "blur"],
            "ftp://host/cat.png: pictures are fetched over http:// and https:// only: No such file",
        ),
        (&["empty", "-t", "blur"], "empty: the folder holds no pictures"),
        (
            &["cat.png", "-t", "blur", "-o", "notes.txt"],
            "--out notes.txt: is not a folder: name a folder for the results\n",
        ),
        (
            &["cat.png", "-t", "blur", "-o", "notes.txt/deeper"],
            "--out notes.txt/deeper: Not a directory: name a folder that can be made and written to\n",
        ),
        (
            &["cat.png", "-t", "blur", "-o", "."],
            "--out . is the folder of cat.png, so that a run over that folder ",
        ),
    ] {
        let done = laptop.retouch(&[&["edit"], arguments].concat()).run().await;
        let said = format!("{}\n", complaint(&done));
        assert!(said.starts_with(says), "{arguments:?}: {}", done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(laptop.list("retouched"), [] as [&str; 0]);
    assert_eq!(laptop.list(".local/share/retouch/blobs/sha256"), [] as [&str; 0]);
}

#[tokio::test]
async fn whatever_else_was_named_fails_alone_with_its_own_sentence() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.picture("out/cat.png", 2);
    std::fs::create_dir_all(laptop.path("empty")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(laptop.path("pipe.jpg")).status();
    assert!(pipe.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(laptop.path("socket.png")).unwrap();
    let named = ["none.png", "pipe.jpg", "/dev/null", "socket.png", "empty", "cat.png"];
    let (code, report) = laptop.ended(&[&["edit", "-t", "double"], &named[..]].concat()).await;
    assert_eq!((code, counts(&report)), (1, [0, 0, 1, 5]), "{report}");
    let said: Vec<_> =
        report["images"].as_array().unwrap().iter().map(|image| &image["error"]["message"]).collect();
    let empty = "the folder holds no pictures (PNG, JPEG, WebP, GIF, BMP, TIFF)";
    let says = [
        "No such file or directory",
        "is not a file but a pipe; read it into a file first",
        "is not a file but a device",
        "is not a file but a socket",
        empty,
    ];
    assert_eq!(said[..5], says.map(|says| json!(says)).each_ref()[..]);
}

#[tokio::test]
async fn an_unknown_edit_type_offers_none_of_the_tests() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let edit = laptop.retouch(&["edit", "cat.png", "-t", "greyscale"]).without("RETOUCH_DOUBLE");
    let done = edit.run().await;
    assert!(!done.stderr.contains("double") && done.stderr.contains("known are"), "{}", done.stderr);
}

#[tokio::test]
async fn what_cannot_work_for_one_picture_fails_with_it_alone() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("small.png", retouch_tests::pictures::picture_as(2, 8, 8, image::ImageFormat::Png));
    let crop = ["-t", "crop", "--param", "width=32", "--param", "height=32"];
    let (code, report) = laptop.ended(&[&["edit", "cat.png", "small.png"], &crop[..]].concat()).await;
    assert_eq!((code, counts(&report)), (1, [0, 0, 1, 1]));
    assert_eq!(report["images"][1]["error"]["code"], "invalid_params");
    let done = laptop.retouch(&[&["edit", "small.png"], &crop[..]].concat()).run().await;
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
}

#[tokio::test]
async fn clap_has_the_same_exit_code_for_words_it_does_not_know() {
    let laptop = Laptop::new();
    for arguments in [
        &[][..],
        &["paint"],
        &["edit"],
        &["edit", "x.png"],
        &["task"],
        &["submit", "x", "-t", "y", "--timeout", "soon"],
    ] {
        let done = laptop.retouch(arguments).run().await;
        assert_eq!((done.status.code(), done.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_picture_fails_alone_and_is_not_kept_for_later() {
    let laptop = Laptop::new();
    laptop.write("fake.png", "no picture at all");
    let edit = ["edit", "fake.png", "-t", "invert"];
    let (code, report) = laptop.ended(&edit).await;
    assert_eq!((code, &report["status"], counts(&report)), (1, &json!("failed"), [0, 0, 0, 1]));
    // The same name with another content is another edit.
    laptop.picture("fake.png", 1);
    assert_eq!(counts(&laptop.report(&edit).await), [0, 0, 1, 0]);
}

#[tokio::test]
async fn a_file_that_is_far_too_large_fails_alone_and_is_neither_read_nor_kept_whole() {
    let laptop = Laptop::new();
    laptop.picture("folder/cat.png", 1);
    laptop.picture("folder/huge.png", 2);
    let huge = std::fs::File::options().write(true).open(laptop.path("folder/huge.png")).unwrap();
    // A hole, which costs no disk until somebody copies it.
    huge.set_len(1 << 30).unwrap();
    let (code, report) = laptop.ended(&["edit", "folder", "-t", "invert"]).await;
    assert_eq!((code, counts(&report)), (1, [0, 0, 1, 1]));
    assert_eq!(report["images"][1]["error"]["code"], "too_large", "{report}");
    let blobs = ".local/share/retouch/blobs/sha256";
    for shard in laptop.list(blobs) {
        for blob in laptop.list(&format!("{blobs}/{shard}")) {
            let bytes = std::fs::metadata(laptop.path(&format!("{blobs}/{shard}/{blob}"))).unwrap().len();
            assert!(bytes < 30 << 20, "{blob} has {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn a_setting_that_cannot_work_is_refused_in_one_sentence_that_names_it() {
    const MYSQL: (&str, &str) = ("DATABASE_URL", "mysql://root:hunter2@db.example/retouch");
    const AMQP: (&str, &str) = ("AMQP_URL", "amqp://retouch:hunter2@broker.example");
    for (settings, says) in [
        (&[MYSQL][..], "AMQP_URL must be set when DATABASE_URL is not SQLite"),
        (&[MYSQL, AMQP], "RETOUCH_BLOBS must be set when DATABASE_URL is not SQLite"),
        (
            &[("DATABASE_URL", "postgres://root:hunter2@db/retouch")],
            "DATABASE_URL must start with mysql://, mariadb:// or sqlite://",
        ),
        (&[("DATABASE_URL", "mysql://root:hunter2@db")], "DATABASE_URL must name a database"),
        (&[("DATABASE_URL", "sqlite::memory:")], "DATABASE_URL: sqlite: needs a file"),
        (&[("AMQP_URL", "http://retouch:hunter2@broker")], "AMQP_URL must start with amqp:// or amqps://"),
        (&[("RETOUCH_BLOBS", "blobs")], "RETOUCH_BLOBS: \"blobs\" is no place for blobs"),
        (&[("RETOUCH_BLOBS", "memory:")], "RETOUCH_BLOBS: memory: is for tests"),
        (&[("RETOUCH_BLOB", "/srv/blobs")], "RETOUCH_BLOB is not a setting of retouch: see `retouch --help`"),
        (&[("RETOUCH_NAMESPACE", "a b")], "RETOUCH_NAMESPACE: the namespace \"a b\" must be 1-40 of"),
        (&[("RETOUCH_HTTP", "8080")], "RETOUCH_HTTP must be ADDRESS:PORT or off, not \"8080\""),
        (
            &[("RETOUCH_PUBLIC_URL", "cdn")],
            "RETOUCH_PUBLIC_URL cannot be understood: it must be an absolute URL",
        ),
        (
            &[("RETOUCH_PUBLIC_URL", "https://someone:word@cdn.example/")],
            "RETOUCH_PUBLIC_URL must not hold a user or a password",
        ),
        (
            &[("RETOUCH_PUBLIC_URL", "https://cdn.example/?a=b")],
            "RETOUCH_PUBLIC_URL must be a URL that paths",
        ),
        (&[("RETOUCH_ALLOW_HOSTS", "10.0.0.0/40")], "RETOUCH_ALLOW_HOSTS: "),
        (
            &[("RETOUCH_ON_AMBIGUOUS", "pay")],
            "RETOUCH_ON_AMBIGUOUS: on_ambiguous: unknown variant: found `pay`, expected ``retry` or `hold``",
        ),
        (&[("RETOUCH_LEASE_SECONDS", "30s")], "RETOUCH_LEASE_SECONDS must be a whole number, not \"30s\""),
        (&[("RETOUCH_LEASE_SECONDS", "0")], "RETOUCH_LEASE_SECONDS must be 1 to 604800"),
        (&[("RETOUCH_CONFIG", "none.toml")], "RETOUCH_CONFIG: there is no file none.toml"),
        (&[("RUST_LOG", "retouch=loud")], "RUST_LOG: "),
    ] {
        let laptop = Laptop::new();
        let program = laptop.retouch(&["task", "t-1"]);
        let done =
            settings.iter().fold(program, |program, (name, value)| program.env(name, value)).run().await;
        assert!(complaint(&done).starts_with(says), "{settings:?}: {}", done.stderr);
        assert_eq!(done.status.code(), Some(2), "{settings:?}");
        assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
        assert_eq!(laptop.list(".local"), [] as [&str; 0], "nothing was made");
    }
}

#[tokio::test]
async fn a_file_of_settings_that_cannot_work_is_refused_with_the_place_in_it() {
    for (toml, says) in [
        (
            "databse_url = 'x'",
            "retouch.toml: databse_url: unknown field: found `databse_url`, expected `one of `database_url`",
        ),
        ("[lanes.local]\nspeed = 1", "retouch.toml: lanes.local.speed: unknown field: found `speed`"),
        ("[lanes.local]\nconcurrency = 0", "[lanes.local]: concurrency must be 1 or more"),
        ("[lanes.'a b']\nconcurrency = 1", "[lanes.a b]: a lane's name is"),
        (
            "[routes.blur]\neditor = 'dashcope'\nmodel = 'x'",
            "[routes.blur]: there is no editor \"dashcope\"; there are ",
        ),
        (
            "[routes.blur]\neditor = 'local'\nprice = 'abc'",
            "[routes.blur]: price must be a decimal number such as \"0.14\", not \"abc\"",
        ),
        (
            "[routes.blur]\neditor = 'local'\ncurrency = 'yuan'",
            "[routes.blur]: currency must be three capital letters",
        ),
        ("[routes.paint]\neditor = 'local'", "[routes.paint]: the local editor has no such operation"),
        ("http = [", "retouch.toml: TOML parse error at line 1"),
    ] {
        let laptop = Laptop::new();
        laptop.write("retouch.toml", toml);
        let done = laptop.retouch(&["task", "t-1"]).run().await;
        assert!(complaint(&done).starts_with(says), "{toml}: {}", done.stderr);
        assert_eq!(done.status.code(), Some(2), "{toml}");
    }
}

#[tokio::test]
async fn a_worker_on_a_shared_broker_does_not_start_with_a_database_of_its_own() {
    let laptop = Laptop::new();
    let done = laptop.retouch(&["worker"]).env("AMQP_URL", "amqp://127.0.0.1:1").run().await;
    assert!(complaint(&done).starts_with("DATABASE_URL must be set when AMQP_URL is"), "{}", done.stderr);
    assert_eq!(done.status.code(), Some(2));
}

#[tokio::test]
async fn migrate_needs_nothing_but_the_database() {
    let laptop = Laptop::new();
    let migrate = laptop.retouch(&["migrate"]).env("DATABASE_URL", "mysql://u:hunter2@127.0.0.1:1/retouch");
    let done = migrate.run().await;
    assert!(complaint(&done).starts_with("DATABASE_URL (127.0.0.1:1/retouch): "), "{}", done.stderr);
    assert_eq!(done.status.code(), Some(3));
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

#[tokio::test]
async fn a_number_or_a_quote_in_a_variable_is_the_text_that_it_is() {
    let laptop = Laptop::new();
    let program = laptop
        .retouch(&["migrate"])
        .env("RETOUCH_NAMESPACE", "7")
        .env("DATABASE_URL", "sqlite:it's \"mine\".sqlite");
    assert_eq!(program.run().await.stderr, "");
    assert!(laptop.list("").contains(&"it's \"mine\".sqlite".to_owned()));
}

#[tokio::test]
async fn a_setting_in_the_file_gives_way_to_the_environment() {
    let laptop = Laptop::new();
    laptop.write("retouch.toml", "database_url = 'sqlite:file.sqlite'");
    assert!(laptop.retouch(&["migrate"]).run().await.status.success());
    let program = laptop.retouch(&["migrate"]).env("DATABASE_URL", "sqlite:environment.sqlite");
    assert!(program.run().await.status.success());
    // As compose files leave a variable that is not set.
    assert!(
        laptop.retouch(&["migrate"]).env("DATABASE_URL", "").run().await.stdout.starts_with("nothing to do")
    );
    let made = laptop.list("");
    let made: Vec<_> = made.iter().filter(|name| name.ends_with(".sqlite")).collect();
    assert_eq!(made, ["environment.sqlite", "file.sqlite"]);
}

#[tokio::test]
async fn a_route_gives_an_edit_type_its_default_parameters() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let edit = ["edit", "cat.png", "-t", "blur"];
    let explicit = laptop.report(&[&edit[..], &["--param", "sigma=9"]].concat()).await;
    laptop.write(
        "retouch.toml",
        "[routes.blur]\neditor = 'local'\nprice = '1.5'\ncurrency = 'EUR'\nparams = { sigma = 9 }",
    );
    let by_default = laptop.report(&edit).await;
    assert_eq!(counts(&by_default), [1, 0, 0, 0], "the same edit");
    assert_eq!(by_default["images"][0]["result_url"], explicit["images"][0]["result_url"]);
}

#[tokio::test]
async fn what_cannot_be_reached_is_named_by_its_setting_with_the_reason_and_without_its_password() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("file", "");
    laptop.write("junk.sqlite", [0x5a; 4096]);
    let nowhere = "127.0.0.1:1";
    let mysql = format!("mysql://root:hunter2@{nowhere}/retouch");
    let amqp = format!("amqp://retouch:hunter2@{nowhere}");
    let blobs = format!("{}/blobs", laptop.path("file").display());
    for (command, settings, [says, reason]) in [
        (
            &["task", "t-1"][..],
            &[("DATABASE_URL", &*mysql), ("AMQP_URL", &amqp), ("RETOUCH_BLOBS", "/tmp")][..],
            ["DATABASE_URL (127.0.0.1:1/retouch): ", "Connection refused"],
        ),
        (
            &["migrate"],
            &[("DATABASE_URL", &mysql), ("AMQP_URL", &amqp), ("RETOUCH_BLOBS", "/tmp")],
            ["DATABASE_URL (127.0.0.1:1/retouch): ", "Connection refused"],
        ),
        (
            &["worker"],
            &[("DATABASE_URL", "sqlite:own.sqlite"), ("AMQP_URL", &amqp)],
            ["AMQP_URL: ", "127.0.0.1:1: IO error: Connection refused"],
        ),
        (
            &["submit", "cat.png", "-t", "blur"],
            &[("AMQP_URL", &amqp)],
            ["AMQP_URL: ", "127.0.0.1:1: IO error: Connection refused"],
        ),
        (
            &["edit", "cat.png", "-t", "blur"],
            &[("RETOUCH_BLOBS", &blobs)],
            ["RETOUCH_BLOBS: ", "file/blobs: Not a directory"],
        ),
        (
            &["edit", "cat.png", "-t", "blur"],
            &[("DATABASE_URL", "sqlite:file/retouch.sqlite")],
            ["DATABASE_URL (file/retouch.sqlite): ", "File exists"],
        ),
        (
            &["edit", "cat.png", "-t", "blur"],
            &[("DATABASE_URL", "sqlite:junk.sqlite")],
            ["DATABASE_URL (junk.sqlite): ", "file is not a database"],
        ),
        (
            &["worker"],
            &[("DATABASE_URL", "sqlite:junk.sqlite")],
            ["DATABASE_URL (junk.sqlite): ", "file is not a database"],
        ),
        (
            &["worker"],
            &[("RETOUCH_HTTP", "203.0.113.1:80")],
            ["RETOUCH_HTTP: cannot listen on 203.0.113.1:80", "Cannot assign requested address"],
        ),
    ] {
        let program =
            settings.iter().fold(laptop.retouch(command), |program, (name, value)| program.env(name, value));
        let done = program.run().await;
        let line = done.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with(&format!("retouch: {says}")), "{command:?} {settings:?}: {}", done.stderr);
        assert!(line.contains(reason), "{command:?} {settings:?}: {line}");
        assert_eq!(done.status.code(), Some(3), "{command:?} {settings:?}");
        assert!(!done.stderr.contains("hunter2") && done.stdout.is_empty(), "{}{}", done.stdout, done.stderr);
    }
    assert!(laptop.read("junk.sqlite") == [0x5a; 4096], "what is not ours was changed");
}

#[tokio::test]
async fn a_database_of_another_system_is_left_alone() {
    let laptop = Laptop::new();
    let file = laptop.path("theirs.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut theirs = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let table = "CREATE TABLE image_edit_cache (id INTEGER, image_hash TEXT); INSERT INTO image_edit_cache VALUES (1, 'x')";
    sqlx::raw_sql(table).execute(&mut theirs).await.unwrap();
    sqlx::Connection::close(theirs).await.unwrap();
    let before = laptop.read("theirs.sqlite");
    for command in [&["migrate"][..], &["worker"], &["task", "t-1"]] {
        let done = laptop.retouch(command).env("DATABASE_URL", "sqlite:theirs.sqlite").run().await;
        let line = done.stderr.lines().last().unwrap_or_default();
        let says = "the database holds image_edit_cache that Retouch did not make (another system's?): nothing was touched";
        assert!(line.contains(says), "{command:?}: {}", done.stderr);
        assert!(!done.status.success());
    }
    assert!(laptop.read("theirs.sqlite") == before, "what is not ours was changed");
}

#[tokio::test]
async fn a_folder_of_results_that_is_not_mounted_is_not_made_anew_to_pay_for_all_of_them_again() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    assert!(laptop.retouch(&["edit", "cat.png", "-t", "double"]).run().await.status.success());
    let (blobs, elsewhere) = (laptop.path(".local/share/retouch/blobs"), laptop.path("elsewhere"));
    std::fs::rename(&blobs, &elsewhere).unwrap();
    let done = laptop.retouch(&["edit", "cat.png", "-t", "double"]).run().await;
    assert_eq!(done.status.code(), Some(3));
    assert!(done.stderr.contains("blobs is not there, and the database has results"), "{}", done.stderr);
    assert_eq!(laptop.calls().len(), 1);
    std::fs::rename(&elsewhere, &blobs).unwrap();
    assert!(laptop.retouch(&["edit", "cat.png", "-t", "double"]).run().await.status.success());
    assert_eq!(laptop.calls().len(), 1, "mounted again, it is a hit");
}
