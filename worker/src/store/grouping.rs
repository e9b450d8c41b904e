//! What is the same in the messages of failures that have one cause: their text without ids, digests, numbers, URLs and quoted
//! values. Worked out once, when a letter is written.

/// Longest text of a group, in characters: what the column takes.
pub(super) const MOST: usize = 255;
/// From this length on a word with digits in it is somebody's name for something, not a word.
const NAME: usize = 16;

/// The text of a message's group.
pub(super) fn grouped(message: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in message.lines() {
        let line = grouped_line(line);
        // One line an image: the second says nothing that the first does not.
        if !lines.contains(&line) {
            lines.push(line);
        }
        if lines.iter().map(String::len).sum::<usize>() > 4 * MOST {
            break;
        }
    }
    lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST).collect()
}

fn grouped_line(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let (put, taken) = if let Some(length) = url(rest).filter(|_| !before.is_alphanumeric()) {
            ("<url>".to_owned(), length)
        } else if let Some(length) = quoted(rest, before) {
            ("<value>".to_owned(), length)
        } else if out.ends_with("task_id: ") && !first.is_whitespace() {
            // An id, whatever it looks like.
            ("<id>".to_owned(), rest.find(char::is_whitespace).unwrap_or(rest.len()))
        } else if is_of_word(first) {
            let length = word(rest);
            (placed(&rest[..length]), length)
        } else {
            (first.to_string(), first.len_utf8())
        };
        out.push_str(&put);
        before = rest[..taken].chars().next_back().unwrap_or(' ');
        rest = &rest[taken..];
    }
    out
}

/// The length of a URL at the beginning.
fn url(text: &str) -> Option<usize> {
    let begins = ["http://", "https://", "data:", "amqp://", "amqps://", "mysql://", "s3://", "file://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)));
    let ends = |c: char| c.is_whitespace() || "\"'<>`)]}".contains(c);
    let length = text.find(ends).unwrap_or(text.len());
    // What ends a sentence is not the URL's.
    let length = text[..length].trim_end_matches(['.', ',', ';', ':']).len();
    // `data:` alone is a word of people.
    (begins && length > "data:".len()).then_some(length)
}

/// The length of a quoted value at the beginning, with its quotes. An apostrophe within a word quotes nothing.
fn quoted(text: &str, before: char) -> Option<usize> {
    let first = text.chars().next()?;
    let end = match first {
        '"' | '`' => first,
        '\'' if !before.is_alphanumeric() => '\'',
        '“' | '„' => '”',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    };
    let mut escaped = false;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        let last = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        let within = end == '\'' && chars.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        if last && !within {
            return Some(at + c.len_utf8());
        }
    }
    None
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the word at the beginning; a sign between two of its characters is of it where it may be of a number, a time
/// or an id.
fn word(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut before = ' ';
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map_or(' ', |(_, next)| *next);
        let joins = match c {
            '-' => is_of_word(next),
            '.' | ',' | ':' => before.is_ascii_digit() && next.is_ascii_digit(),
            _ => false,
        };
        if !is_of_word(c) && !joins {
            return at;
        }
        before = c;
    }
    text.len()
}

/// A word, or what stands for it.
fn placed(word: &str) -> String {
    let bare: String = word.chars().filter(|c| *c != '-').collect();
    let has_digit = bare.contains(|c: char| c.is_ascii_digit());
    let is_hex = bare.chars().all(|c| c.is_ascii_hexdigit());
    let is_number = word.chars().all(|c| c.is_ascii_digit() || ".,:".contains(c));
    let named = has_digit || (is_hex && bare.len() >= NAME);
    if !named {
        return word.to_owned();
    }
    if is_number {
        return "<n>".to_owned();
    }
    if (is_hex && bare.len() >= 8) || bare.len() >= NAME {
        return "<id>".to_owned();
    }
    let mut out = String::new();
    let mut in_number = false;
    for c in word.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                out.push_str("<n>");
            }
            in_number = true;
        } else if !(in_number && ".,:".contains(c)) {
            in_number = false;
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_letter_to_letter_is_not_in_the_text_of_a_group() {
        for (message, group) in [
            (
                "example.com has no such picture: it answered 404",
                "example.com has no such picture: it answered <n>",
            ),
            ("image 0: 404 Not Found\nimage 1: 404 Not Found", "image <n>: <n> Not Found"),
            ("task_id: order-42.1 is already another task", "task_id: <id> is already another task"),
            ("task_id: 0193c0de-7a11-7000-8000-aabbccddeeff is taken", "task_id: <id> is taken"),
            (
                "colour: unknown field `colour`, expected `v`",
                "colour: unknown field <value>, expected <value>",
            ),
            ("it's \"red\", isn't it", "it's <value>, isn't it"),
            ("cannot get https://a.example/b.png?x=1: timed out", "cannot get <url>: timed out"),
            ("see (http://a.b/c).", "see (<url>)."),
            (
                "blob e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is gone",
                "blob <id> is gone",
            ),
            ("no answer from 10.0.0.1:8080 within 20s", "no answer from <n> within <n>s"),
            ("at 2026-11-23T08:15:00.120Z", "at <id>"),
            ("bad seed (request_id 4909100c-7b5a-9f92-bfe5-0123456789ab)", "bad seed (request_id <id>)"),
            ("a blurred façade", "a blurred façade"),
            ("", ""),
        ] {
            assert_eq!(grouped(message), group, "{message}");
        }
    }

    #[test]
    fn a_group_fits_its_column_whatever_a_message_is() {
        for message in
            ["é \"".repeat(100_000), "x".repeat(1 << 20), "\u{1F480}".repeat(300), "a\n".repeat(9999)]
        {
            assert!(grouped(&message).chars().count() <= MOST);
        }
    }
}
