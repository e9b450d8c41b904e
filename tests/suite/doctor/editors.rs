//! Providers: keys that are missing or bad, and base URLs that lead elsewhere than one thinks.

use retouch_tests::env::Env;
use retouch_tests::stand_in::StandIn;

use super::{doctor, examine};

#[tokio::test]
async fn a_key_that_is_missing_or_bad_is_named() {
    let (env, provider) = (Env::new().await, StandIn::start().await);
    let report = examine(doctor(&env)).await;
    report.names("no key, and none needed", "editor dashscope", "skipped", "no key (DASHSCOPE_API_KEY)");
    let file = env.folder().join("retouch.toml");
    std::fs::write(
        &file,
        "[routes.clean]\nmodel = 'wanx2.1-imageedit'\nparams = { function = 'remove_watermark' }\n",
    )
    .unwrap();
    let report = examine(doctor(&env).env("RETOUCH_CONFIG", &file)).await;
    report.names("key missing for a routed model", "editor dashscope", "failed", "[routes.clean]");
    assert_eq!(report.state("editor openai"), "skipped");
    let wrong = doctor(&env)
        .env("DASHSCOPE_API_KEY", "sk-wrong")
        .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
        .env("OPENAI_API_KEY", "sk-wrong")
        .env("OPENAI_BASE_URL", provider.openai_url());
    let report = examine(wrong).await;
    report.names("bad key", "editor dashscope", "failed", "InvalidApiKey");
    report.names("bad key", "editor openai", "failed", "blocked");
    assert_eq!(provider.ledger().billed(), 0);
}

#[tokio::test]
async fn a_base_url_that_leads_elsewhere_is_named() {
    let (env, provider) = (Env::new().await, StandIn::start().await);
    let with = |url: &str| doctor(&env).env("DASHSCOPE_API_KEY", StandIn::KEY).env("DASHSCOPE_BASE_URL", url);
    let report = examine(with(&provider.dashscope_url()).without("RETOUCH_ALLOW_HOSTS")).await;
    report.names("base URL on a private address", "address guard dashscope", "warning", "a loopback address");
    assert_eq!(report.state("editor dashscope"), "ok", "a gateway of one's own works");
    let report = examine(with("http://127.0.0.1:1/api/v1")).await;
    report.names("provider down", "editor dashscope", "failed", "cannot connect");
    let report = examine(with("https://nowhere.invalid/api/v1")).await;
    report.names("no such provider", "address guard dashscope", "failed", "nowhere.invalid");
    let report = examine(doctor(&env).env("RETOUCH_ALLOW_HOSTS", "0.0.0.0/0")).await;
    report.names("everything exempt from the guard", "address guard", "warning", "every address is exempt");
}
