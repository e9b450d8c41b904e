//! Counts and durations as people read them.

use std::time::Duration;

/// `1 edit`, `2 edits`, `2 entries`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("1 {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

/// How long ago, to one unit: 42 s, 3 min, 5 h, 2 d.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long it takes still: 42 s, 3 min, 22 h 38 min.
pub(crate) fn left(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000);
    let minutes = seconds / 60;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{minutes} min"),
        _ if minutes.is_multiple_of(60) => format!("{} h", minutes / 60),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// An error's words on one line: decoders and drivers write some on several.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The system's words without its number: `No such file or directory`.
pub(crate) fn of_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_any_other_count_is_not() {
        for (count, noun, says) in [
            (0, "image", "0 images"),
            (1, "image", "1 image"),
            (2, "letter", "2 letters"),
            (1, "entry", "1 entry"),
            (3, "entry", "3 entries"),
            (2, "day", "2 days"),
        ] {
            assert_eq!(counted(count, noun), says);
        }
    }

    #[test]
    fn a_duration_has_the_units_that_people_count_in() {
        for (seconds, says) in
            [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7200, "2 h"), (81_510, "22 h 38 min")]
        {
            assert_eq!(left(Duration::from_secs(seconds)), says);
        }
        assert_eq!(left(Duration::from_millis(1)), "1 s");
        assert_eq!(
            ["42 s", "3 min", "5 h", "2 d"],
            [42, 200, 18_900, 200_000].map(age).each_ref().map(|age| age.as_str())
        );
    }

    #[test]
    fn words_of_the_system_are_one_line_without_a_number() {
        assert_eq!(of_io(&std::io::Error::from_raw_os_error(2)), "No such file or directory");
        assert_eq!(one_line("Error: illegal start bytes:\n00ff \n"), "Error: illegal start bytes: 00ff");
    }
}
