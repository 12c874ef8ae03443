//! What ONNX Runtime says is wrong, without where in its own sources it was noticed.

/// The cause in a text such as `Load model from M failed:/onnxruntime_src/F.cc:256 N::F(int) CAUSE`.
pub(super) fn cause(message: &str) -> String {
    let text = message.trim();
    let loading =
        text.strip_prefix("Load model from ").and_then(|rest| rest.split_once(" failed:"));
    let text = loading.map_or(text, |(_, cause)| cause);
    // It may stand behind what was made of it.
    let tokens = text.match_indices('/').map(|(at, _)| text.split_at(at));
    let mut tokens = tokens.filter(|(before, _)| before.is_empty() || before.ends_with(' '));
    let without_place = tokens.find_map(|(before, token)| Some((before, behind_place(token)?)));
    without_place.map_or_else(|| text.to_owned(), |(before, cause)| format!("{before}{cause}"))
}

/// The text behind a source file, a line and a function's signature, where it begins with them.
fn behind_place(text: &str) -> Option<&str> {
    let (place, rest) = text.split_once(' ')?;
    let (_, line) = place.rsplit_once(':')?;
    line.parse::<u32>().ok()?;
    without_signature(rest).filter(|cause| !cause.is_empty())
}

/// What follows a signature such as `void N::F(std::function<void()>) const [with T = float]`.
fn without_signature(text: &str) -> Option<&str> {
    let (name, _) = text.split_once('(')?;
    let mut rest = &text[name.len()..];
    // The call operator has two pairs of parentheses.
    while rest.starts_with('(') {
        rest = behind_closing(rest, ('(', ')'))?;
    }
    rest = rest.trim_start().strip_prefix("const ").unwrap_or(rest).trim_start();
    if rest.starts_with("[with ") { behind_closing(rest, ('[', ']')) } else { Some(rest) }
        .map(str::trim)
}

/// What follows the bracket that closes the first one.
fn behind_closing(text: &str, (open, close): (char, char)) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(&text[at + close.len_utf8()..]);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cause_is_told() {
        let place = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256";
        let signature =
            "onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void()>*)";
        let ir = "Unsupported model IR version: 14, max supported IR version: 13";
        for (message, told) in [
            (format!("Load model from a b.onnx failed:{place} {signature} {ir}\n"), ir),
            (format!("{place} {signature} {ir}"), ir),
            (format!("{place} int f::operator()(int) const [with T = a[1]] {ir}"), ir),
            (
                "Load model from m.onnx failed:Protobuf parsing failed.".into(),
                "Protobuf parsing failed.",
            ),
            (
                format!(
                    "Non-zero status code. Status Message: {place} bool f(int) x (y) was false.\n"
                ),
                "Non-zero status code. Status Message: x (y) was false.",
            ),
            (
                format!("Exception: {place} void F<a::B>::g() Integer overflow"),
                "Exception: Integer overflow",
            ),
            ("f(x) is wrong".into(), "f(x) is wrong"),
            ("/a/b is not: there".into(), "/a/b is not: there"),
            (format!("{place} {signature}"), &format!("{place} {signature}")),
            (format!("{place} broken("), &format!("{place} broken(")),
        ] {
            assert_eq!(cause(&message), told);
        }
    }
}
