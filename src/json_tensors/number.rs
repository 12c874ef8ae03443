//! Numbers in JSON, from their digits straight to what they are to be.
//!
//! Most numbers have few digits and a small exponent; those are exact products or quotients of two
//! floating-point numbers that are exact themselves
//! ([Clinger 1990](https://doi.org/10.1145/93542.93557)). All others go through the standard library.

#![expect(clippy::inline_always, reason = "calls take as long as what they do, for each number")]

use std::str;

/// The digits that always fit in 64 bits.
const DIGITS: usize = 19;

/// Powers of ten that are exact in double precision.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Powers of ten up to that of eight digits.
const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a [u8],
    is_negative: bool,
    /// All digits as one whole number, if they are few enough.
    digits: Option<u64>,
    /// The power of ten that goes with it.
    exponent: i32,
    pub(super) is_integer: bool,
}

impl<'a> Number<'a> {
    /// The number that `text` begins with; `None` where that is none of JSON.
    #[inline(always)]
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let is_negative = text.first() == Some(&b'-');
        let begin = usize::from(is_negative);
        let mut scan = Scan { text, at: begin, digits: 0 };
        let whole = scan.whole();
        if whole == 0 || (whole > 1 && text[begin] == b'0') {
            return None;
        }
        let (mut exponent, mut is_integer, mut count) = (0, true, whole);
        if scan.peek() == Some(b'.') {
            scan.at += 1;
            let fraction = scan.run();
            if fraction == 0 {
                return None;
            }
            count += fraction;
            (exponent, is_integer) = (-i32::try_from(fraction).ok()?, false);
        }
        // A zero before the point is the rule, zeros behind it are not.
        let significant = count - usize::from(text[begin] == b'0');
        let fits = significant <= DIGITS || count - zeros(&text[begin..scan.at]) <= DIGITS;
        let digits = fits.then_some(scan.digits);
        if matches!(scan.peek(), Some(b'e' | b'E')) {
            exponent = exponent.saturating_add(scan.exponent()?);
            is_integer = false;
        }
        Some(Self { text: &text[..scan.at], is_negative, digits, exponent, is_integer })
    }

    fn as_str(&self) -> &str {
        str::from_utf8(self.text).expect("digits and signs are ASCII")
    }

    /// The nearest number in double precision, which may be infinite.
    pub(super) fn as_f64(&self) -> f64 {
        self.exact_f64().unwrap_or_else(|| self.as_str().parse().expect("its grammar was checked"))
    }

    /// The nearest number in single precision, which may be infinite.
    #[inline(always)]
    pub(super) fn as_f32(&self) -> f32 {
        match self.close_f64() {
            // Rounded once more to what is nearest; unless it lies about between two, where what was
            // rounded before decides.
            Some(double) if (double.to_bits() & 0x1fff_ffff).abs_diff(0x1000_0000) > 4 => {
                narrowed(double)
            }
            _ => self.as_str().parse().expect("its grammar was checked"),
        }
    }

    /// The nearest number in double precision, where that is one operation.
    #[inline]
    fn exact_f64(&self) -> Option<f64> {
        let is_exact = self.digits.is_some_and(|digits| digits <= 1 << 53);
        self.close_f64().filter(|_| is_exact)
    }

    /// A number in double precision that is at most two of its steps from the nearest one, where that is
    /// one operation: the digits are rounded, and so is the product.
    #[inline]
    fn close_f64(&self) -> Option<f64> {
        let power = *POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        #[expect(clippy::cast_precision_loss, reason = "that is what is accounted for")]
        let whole = self.digits? as f64;
        let value = if self.exponent < 0 { whole / power } else { whole * power };
        // No branch: signs are no pattern.
        Some(f64::from_bits(value.to_bits() | u64::from(self.is_negative) << 63))
    }

    /// The whole number, where it is written as one that fits.
    pub(super) fn as_integer<T: TryFrom<i128>>(&self) -> Option<T> {
        if !self.is_integer {
            return None;
        }
        let Some(digits) = self.digits else {
            return T::try_from(self.as_str().parse().ok()?).ok();
        };
        let value = i128::from(digits);
        T::try_from(if self.is_negative { -value } else { value }).ok()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
fn narrowed(value: f64) -> f32 {
    value as f32
}

/// Where the next number begins is known once the last has been read: so that a processor can go ahead, what it
/// can foresee is a branch here, and nothing that it has to compute.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    digits: u64,
}

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// [`Scan::run`] for what comes before a point, which mostly is one digit.
    #[inline(always)]
    fn whole(&mut self) -> usize {
        if let Some([digit @ b'0'..=b'9', b'.']) = self.text[self.at..].first_chunk() {
            self.digits = u64::from(digit - b'0');
            self.at += 1;
            return 1;
        }
        self.run()
    }

    /// Goes past digits, and adds them up; how many there were.
    #[inline(always)]
    fn run(&mut self) -> usize {
        let begin = self.at;
        while let Some(text) = self.text[self.at..].first_chunk() {
            let word = u64::from_le_bytes(*text) ^ ZEROS;
            let others = others(word);
            if others == 0 {
                self.add(8, value(word));
                continue;
            }
            // Seven at most: they become the last of eight, with zeros before them.
            let count = others.trailing_zeros() / u8::BITS;
            let digits = word << u8::BITS << ((7 - count) * u8::BITS);
            self.add(count as usize, value(digits));
            return self.at - begin;
        }
        // Few bytes are left of the text.
        while let Some(digit) = self.peek().map(|byte| byte.wrapping_sub(b'0'))
            && digit <= 9
        {
            self.add(1, u64::from(digit));
        }
        self.at - begin
    }

    /// Goes past so many digits, which are this number.
    #[inline(always)]
    fn add(&mut self, count: usize, value: u64) {
        self.digits = self.digits.wrapping_mul(TENS[count]).wrapping_add(value);
        self.at += count;
    }

    /// What begins with the `e`.
    fn exponent(&mut self) -> Option<i32> {
        self.at += 1;
        let is_negative = self.peek() == Some(b'-');
        if is_negative || self.peek() == Some(b'+') {
            self.at += 1;
        }
        let (begin, mut written) = (self.at, 0_i32);
        while let Some(digit) = self.peek().map(|byte| byte.wrapping_sub(b'0'))
            && digit <= 9
        {
            written = written.saturating_mul(10).saturating_add(i32::from(digit));
            self.at += 1;
        }
        (self.at > begin).then_some(if is_negative { -written } else { written })
    }
}

const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);

/// The highest bit of each of eight bytes that is more than nine. What a byte hands on to the next changes only
/// what comes after the first of them.
#[inline]
fn others(bytes: u64) -> u64 {
    // Added to nine, it leaves the highest bit of a byte alone, and added to anything above it does not.
    const ABOVE_NINE: u64 = u64::from_ne_bytes([0x76; 8]);
    const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
    (bytes.wrapping_add(ABOVE_NINE) | bytes) & HIGHEST
}

/// The whole number whose eight digits are these bytes, the first of which is the lowest. All at once:
/// neighbours are added up to pairs, those to fours, and those to eight.
#[inline]
fn value(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

/// The zeros before the first other digit.
fn zeros(text: &[u8]) -> usize {
    let before = text.iter().take_while(|byte| matches!(byte, b'0' | b'.'));
    before.filter(|byte| **byte == b'0').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Number<'_>> {
        Number::read(text.as_bytes()).filter(|number| number.text.len() == text.len())
    }

    #[test]
    fn only_numbers_of_json_are_read() {
        for text in
            ["0", "-0", "7", "10", "0.5", "-1.25e3", "1E+2", "1e-400", "1e99999999999", "0e0"]
        {
            assert!(read(text).is_some(), "{text}");
        }
        assert!(read("0.00000000000000000000.0").is_none(), "it ends before the second point");
        for text in
            ["", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "0x1", "inf", "NaN", "1_0"]
        {
            assert!(read(text).is_none(), "{text}");
        }
        assert_eq!(Number::read(b"12,3").unwrap().text, b"12");
    }

    #[test]
    fn the_digits_that_a_text_begins_with_are_found() {
        for (text, digits, count) in [
            (&b"12345678"[..], 12_345_678, 8),
            (b"00000000", 0, 8),
            (b"9999999999", 9_999_999_999, 10),
            (b"1234567,", 1_234_567, 7),
            (b"9.999999", 9, 1),
            (b"42/:;<=>", 42, 2),
            (b"7\xff999999", 7, 1),
            (b"12\xb9\xb8\xb0999", 12, 2),
            (b"123\x00\x10\x7f\x80\xff", 123, 3),
            (b"/0000000", 0, 0),
            (b":0000000", 0, 0),
            (b"123", 123, 3),
        ] {
            let mut scan = Scan { text, at: 0, digits: 0 };
            assert_eq!((scan.run(), scan.at, scan.digits), (count, count, digits), "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_fit_or_are_none() {
        let integer = |text| read(text).unwrap();
        assert_eq!(integer("18446744073709551615").as_integer(), Some(u64::MAX));
        assert_eq!(integer("18446744073709551616").as_integer::<u64>(), None);
        assert_eq!(integer("-9223372036854775808").as_integer(), Some(i64::MIN));
        assert_eq!(integer("-129").as_integer::<i8>(), None);
        assert_eq!(integer("-0").as_integer(), Some(0_u8));
        assert_eq!(integer("1.0").as_integer::<u8>(), None);
        assert_eq!(integer("1e2").as_integer::<u8>(), None);
        assert_eq!(integer(&"9".repeat(400)).as_integer::<u64>(), None);
    }

    #[track_caller]
    fn nearest(text: &str) {
        let number = read(text).unwrap();
        assert_eq!(number.as_f64().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        assert_eq!(number.as_f32().to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text}");
    }

    #[test]
    fn the_nearest_number_is_found_where_it_is_hard() {
        for text in [
            "-0.0",
            "0.1",
            "16777217",
            "16777217.0000000001",
            "16777216.9999999999",
            "3.4028235e38",
            "3.4028236e38",
            "1e39",
            "1e400",
            "5e-324",
            "1.4e-45",
            "1e-46",
            "9007199254740993",
            "1.00000017881393432617187499",
            "1.00000017881393432617187500",
            "1.00000017881393432617187501",
            "123456789012345678901234567890",
        ] {
            nearest(text);
        }
    }

    proptest! {
        #[test]
        fn the_nearest_number_is_found(double in any::<f64>(), single in any::<f32>()) {
            prop_assume!(double.is_finite() && single.is_finite());
            for text in [format!("{double}"), format!("{double:e}"), format!("{single}"), format!("{single:e}")] {
                nearest(&text);
            }
        }

        #[test]
        fn numbers_of_any_digits_are_the_nearest(digits in "[1-9][0-9]{0,24}", cut in 0_usize..25, power in -50_i32..50) {
            let cut = cut.min(digits.len() - 1);
            let (whole, fraction) = digits.split_at(digits.len() - cut);
            let dot = if fraction.is_empty() { "" } else { "." };
            nearest(&format!("{whole}{dot}{fraction}e{power}"));
            nearest(&format!("-0.{digits}"));
        }

        /// Right between two numbers in single precision, and a little beside.
        #[test]
        fn ties_are_broken_by_all_the_digits(bits in 0x0080_0000_u32..0x7f00_0000) {
            let (low, high) = (f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
            let middle = f64::midpoint(low, high);
            for double in [middle, middle.next_up(), middle.next_down()] {
                nearest(&format!("{double:e}"));
            }
        }
    }
}
