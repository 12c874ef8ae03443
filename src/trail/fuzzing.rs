//! What of traces is fuzzed.

use super::Parent;

/// What comes in `traceparent` and, after a line's end, in `tracestate`. What is taken for a context is written
/// as it was read, but for its version and the flags that are not known; what is passed on is visible, and
/// bounded.
pub fn trace_context(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (parent, states) = (lines.next().unwrap_or_default(), lines);
    let Some(read) = Parent::read([parent].into_iter(), states.clone()) else { return };
    let written = read.context.to_string();
    assert_eq!(&written.as_bytes()[3..52], &parent[3..52]);
    assert_eq!(read.context.sampled, b"13579bdf".contains(&parent[54]));
    let again = Parent::read([written.as_bytes()].into_iter(), [].into_iter());
    assert_eq!(again.map(|again| again.context), Some(read.context));
    if let Some(state) = read.state {
        let is_shown = |byte| matches!(byte, b'\t' | b' '..=b'~');
        assert!(state.len() <= 2048 && state.bytes().all(is_shown), "{state:?}");
    }
}
