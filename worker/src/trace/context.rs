//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): parses and writes `traceparent` and
//! `tracestate`.

use std::fmt::Write;

/// The longest `tracestate` that is passed on; the specification asks for 512 at least.
const MOST_STATE: usize = 512;

/// A trace, and its span that caused this work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    #[cfg(feature = "otlp")]
    pub(crate) fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8, state: Option<String>) -> Self {
        Self { trace_id, span_id, flags, state: state.filter(|state| is_state(state)) }
    }

    /// A new trace, not sampled, since no recorder has it.
    pub(crate) fn fresh() -> Self {
        let mut trace_id: [u8; 16] = rand::random();
        // All zeros mean "none".
        trace_id[15] |= u8::from(trace_id == [0; 16]);
        Self { trace_id, span_id: span_id(), flags: 0, state: None }
    }

    /// A new span of the same trace.
    pub(crate) fn child(&self) -> Self {
        Self { span_id: span_id(), ..self.clone() }
    }

    /// From the two headers. An invalid header is ignored; without a valid `traceparent`, so is `tracestate`.
    pub fn read(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let (trace_id, span_id, flags) = parent(traceparent?)?;
        let state = tracestate.map(str::trim).filter(|state| is_state(state));
        Some(Self { trace_id, span_id, flags, state: state.map(str::to_owned) })
    }

    /// As a header.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id(), hex(&self.span_id), self.flags)
    }

    /// The other header, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// In 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn parts(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.trace_id, self.span_id, self.flags)
    }
}

fn span_id() -> [u8; 8] {
    let mut id: [u8; 8] = rand::random();
    id[7] |= u8::from(id == [0; 8]);
    id
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Version 00 has exactly four fields; later versions may append more. Lower case only.
fn parent(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let mut fields = text.trim().splitn(5, '-');
    let [version] = bytes(fields.next()?)?;
    let (trace_id, span_id) = (bytes::<16>(fields.next()?)?, bytes::<8>(fields.next()?)?);
    let [flags] = bytes(fields.next()?)?;
    let whole = version != 0 || fields.next().is_none();
    let valid = whole && version != 0xff && trace_id != [0; 16] && span_id != [0; 8];
    // Unknown flags of later versions are dropped.
    valid.then_some((trace_id, span_id, flags & 0x03))
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(digit) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// A list of `key=value` in printable ASCII.
fn is_state(text: &str) -> bool {
    let member = |member: &str| {
        let (key, value) = member.trim().split_once('=').unwrap_or_default();
        !key.is_empty() && !value.is_empty()
    };
    !text.is_empty()
        && text.len() <= MOST_STATE
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && text.split(',').all(|part| part.trim().is_empty() || member(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_parent_is_parsed_and_written_unchanged() {
        let read = TraceContext::read(Some(VALID), Some("a=1,b=2")).unwrap();
        assert_eq!((read.traceparent().as_str(), read.trace_id().as_str()), (VALID, TRACE));
        assert_eq!(read.state(), Some("a=1,b=2"));
        let child = read.child();
        assert_eq!((child.trace_id().as_str(), child.state()), (TRACE, Some("a=1,b=2")));
        assert_ne!(child.traceparent(), VALID);
    }

    #[test]
    fn invalid_trace_headers_are_ignored() {
        for invalid in [
            "",
            "00",
            "hello",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::read(Some(invalid), Some("a=1")), None, "{invalid}");
        }
        assert_eq!(TraceContext::read(None, Some("a=1")), None);
        let long = "a=1,".repeat(200);
        for invalid in ["", "novalue", "a=\n", "é=1", long.as_str()] {
            let read = TraceContext::read(Some(VALID), Some(invalid)).unwrap();
            assert_eq!(read.state(), None, "{invalid}");
        }
    }

    #[test]
    fn the_common_fields_of_a_later_version_are_parsed() {
        let later = VALID.replacen("00", "cc", 1) + "-what-ever";
        assert_eq!(TraceContext::read(Some(&later), None).unwrap().traceparent(), VALID);
    }

    #[test]
    fn no_two_fresh_traces_are_the_same() {
        let fresh = TraceContext::fresh();
        assert_ne!(fresh.trace_id(), TraceContext::fresh().trace_id());
        assert_eq!(TraceContext::read(Some(&fresh.traceparent()), None), Some(fresh));
    }
}
