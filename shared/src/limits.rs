//! Limits on the shape of a message, checked on its bytes before anything is built from them.
//!
//! A parsed value takes up to a hundred times the memory of its text: `{"":0}` has 6 bytes, and a map with
//! one entry has 632. The message is therefore walked byte by byte first, in constant memory. Text that is
//! not JSON is no error here: the walk ignores it, and the parser reports the position.

use crate::task::{Invalid, MAX_IMAGES, MAX_METADATA_BYTES, MAX_PARAMS_BYTES, MAX_PROMPT_CHARS};

/// Deepest nesting of objects and lists, the message itself included.
pub const MAX_DEPTH: usize = 64;
/// Most objects and lists in `params`, and in `metadata`.
pub const MAX_CONTAINERS: usize = 1000;
/// Longest name of a field outside of `params` and `metadata`.
const MAX_NAME_BYTES: usize = 4 * 1024;
/// One byte of compact JSON may be written as an escape of six, `\u0041`.
const ESCAPE: usize = 6;
/// A character of a prompt may be written as two escapes.
const MAX_PROMPT_BYTES: usize = MAX_PROMPT_CHARS * 2 * ESCAPE;

/// Walks one message.
///
/// # Errors
/// [`Invalid::Field`], naming the field that is beyond a limit.
pub(crate) fn check(payload: &[u8]) -> Result<(), Invalid> {
    Walk { payload, at: 0, depth: 0, wants_name: false, member: Member::Other, images: Images::default() }
        .walk()
}

/// The field that the walk is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// `params` or `metadata`: kept as arbitrary JSON, so everything in it counts.
    Open(Open),
    Images,
    Prompt,
    /// Text or a number, or unknown: the parser refuses any other type before it builds it.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    name: &'static str,
    /// As compact JSON.
    max_bytes: usize,
    bytes: usize,
    values: usize,
    containers: usize,
}

#[derive(Debug, Default)]
struct Images {
    count: usize,
    /// The list has begun and is still empty.
    begun: bool,
}

struct Walk<'a> {
    payload: &'a [u8],
    at: usize,
    depth: usize,
    /// The next text at depth 1 is the name of a field.
    wants_name: bool,
    member: Member,
    images: Images,
}

impl<'a> Walk<'a> {
    fn walk(mut self) -> Result<(), Invalid> {
        while let Some(&byte) = self.payload.get(self.at) {
            self.at += 1;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => continue,
                b'"' => self.text()?,
                b'{' | b'[' => self.open(byte)?,
                b'}' | b']' => self.close(),
                b',' => self.comma()?,
                b':' => self.wants_name &= self.depth != 1,
                _ => self.count_image(),
            }
            self.count_bytes(1)?;
        }
        if self.images.count > MAX_IMAGES {
            let count = self.images.count;
            let message = format!("must be 1 to {MAX_IMAGES} images, not {count}; split the task");
            return Err(invalid("images", message));
        }
        Ok(())
    }

    /// Skips a text, from after its opening quote to after its closing one.
    fn text(&mut self) -> Result<(), Invalid> {
        self.count_image();
        let begin = self.at;
        let mut rest = self.payload[begin..].iter();
        while let Some(special) = rest.position(|byte| matches!(byte, b'"' | b'\\')) {
            self.at += special + 1;
            if self.payload[self.at - 1] == b'"' {
                break;
            }
            // An escaped quote does not end the text.
            self.at += usize::from(rest.next().is_some());
        }
        let text = &self.payload[begin..self.at.saturating_sub(1).max(begin)];
        if self.depth == 1 && self.wants_name {
            self.member = member(text)?;
            return Ok(());
        }
        match self.member {
            Member::Open(_) => self.count_bytes(text.len() + 1),
            Member::Prompt if text.len() > MAX_PROMPT_BYTES => {
                let message =
                    format!("must be 0 to {MAX_PROMPT_CHARS} characters; it has {} bytes", text.len());
                Err(invalid("prompt", message))
            }
            Member::Images | Member::Other
                if text.len() > MAX_NAME_BYTES && self.is_followed_by_a_colon() =>
            {
                Err(invalid("message", format!("has a field's name of more than {MAX_NAME_BYTES} bytes")))
            }
            Member::Images | Member::Prompt | Member::Other => Ok(()),
        }
    }

    fn is_followed_by_a_colon(&self) -> bool {
        self.payload[self.at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
    }

    fn open(&mut self, bracket: u8) -> Result<(), Invalid> {
        self.count_image();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let field = if let Member::Open(open) = self.member { open.name } else { "message" };
            return Err(invalid(
                field,
                format!("is nested deeper than {MAX_DEPTH} levels, the message included"),
            ));
        }
        self.wants_name = self.depth == 1 && bracket == b'{';
        if self.depth == 2 && self.member == Member::Images && bracket == b'[' {
            self.images.begun = true;
        }
        if let Member::Open(open) = &mut self.member {
            open.containers += 1;
            if open.containers > MAX_CONTAINERS {
                let message = format!("has more than {MAX_CONTAINERS} objects and lists in it");
                return Err(invalid(open.name, message));
            }
        }
        self.count_value()
    }

    fn close(&mut self) {
        self.images.begun = false;
        self.depth = self.depth.saturating_sub(1);
        self.wants_name = false;
    }

    fn comma(&mut self) -> Result<(), Invalid> {
        if self.depth == 1 {
            self.wants_name = true;
            self.member = Member::Other;
        }
        if self.depth == 2 && self.member == Member::Images {
            self.images.count += 1;
        }
        self.count_value()
    }

    /// Counts the first image of the list; a comma precedes each of the others.
    fn count_image(&mut self) {
        self.images.count += usize::from(std::mem::take(&mut self.images.begun));
    }

    /// A value takes two bytes of compact JSON at least.
    fn count_value(&mut self) -> Result<(), Invalid> {
        let Member::Open(open) = &mut self.member else { return Ok(()) };
        open.values += 1;
        if open.values <= open.max_bytes / 2 {
            return Ok(());
        }
        let (most, bytes) = (open.max_bytes / 2, open.max_bytes);
        let message = format!("has more than {most} values; the limit is {bytes} bytes of compact JSON");
        Err(invalid(open.name, message))
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<(), Invalid> {
        let Member::Open(open) = &mut self.member else { return Ok(()) };
        open.bytes += bytes;
        if open.bytes <= open.max_bytes * ESCAPE {
            return Ok(());
        }
        let message = format!(
            "has more than {} bytes; the limit is {} bytes of compact JSON",
            open.max_bytes * ESCAPE,
            open.max_bytes
        );
        Err(invalid(open.name, message))
    }
}

/// The field of this name, as written between its quotes.
fn member(written: &[u8]) -> Result<Member, Invalid> {
    if written.len() > MAX_NAME_BYTES {
        return Err(invalid("message", format!("has a field's name of more than {MAX_NAME_BYTES} bytes")));
    }
    let name = if written.contains(&b'\\') {
        let quoted = [b"\"", written, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).unwrap_or_default().into_bytes()
    } else {
        written.to_vec()
    };
    let open = |name, max_bytes| Member::Open(Open { name, max_bytes, bytes: 0, values: 0, containers: 0 });
    Ok(match &name[..] {
        b"params" => open("params", MAX_PARAMS_BYTES),
        b"metadata" => open("metadata", MAX_METADATA_BYTES),
        b"images" => Member::Images,
        b"prompt" => Member::Prompt,
        _ => Member::Other,
    })
}

fn invalid(field: &str, message: impl Into<String>) -> Invalid {
    Invalid::Field { field: field.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str) -> String {
        check(message.as_bytes()).map_or_else(|error| error.to_string(), |()| "taken".to_owned())
    }

    #[test]
    fn each_limit_of_shape_names_the_field_beyond_it() {
        let objects = |count: usize| vec![r#"{"":0}"#; count].join(",");
        for (message, says) in [
            (
                format!(r#"{{"params":{{"a":[{}]}}}}"#, objects(999)),
                "params: has more than 1000 objects and lists",
            ),
            (format!(r#"{{"metadata":{{"a":[{}]}}}}"#, objects(999)), "metadata: has more than 1000 objects"),
            (format!(r#"{{"p\u0061rams":[{}]}}"#, objects(1000)), "params: has more than 1000 objects"),
            (format!(r#"{{"params":[{}]}}"#, vec!["0"; 9000].join(",")), "params: has more than 8192 values"),
            (format!(r#"{{"params":["{}"]}}"#, "x".repeat(98_305)), "params: has more than 98304 bytes"),
            (format!(r#"{{"prompt":"{}"}}"#, "x".repeat(384_001)), "prompt: must be 0 to 32000 characters"),
            (format!(r#"{{"images":[{}]}}"#, objects(70)), "images: must be 1 to 64 images, not 70; split"),
            (
                format!(r#"{{"{}":1}}"#, "x".repeat(4097)),
                "message: has a field's name of more than 4096 bytes",
            ),
            (format!(r#"{{"mask":{{"{}" :1}}}}"#, "x".repeat(4097)), "message: has a field's name"),
            (format!("{}1", "[".repeat(65)), "message: is nested deeper than 64 levels"),
            (format!(r#"{{"params":{}1"#, "[".repeat(64)), "params: is nested deeper than 64 levels"),
        ] {
            assert!(told(&message).contains(says), "{says}: {}", told(&message));
        }
    }

    #[test]
    fn messages_within_the_limits_are_accepted_in_any_spelling() {
        let spaces = " ".repeat(200_000);
        for message in [
            format!(r#"{{"params":{{"a":[{}]}}}}"#, vec![r#"{"":0}"#; 998].join(",")),
            format!(r#"{{"params":{spaces}{{{spaces}"a":"}}]\"{{[","b":1}},"x":[]}}"#),
            format!(r#"{{"images":[{}],"params":{{}}}}"#, vec![r#"{"url":"a,b"}"#; 64].join(" , ")),
            format!(r#"{{"images":[{{"data":"{}"}}]}}"#, "x".repeat(1 << 20)),
            r#"{"prompt":"images","images":[ ]}"#.to_owned(),
            // The parser reports these.
            r#"{"params":"\"#.to_owned(),
            r#"]]}}"a"#.to_owned(),
            String::new(),
        ] {
            assert_eq!(told(&message), "taken", "{:.80}", message);
        }
    }
}
