//! What to do about a dead letter, by its reason: one line each, the same in `retouch dead show` and in
//! docs/operations/dead-letters.md. Every reason that this program writes is here; a provider's own codes are not.

/// What a reason means for whoever reads it.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    /// The reason code.
    pub reason: &'static str,
    /// How to fix it, in one line.
    pub fix: &'static str,
    /// Whether the same message fails again, whatever is mended around it.
    pub fails_again: bool,
}

const fn fix(reason: &'static str, fix: &'static str) -> Advice {
    Advice { reason, fix, fails_again: false }
}

/// A retry helps only with another version of the workers.
const fn same(reason: &'static str, fix: &'static str) -> Advice {
    Advice { reason, fix, fails_again: true }
}

/// By topic: messages, sources, the request, the provider, our own stores.
pub const ADVICE: &[Advice] = &[
    same(
        "bad_message",
        "mend the producer: the message names the field; discard this one and publish a right one",
    ),
    same(
        "task_conflict",
        "the producer used one task_id for two contents: publish this one under a new task_id, and discard it here",
    ),
    fix(
        "poison",
        "every process that began it died: look at the workers' last lines, update them, then retry",
    ),
    fix("delivery_limit", "workers lost it again and again: see why they die or lose the broker, then retry"),
    fix(
        "expired",
        "no worker took it in time: start workers, or have the producer set no expiration; then retry",
    ),
    fix(
        "rejected",
        "something refused it unread: no worker of ours does that to a message; see who else consumes the queue, then retry",
    ),
    fix("maxlen", "its queue was full: remove the length limit that somebody's policy has set, then retry"),
    fix(
        "unknown",
        "nobody said why it is dead: look at payload and headers, and retry where the queue is known",
    ),
    fix(
        "bad_url",
        "mend the producer: images need an absolute http or https URL; retrying helps only after a change of the guard",
    ),
    fix("private_address", "allow the host by name in RETOUCH_ALLOW_HOSTS if it is yours, then retry"),
    fix("source_not_found", "put the picture where the URL says, then retry; otherwise discard"),
    fix(
        "image_hash_mismatch",
        "put the picture that image_hash names where the URL says, then retry; otherwise publish a new task with the right one",
    ),
    fix(
        "source_refused",
        "let the workers read the picture (an expired signature needs a new task), then retry",
    ),
    fix("source_unavailable", "see that the host answers again, then retry"),
    fix("too_many_redirects", "mend the redirects of the picture's host, then retry"),
    fix("too_large", "send a smaller picture, or large ones by url or blob: in a new task; discard this one"),
    fix("too_many_pixels", "scale the picture down below 64 megapixels, under the same URL, then retry"),
    fix("not_an_image", "see what the URL really answers (often a page of HTML), mend it, then retry"),
    fix("unsupported", "convert the picture as the message says, under the same URL, then retry"),
    fix("undecodable", "the picture is damaged: upload it anew under the same URL, then retry"),
    fix(
        "result_too_large",
        "ask for a smaller factor in a new task, or raise RETOUCH_RESULT_MAX_MIB and retry; nothing was paid",
    ),
    fix("unencodable", "a result or mask could not be encoded: send the picture in another format"),
    fix(
        "bad_data_uri",
        "mend the producer: data:image/png;base64,…, not percent-encoded; publish a new task",
    ),
    fix("blob_missing", "put the picture into the blob store again, then retry"),
    fix("blob_corrupt", "the bytes are not those of the digest: restore the blob from a backup, then retry"),
    fix("unknown_edit_type", "add the edit type to retouch.toml, or mend the producer; then retry"),
    fix("unknown_model", "add the model to retouch.toml, or mend the producer; then retry"),
    fix("no_editor", "give the workers the key that the message names, restart them, then retry"),
    fix("invalid_prompt", "give the edit type a prompt in retouch.toml, or publish a new task with one"),
    fix(
        "invalid_image",
        "the provider does not take such a picture: the message names limit and value; change the picture, then retry",
    ),
    fix("unsupported_format", "send the picture in a format that the message names"),
    fix("invalid_params", "publish a new task with parameters that the message names as right"),
    fix("invalid_mask", "publish a new task with a mask of the picture's size, as the message says"),
    fix("mask_not_supported", "publish a new task without the mask, or with an edit type that takes one"),
    fix(
        "ambiguous",
        "look at the provider's account: if the call is not there, retry; if it is, a retry may pay it again",
    ),
    fix("unavailable", "see that the provider can be reached from the workers, then retry: nothing was paid"),
    fix("canceled", "somebody canceled it at the provider: retry"),
    fix(
        "task_failed",
        "the provider failed without a code: retry once; if it fails again, ask them with the request id",
    ),
    fix("unknown_task", "the provider does not know the task that it gave us any more: retry"),
    fix(
        "moderation_blocked",
        "the provider refused the content: a retry is refused again; discard, or change the picture",
    ),
    fix(
        "input_missing",
        "the input vanished from the blob store: restore it, or publish the task again under a new task_id",
    ),
    fix(
        "bad_result",
        "what the provider sent was no picture: look at the blob that the letter names, and mend what sends it; a retry asks the provider for the paid result again first, free, and pays again only if it is gone there, or came within the answer",
    ),
    fix(
        "unreadable_answer",
        "the whole answer is kept: look at it with `retouch dead show ID --save FILE`; a retry reads it again first, free, and pays again only for what still cannot be read",
    ),
    fix(
        "provider_error",
        "the provider answered with an error that has no code: the message has its words; mend what it names, then retry",
    ),
    fix(
        "result_lost",
        "the paid result could not be fetched while the provider kept it: mend what the message names; a retry asks for it again first, free, and pays again only if it is gone",
    ),
    fix("no_result", "the call's row lost its result: report it; a retry pays again"),
    fix("no_provider_task_id", "the call's row lost the provider's id: report it; a retry pays again"),
];

/// What to do about this reason.
pub fn fix_for(reason: &str) -> String {
    match ADVICE.iter().find(|advice| advice.reason == reason) {
        Some(advice) => advice.fix.to_owned(),
        None => format!(
            "{reason} is the provider's own word: look it up in its documentation, mend what it names, then retry"
        ),
    }
}

/// Whether the same message fails again, whatever is mended around it.
pub fn fails_again(reason: &str) -> bool {
    ADVICE.iter().any(|advice| advice.reason == reason && advice.fails_again)
}
