//! The words, numbers and ids of an event.

use super::*;

const STATUSES: [TaskStatus; 5] = [
    TaskStatus::Pending,
    TaskStatus::Processing,
    TaskStatus::Completed,
    TaskStatus::Partial,
    TaskStatus::Failed,
];

#[test]
fn a_status_has_one_word_everywhere() {
    for status in STATUSES {
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for word in ["", "Completed", "done", "completed "] {
        assert_eq!(word.parse::<TaskStatus>(), Err(UnknownWord(word.to_owned())));
    }
    for source in [AnswerSource::Hit, AnswerSource::Joined, AnswerSource::Paid] {
        assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
    }
}

#[test]
fn a_task_has_ended_when_nothing_of_it_waits() {
    let ended: Vec<_> =
        STATUSES.into_iter().filter(|status| status.has_ended()).map(TaskStatus::as_str).collect();
    assert_eq!(ended, ["completed", "partial", "failed"]);
}

#[test]
fn money_is_written_as_a_plain_decimal_number() {
    for (micros, text) in [
        (0, "0"),
        (1, "0.000001"),
        (140_000, "0.14"),
        (1_000_000, "1"),
        (10_000_000, "10"),
        (12_500_000, "12.5"),
        (-140_000, "-0.14"),
        (i64::MAX, "9223372036854.775807"),
        (i64::MIN, "-9223372036854.775808"),
    ] {
        assert_eq!(decimal(micros), text);
        if micros != i64::MIN {
            assert_eq!(super::micros(text), Some(micros));
        }
    }
    for text in ["", ".5", "-", "1e3", "0.1234567", "1,5", "+1", " 1", "٣", "9223372036854.775808"] {
        assert_eq!(super::micros(text), None, "{text}");
    }
}

/// The recipe, in Python:
/// ```text
/// uuid.uuid5(uuid.UUID("6f1d5a57-3c0e-4f0e-9b43-0f5d2f1c7a91"), "v1\norder-42.1\npartial\n0,1,1,1")
/// uuid.uuid5(uuid.UUID("6f1d5a57-3c0e-4f0e-9b43-0f5d2f1c7a91"), "v1\na\ncompleted\n3,0,0,0")
/// ```
#[test]
fn the_id_of_an_outcome_never_changes() {
    let partial = Event::id_for("order-42.1", TaskStatus::Partial, [0, 1, 1, 1]);
    assert_eq!(partial.to_string(), "3527e803-7172-551a-b1bd-c41b56700d4b");
    let completed = Event::id_for("a", TaskStatus::Completed, [3, 0, 0, 0]);
    assert_eq!(completed.to_string(), "35a1f3e3-9adc-5824-a25d-ff471009ca48");
}

#[test]
fn another_outcome_has_another_id() {
    let mut ids = vec![Event::id_for("b", TaskStatus::Partial, [1, 1, 1, 1])];
    for status in STATUSES {
        for counts in [
            [1, 1, 1, 1],
            [2, 1, 1, 1],
            [1, 2, 1, 1],
            [1, 1, 2, 1],
            [1, 1, 1, 2],
            [11, 1, 1, 1],
            [1, 11, 1, 1],
        ] {
            ids.push(Event::id_for("a", status, counts));
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
