use std::io::{PipeReader, Read, pipe};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const END: &[u8] = b"the end\n";

impl Lines {
    fn put(&self, line: &[u8]) {
        self.0.put(line, false);
    }
}

fn piped() -> (Lines, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    (Lines::to(writer).unwrap(), reader)
}

/// Reads until the end was told.
fn reading(mut reader: PipeReader) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut read = Vec::new();
        while !read.ends_with(END) {
            let mut piece = [0; 4096];
            let length = reader.read(&mut piece).unwrap();
            assert!(length > 0, "the end is told");
            read.extend(&piece[..length]);
        }
        read.truncate(read.len() - END.len());
        String::from_utf8(read).unwrap()
    })
}

fn numbered(number: usize) -> String {
    format!("{number:>8} {}\n", "x".repeat(number * 37 % 9000))
}

/// The number of a line that is whole.
fn number(line: &str) -> usize {
    let number = line.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(numbered(number).trim_end_matches('\n'), line);
    number
}

#[test]
fn lines_are_written_in_their_order() {
    let (lines, reader) = piped();
    let reading = reading(reader);
    thread::scope(|scope| {
        for part in 0..4 {
            let lines = &lines;
            scope.spawn(move || {
                for at in 0..50 {
                    lines.put(numbered(part * 50 + at).as_bytes());
                }
            });
        }
    });
    lines.put(END);
    let numbers: Vec<_> = reading.join().unwrap().lines().map(number).collect();
    assert_eq!(numbers.len(), 200);
    for part in 0..4 {
        let of_part = numbers.iter().filter(|number| **number / 50 == part);
        assert!(of_part.is_sorted(), "{numbers:?}");
    }
    assert_eq!(lines.report(), LinesReport::default());
}

#[test]
fn nobody_waits_for_what_is_not_read_and_what_is_lost_is_counted() {
    let (lines, reader) = piped();
    let sent = 1000;
    (0..sent).for_each(|number| lines.put(numbered(number).as_bytes()));
    lines.flush(Duration::from_millis(1));
    let LinesReport { full, failed } = lines.report();
    assert!(full > 0 && failed == 0, "{full} {failed}");
    assert!(lines.0.state().loss.reason.contains("has stopped"));

    let reading = reading(reader);
    lines.flush(MINUTE);
    lines.put(numbered(sent).as_bytes());
    lines.put(END);
    let numbers: Vec<_> = reading.join().unwrap().lines().map(number).collect();
    assert_eq!(lines.report(), LinesReport { full, failed }, "there is room again");
    assert!(numbers.is_sorted());
    assert_eq!(numbers.last(), Some(&sent));
    assert_eq!(numbers.len() as u64 + full, sent as u64 + 1);
}

#[test]
fn a_reader_that_is_gone_is_told_of() {
    let (lines, reader) = piped();
    drop(reader);
    lines.put(b"nobody reads this\n");
    lines.flush(MINUTE);
    assert_eq!(lines.report(), LinesReport { full: 0, failed: 1 });
    let reason = lines.0.state().loss.reason.clone();
    assert!(reason.contains("Broken pipe"), "{reason}");
}

/// A disk that may be full.
#[derive(Clone, Default)]
struct Disk {
    written: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
}

impl io::Write for Disk {
    /// Five bytes at a time; where it is full, no more after five.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        if self.is_full.load(SeqCst) && !written.ends_with(b"\n") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let piece = &bytes[..bytes.len().min(5)];
        written.extend(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_after_one_that_is_torn_is_one_of_its_own() {
    let disk = Disk::default();
    let lines = Lines::to(disk.clone()).unwrap();
    let say = |line: &[u8]| {
        lines.put(line);
        lines.flush(MINUTE);
    };
    say(b"before\n");
    disk.is_full.store(true, SeqCst);
    say(b"during it\n");
    say(b"and later\nand more\n");
    lines.0.put(b"a note\n", true);
    lines.flush(MINUTE);
    assert_eq!(lines.report(), LinesReport { full: 0, failed: 3 });
    assert_eq!(lines.0.state().loss.notes, 1);
    disk.is_full.store(false, SeqCst);
    say(b"after\n");
    say(b"that\n");
    assert_eq!(lines.report(), LinesReport { full: 0, failed: 3 });
    let written = disk.written.lock().unwrap().clone();
    assert_eq!(String::from_utf8(written).unwrap(), "before\ndurin\nafter\nthat\n");
}
