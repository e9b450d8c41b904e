//! Messages on the tasks queue: a task or a cancel. A [`Cancel`] exists only because a message passed
//! [`Cancel::decode`].

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::task::{Invalid, Task, check_token, check_version, explain};
use crate::wire::{CancelMessage, Object};

/// No cancel is longer than this; a longer message is decoded as a task.
const MOST_BYTES: usize = 4 * 1024;

/// A validated message of a producer.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Work to do.
    Task(Box<Task>),
    /// Work to stop.
    Cancel(Cancel),
}

impl Request {
    /// Decodes and validates one message: a cancel if it has a field `cancel`, otherwise a task.
    ///
    /// # Errors
    /// [`Invalid`], naming the field and the fix.
    pub fn decode(payload: &[u8]) -> Result<Self, Invalid> {
        if is_cancel(payload) {
            return Cancel::decode(payload).map(Self::Cancel);
        }
        Task::decode(payload).map(Box::new).map(Self::Task)
    }
}

fn is_cancel(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Peek {
        // A null counts as present, too.
        #[serde(default, deserialize_with = "there")]
        cancel: bool,
        #[serde(default, deserialize_with = "there")]
        images: bool,
    }
    fn there<'de, D: serde::Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(field).map(|_| true)
    }
    if payload.len() > MOST_BYTES {
        return false;
    }
    let peeked = Object::<Peek>::deserialize(&mut serde_json::Deserializer::from_slice(payload));
    // A task with an unknown field `cancel` is refused as a task.
    matches!(peeked, Ok(Object(Peek { cancel: true, images: false })))
}

/// A validated cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// The task to end.
    pub task_id: String,
}

impl Cancel {
    /// Decodes and validates one message.
    ///
    /// # Errors
    /// [`Invalid::Field`], naming the field and the fix.
    pub fn decode(payload: &[u8]) -> Result<Self, Invalid> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let message: Result<Object<CancelMessage>, _> = serde_path_to_error::deserialize(&mut json);
        let Object(CancelMessage { v, cancel }) = message.map_err(|error| explain(payload, &error))?;
        json.end().map_err(|error| Invalid::Field {
            field: "message".to_owned(),
            message: format!("must be one JSON object: {error}"),
        })?;
        check_version(u64::from(v))?;
        Self::of(&cancel)
    }

    /// A cancel of this task.
    ///
    /// # Errors
    /// [`Invalid::Field`] where this is no task's id.
    pub fn of(task_id: &str) -> Result<Self, Invalid> {
        check_token("cancel", task_id, 64, b"._:-")?;
        Ok(Self { task_id: task_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(payload: &str) -> String {
        Request::decode(payload.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_cancel_names_its_task_and_nothing_else() {
        let cancel = Request::decode(br#"{"v":1,"cancel":"order-42.1"}"#).unwrap();
        assert_eq!(cancel, Request::Cancel(Cancel { task_id: "order-42.1".to_owned() }));
        let task = r#"{"v":1,"task_id":"t","edit_type":"blur","images":[{"url":"https://example.com/a"}]}"#;
        assert!(matches!(Request::decode(task.as_bytes()), Ok(Request::Task(_))));
    }

    #[test]
    fn a_bad_cancel_is_refused_by_the_wrong_field() {
        for (payload, says) in [
            (r#"{"v":2,"cancel":"t"}"#, "v: version 2 is not known"),
            (r#"{"cancel":"t"}"#, "missing field `v`"),
            (r#"{"v":1,"cancel":"a b"}"#, "cancel: must be 1-64 of [A-Za-z0-9._:-]"),
            (r#"{"v":1,"cancel":""}"#, "cancel: must be 1-64"),
            (r#"{"v":1,"cancel":null}"#, "cancel: invalid type: null, expected a string"),
            (r#"{"v":1,"cancel":7}"#, "cancel: invalid type: integer `7`, expected a string"),
            (r#"{"v":1,"cancel":"t","why":"x"}"#, "why: unknown field `why`, expected `v` or `cancel`"),
            (r#"{"v":1,"cancel":"t","task_id":"t"}"#, "task_id: unknown field"),
            (r#"{"v":1,"cancel":"t"} x"#, "trailing characters"),
            (
                r#"{"v":1,"task_id":"t","edit_type":"b","images":[],"cancel":"t"}"#,
                "cancel: unknown field `cancel`",
            ),
        ] {
            assert!(refused(payload).contains(says), "{payload}: {}", refused(payload));
        }
    }
}
