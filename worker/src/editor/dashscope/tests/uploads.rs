//! Pictures that go through the provider's own store.

use super::*;

const POLICY: &str = r#"{"request_id":"r","data":{"policy":"p0","signature":"s0","upload_dir":"dashscope-instant/a/b","upload_host":"SERVER",
 "expire_in_seconds":300,"max_file_size_mb":100,"capacity_limit_mb":999999999,"oss_access_key_id":"id0","x_oss_object_acl":"private","x_oss_forbid_overwrite":"true"}}"#;

async fn by_oss(answers: &[(u16, &str)]) -> (Result<Submitted, EditError>, Vec<Asked>) {
    let server = Server::start(answers).await;
    let settings = Settings { input: Input::Oss, ..server.settings() };
    let mut request = request(WANX, "description_edit_with_mask", "{}");
    request.mask = Some(picture(b"a mask"));
    let submitted = DashScope::new(settings, styles()).unwrap().submit(request).await;
    (submitted, server.asked())
}

#[tokio::test]
async fn by_oss_pictures_are_uploaded_first_without_the_key() {
    let (submitted, asked) = by_oss(&[(200, POLICY), (200, ""), (200, ""), (200, CREATED)]).await;
    accepted(submitted);
    let [policy, image, mask, create] = asked.as_slice() else { panic!("{} requests", asked.len()) };
    assert_eq!(policy.uri.to_string(), format!("/api/v1/uploads?action=getPolicy&model={WANX}"));
    assert_eq!(policy.header("authorization"), Some("Bearer sk-very-secret"));
    assert_eq!(create.header("x-dashscope-ossresourceresolve"), Some("enable"));
    let input = &create.json()["input"];
    for (upload, bytes, named) in
        [(image, "a picture", &input["base_image_url"]), (mask, "a mask", &input["mask_image_url"])]
    {
        assert_eq!((upload.header("authorization"), upload.uri.path()), (None, "/"));
        let form = String::from_utf8(upload.body.to_vec()).unwrap();
        let key = named.as_str().unwrap().strip_prefix("oss://dashscope-instant/a/b/").unwrap();
        assert!(key.ends_with(".jpg"), "{key}");
        let fields = [
            ("OSSAccessKeyId", "id0"),
            ("Signature", "s0"),
            ("policy", "p0"),
            ("key", &format!("dashscope-instant/a/b/{key}")),
            ("x-oss-object-acl", "private"),
            ("x-oss-forbid-overwrite", "true"),
            ("success_action_status", "200"),
        ];
        let mut last = 0;
        for (name, value) in fields {
            let at = form.find(&format!("name=\"{name}\"\r\n\r\n{value}\r\n"));
            last = last.max(at.unwrap_or_else(|| panic!("{name} is not in {form}")));
        }
        let file = form.find("name=\"file\"").unwrap();
        assert!(file > last && form.contains(bytes), "the file comes last: {form}");
    }
}

#[tokio::test]
async fn no_failed_upload_is_ambiguous_or_followed_by_a_submit() {
    let foreign = POLICY.replace("SERVER", "https://bucket.evil.example");
    for (answers, expected) in [
        ([(500, r#"{"code":"InternalError","message":"x"}"#), (200, "")], "not sent"),
        ([(200, "<html>"), (200, "")], "not sent"),
        ([(200, r#"{"data":{"policy":"p0"}}"#), (200, "")], "not sent"),
        ([(401, r#"{"code":"InvalidApiKey","message":"x"}"#), (200, "")], "blocked: InvalidApiKey"),
        ([(429, r#"{"code":"Throttling","message":"x"}"#), (200, "")], "rate limited"),
        ([(200, POLICY), (403, "<Error><Code>AccessDenied</Code></Error>")], "not sent"),
        ([(200, POLICY), (500, "")], "not sent"),
        ([(200, &foreign), (200, "")], "blocked: upload_host"),
    ] {
        let (submitted, asked) = by_oss(&answers).await;
        let error = submitted.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{answers:?}: {error}");
        assert!(asked.iter().all(|asked| !asked.uri.path().contains("aigc")), "{answers:?}");
        assert!(!error.contains("p0") && !error.contains(KEY), "{error}");
    }
}
