//! Whether a call may be sent once more, or only by a person's decision: the same answer for the edit stage,
//! which is about to send it, and for a command that looks ahead.

use retouch_shared::event::{ImageError, decimal};

use crate::config::OnAmbiguous;
use crate::store::Money;

/// What is known of the sends of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sends<'a> {
    /// Why only a person's decision sends it again: a reason code.
    pub(crate) held: Option<&'a str>,
    /// Submits without an answer.
    pub(crate) unanswered: u32,
    /// It costs nothing, by what it cost when it was queued or sent and by what it costs now.
    pub(crate) free: bool,
    /// What it costs now.
    pub(crate) price: &'a Money,
}

impl Sends<'_> {
    /// Why the call is not sent again, whichever task or command asks for it: it is held, or was sent without
    /// an answer as often as may be. `None`: it may be sent.
    pub(crate) fn refusal(&self, policy: OnAmbiguous) -> Option<ImageError> {
        let Self { held, unanswered: sent, free, price } = *self;
        let code = match held {
            Some(code) => code,
            None if !free && sent >= policy.most_unanswered() => "ambiguous",
            None => return None,
        };
        let before = match (code, sent) {
            ("ambiguous", 0 | 1) => "it was sent, not answered, and may have been paid".to_owned(),
            ("ambiguous", _) => {
                format!("it was sent {sent} times, not answered, and may have been paid each time")
            }
            _ => format!("it was paid for, and ended as {code}"),
        };
        let Money { micros, currency } = price;
        let message = format!(
            "not sent again: {before}. A person decides: `retouch dead list --reason {code}` shows it, \
             `retouch dead retry` sends it again and may pay another {} {currency}",
            decimal(*micros)
        );
        Some(ImageError { code: code.to_owned(), message })
    }

    /// Whether sending it may pay for it a second time.
    pub(crate) const fn may_pay_twice(&self) -> bool {
        self.unanswered > 0 && !self.free
    }
}
