//! SVG: text whose first element is `svg`. An HTML page that contains an SVG is not a picture.

use super::{Kind, sides};

/// The first element must begin within this many bytes.
const WINDOW: usize = 64 * 1024;

pub(super) fn identify(head: &[u8]) -> Option<Kind> {
    let text = String::from_utf8_lossy(&head[..head.len().min(WINDOW)]);
    let attributes = root(&text)?;
    let side = |name: &str| attribute(attributes, name).and_then(pixels);
    let size = match (side("width"), side("height")) {
        (Some(width), Some(height)) => Some((width, height)),
        _ => attribute(attributes, "viewBox").and_then(view_box),
    };
    let size = size.and_then(|(width, height)| sides(width, height));
    Some(Kind { content_type: "image/svg+xml", extension: "svg", size, format: None })
}

/// The attributes of the first element, if that is `svg`.
fn root(text: &str) -> Option<&str> {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let end = if rest.starts_with("<?") {
            rest.find("?>")? + 2
        } else if rest.starts_with("<!--") {
            rest.find("-->")? + 3
        } else if rest.starts_with("<!DOCTYPE svg") {
            // An internal subset in brackets has elements of its own.
            let from = rest.find('[').filter(|open| *open < rest.find('>').unwrap_or_default());
            let from = from.map_or(Some(0), |open| rest[open..].find(']').map(|close| open + close))?;
            from + rest[from..].find('>')? + 1
        } else {
            break;
        };
        rest = rest[end..].trim_start();
    }
    let name_end = rest.strip_prefix('<')?.find(|c: char| c.is_whitespace() || c == '>' || c == '/')? + 1;
    let name = &rest[1..name_end];
    let local = name.rsplit(':').next().unwrap_or_default();
    if local != "svg" {
        return None;
    }
    let attributes = &rest[name_end..];
    Some(&attributes[..attributes.find('>').unwrap_or(attributes.len())])
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    while let Some(at) = rest.find(name) {
        let before = rest[..at].chars().next_back();
        let after = rest[at + name.len()..].trim_start();
        if before.is_some_and(char::is_whitespace)
            && let Some(value) = after.strip_prefix('=').map(str::trim_start)
            && let Some(quote) = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))
        {
            return value[1..].split(quote).next();
        }
        rest = &rest[at + name.len()..];
    }
    None
}

/// A length in pixels; other units and percentages are unknown.
fn pixels(value: &str) -> Option<u32> {
    let number = value.trim();
    whole(number.strip_suffix("px").unwrap_or(number))
}

fn view_box(value: &str) -> Option<(u32, u32)> {
    let numbers: Vec<&str> =
        value.split(|c: char| c == ',' || c.is_whitespace()).filter(|number| !number.is_empty()).collect();
    let [_, _, width, height] = numbers[..] else { return None };
    Some((whole(width)?, whole(height)?))
}

/// Rounded up: a picture of 10.5 pixels takes 11.
fn whole(number: &str) -> Option<u32> {
    let number = number.trim().parse::<f64>().ok()?.ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds of a u32")]
    (1.0..=f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}
