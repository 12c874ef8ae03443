//! Trace contexts, as the W3C's [Trace Context] writes them in `traceparent` and `tracestate`.
//!
//! [Trace Context]: https://www.w3.org/TR/trace-context/

use std::fmt;

/// How long a `traceparent` of version 00 is.
const LENGTH: usize = 55;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// The most members of a `tracestate`.
const MEMBERS: usize = 32;

/// Longer ones of `tracestate` are left out; 512 bytes have to be passed on.
const LONGEST_STATE: usize = 2048;

/// The longest key, and the longest value, of a member.
const LONGEST_PART: usize = 256;

/// The id of a trace, which all its spans have in common. Not all its bytes are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub(super) [u8; 16]);

/// The id of a span in its trace. Not all its bytes are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub(super) [u8; 8]);

/// Where in a trace something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span of it.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// The context that a request has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// That of the caller.
    pub context: Context,
    /// What tracing systems pass on to each other with it, as it came.
    pub state: Option<String>,
}

impl TraceId {
    /// Its bytes.
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// Its bytes.
    pub const fn bytes(&self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    /// In lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    /// In lower-case hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl fmt::Display for Context {
    /// As a `traceparent` of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl Context {
    /// Reads a `traceparent`; `None` where it is none, and then a new trace begins. Of a version after 00, only
    /// what that has too is read.
    pub fn read(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let [version] = hex(&head[..2])?;
        let (trace, span) = (hex(&head[3..35])?, hex(&head[36..52])?);
        let [flags] = hex(&head[53..])?;
        let is_divided = [2, 35, 52].into_iter().all(|place| head[place] == b'-');
        let is_ended = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let sound = is_divided && is_ended && trace != [0; 16] && span != [0; 8];
        let sampled = flags & SAMPLED != 0;
        sound.then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled })
    }
}

impl Parent {
    /// Reads the values of both headers. `None` where there is not exactly one sound `traceparent`. A
    /// `tracestate` that is not sound is left out, and changes nothing of its parent.
    pub fn read<'a>(
        mut parents: impl Iterator<Item = &'a [u8]>,
        states: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let context = Context::read(parents.next()?)?;
        if parents.next().is_some() {
            return None;
        }
        Some(Self { context, state: state(states) })
    }
}

/// Lower-case digits alone, as the specification wants.
fn hex<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LENGTH];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// Several values are one, in their order.
fn state<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut state = String::new();
    for value in values {
        let value = str::from_utf8(value).ok()?;
        if state.len() + value.len() >= LONGEST_STATE {
            return None;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(value);
    }
    let members = state.split(',').map(|member| member.trim_matches([' ', '\t']));
    let mut keys = Vec::new();
    for member in members.filter(|member| !member.is_empty()) {
        keys.push(key_of_member(member)?);
    }
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    ((1..=MEMBERS).contains(&count) && keys.len() == count).then_some(state)
}

fn key_of_member(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_of_key =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_begun = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_key = is_begun
        && key.len() <= LONGEST_PART
        && key.bytes().all(is_of_key)
        && key.bytes().filter(|byte| *byte == b'@').count() <= 1
        && !key.ends_with('@');
    let is_value = (1..=LONGEST_PART).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=');
    (is_key && is_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(text: &str) -> Option<Context> {
        Context::read(text.as_bytes())
    }

    #[test]
    fn a_context_is_read_and_written() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = read(&text).unwrap();
            assert_eq!(context.to_string(), text);
            assert_eq!(context.sampled, flags == "01");
        }
        assert!(read(&format!("00-{TRACE}-{SPAN}-ff")).unwrap().sampled);
        assert!(!read(&format!("00-{TRACE}-{SPAN}-fe")).unwrap().sampled);
    }

    #[test]
    fn what_comes_after_version_00_may_be_longer() {
        assert!(read(&format!("01-{TRACE}-{SPAN}-01")).is_some());
        assert!(read(&format!("cc-{TRACE}-{SPAN}-01-what-will-be")).is_some());
        assert!(read(&format!("cc-{TRACE}-{SPAN}-01.what")).is_none());
        assert!(read(&format!("ff-{TRACE}-{SPAN}-01")).is_none());
        assert!(read(&format!("00-{TRACE}-{SPAN}-01-more")).is_none());
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{}ü-{SPAN}-01", &TRACE[..30]),
        ] {
            assert_eq!(read(&text), None, "{text}");
        }
    }

    fn parent(parents: &[&str], states: &[&str]) -> Option<Parent> {
        let bytes = |texts: &[&str]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.as_bytes().to_vec()).collect()
        };
        let (parents, states) = (bytes(parents), bytes(states));
        Parent::read(parents.iter().map(Vec::as_slice), states.iter().map(Vec::as_slice))
    }

    #[test]
    fn two_parents_are_none() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        assert!(parent(&[&text], &[]).is_some());
        assert!(parent(&[&text, &text], &[]).is_none());
        assert!(parent(&[], &["a=1"]).is_none());
    }

    #[test]
    fn a_state_is_passed_on_as_it_came_or_left_out() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let state = |states: &[&str]| parent(&[&text], states).unwrap().state;
        for (states, passed) in [
            (&["a=1"][..], "a=1"),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&["a=1, ,\tb=x y"], "a=1, ,\tb=x y"),
            (&["t1@vendor=00f067aa0ba902b7"], "t1@vendor=00f067aa0ba902b7"),
            (&["0a_-*/=!~"], "0a_-*/=!~"),
        ] {
            assert_eq!(state(states).as_deref(), Some(passed));
        }
        let long = format!("a={}", "x".repeat(257));
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=1")).collect();
        let many = many.join(",");
        for states in
            ["", ",", "a", "=1", "a=", "A=1", "a=1,a=2", "a=b=c", "a@b@c=1", "ü=1", &long, &many]
        {
            assert_eq!(state(&[states]), None, "{states}");
        }
    }
}
