//! The processor, as far as the optimiser's choices hang on it.

use std::fs;

/// What tells processors apart: of the many lines about one, those that are the same for each of its cores
/// and at any time.
const TELLING: [&str; 9] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "flags",
    "Features",
    "CPU implementer",
    "CPU variant",
    "CPU part",
];

/// The processor in words; `None` where the system does not tell: elsewhere than on Linux.
pub(super) fn described() -> Option<String> {
    of(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn of(cores: &str) -> Option<String> {
    let first = cores.split("\n\n").next()?;
    let key = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
    let lines: Vec<&str> =
        first.lines().filter(|line| TELLING.contains(&key(line).as_str())).collect();
    let can = |line: &&str| ["flags", "Features"].contains(&key(line).as_str());
    lines.iter().any(can).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_apart_and_cores_are_not() {
        let core = |number, clock, flags: &str| {
            format!("processor\t: {number}\nmodel name\t: M\ncpu MHz\t: {clock}\n{flags}")
        };
        let one = of(&core(0, 1000, "flags\t: sse avx\n\n")).unwrap();
        assert_eq!(one, "model name\t: M\nflags\t: sse avx");
        assert_eq!(of(&core(1, 2000, "flags\t: sse avx\n\n")), Some(one.clone()));
        assert_ne!(of(&core(0, 1000, "flags\t: sse\n\n")), Some(one));
        assert_eq!(of(&core(0, 1000, "")), None, "it does not tell what it can");
    }
}
