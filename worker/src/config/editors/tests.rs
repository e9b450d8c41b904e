use figment::Figment;
use figment::providers::{Format, Toml};

use super::*;

fn decided(toml: &str, keys: Keys) -> Result<EditorSettings> {
    let raw = Figment::from(Toml::string(toml)).extract::<RawEditors>().unwrap();
    EditorSettings::decide(
        raw,
        keys,
        #[cfg(feature = "double")]
        None,
    )
}

fn keys_of(variables: &[(&str, &str)]) -> Result<Keys> {
    keys(|name| Ok(variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())))
}

#[test]
fn a_setting_for_an_editor_without_its_key_is_tolerated() {
    let settings = decided("dashscope = { workspace = 'ws-1', input = 'oss' }", Keys::new()).unwrap();
    assert_eq!(settings.dashscope.workspace.as_deref(), Some("ws-1"));
    let exists = |name| settings.exists(crate::models::editor_kind(name).unwrap());
    assert!(exists("local") && !exists("dashscope") && !exists("openai"));
}

#[test]
fn an_editor_exists_when_its_key_does() {
    let keys = keys_of(&[("DASHSCOPE_API_KEY", "sk-hunter2")]).unwrap();
    let settings = decided("openai = { base_url = 'https://gateway.example/v1/' }", keys).unwrap();
    assert!(settings.exists(crate::models::editor_kind("dashscope").unwrap()));
    assert_eq!(settings.openai.base_url.as_ref().unwrap().as_str(), "https://gateway.example/v1");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_bad_key_is_refused_by_its_variable_and_never_shown() {
    for (variables, says) in [
        (
            &[("OPENAI_API_KEY", "sk-hunter2"), ("OPENAI_API_KEY_FILE", "/run/key")][..],
            "OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set; set one of them",
        ),
        (
            &[("DASHSCOPE_API_KEY", "sk-hunter2 sk-hunter2")],
            "DASHSCOPE_API_KEY: the key is empty or cannot be sent",
        ),
        (
            &[("DASHSCOPE_API_KEY_FILE", "/no/such/file")],
            "DASHSCOPE_API_KEY_FILE: /no/such/file: No such file",
        ),
    ] {
        let error = keys_of(variables).unwrap_err().to_string();
        assert!(error.starts_with(says) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_key_anywhere_in_the_file_is_refused_and_not_quoted() {
    for (toml, place) in [
        ("dashscope_api_key = 'sk-hunter2'", "dashscope_api_key"),
        ("[editors.dashscope]\napi_key = 'sk-hunter2'", "editors.dashscope.api_key"),
        ("[editors.openai]\nAPI_KEY_FILE = 'sk-hunter2'", "editors.openai.API_KEY_FILE"),
        ("[routes.edit.params]\napi_key = 'sk-hunter2'", "routes.edit.params.api_key"),
    ] {
        let file = Figment::from(Toml::string(toml));
        let error =
            figment::Provider::data(&file).unwrap().values().find_map(|file| refuse_keys("", file).err());
        let error = error.unwrap().to_string();
        let says = format!(
            "{place}: a key must not stand in this file; set DASHSCOPE_API_KEY or DASHSCOPE_API_KEY_FILE"
        );
        assert!(error.starts_with(&says) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn bad_editor_settings_are_refused_with_field_and_fix() {
    for (toml, says) in [
        (
            "dashscope = { base_url = 'dashscope.example' }",
            "DASHSCOPE_BASE_URL must be a URL such as https://",
        ),
        (
            "dashscope = { base_url = 'ftp://dashscope.example' }",
            "DASHSCOPE_BASE_URL must start with https:// or http://",
        ),
        (
            "openai = { base_url = 'https://u:hunter2@x.example' }",
            "OPENAI_BASE_URL must not hold a user or a password",
        ),
        (
            "openai = { base_url = 'https://x.example/v1?key=hunter2' }",
            "OPENAI_BASE_URL must end with its path, without ? and #",
        ),
        ("dashscope = { workspace = 'a b' }", "DASHSCOPE_WORKSPACE must be the id of a workspace"),
        (
            "dashscope = { input = 'ftp' }",
            "[editors.dashscope]: input must be one of data, url and oss, not \"ftp\"",
        ),
        (
            "dashscope = { poll_seconds = 0 }",
            "[editors.dashscope]: poll_seconds must be more than 0 and at most 3600, not 0",
        ),
        (
            "dashscope = { polls_per_second = 0 }",
            "[editors.dashscope]: polls_per_second must be at least 0.01 and at most 10000, not 0",
        ),
        ("openai = { timeout_seconds = -1.5 }", "[editors.openai]: timeout_seconds must be more than 0"),
        ("openai = { timeout_seconds = nan }", "[editors.openai]: timeout_seconds must be more than 0"),
        (
            "openai = { result_hosts = ['10.0.0.0/40'] }",
            "[editors.openai]: result_hosts: \"10.0.0.0/40\" is no host",
        ),
    ] {
        let error = format!("{:#}", decided(toml, Keys::new()).unwrap_err());
        assert!(error.starts_with(says) && !error.contains("hunter2"), "{toml}: {error}");
    }
}
