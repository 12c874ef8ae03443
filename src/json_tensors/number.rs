//! Numbers in JSON, from their digits straight to what they are to be.
//!
//! Most numbers have few digits and a small exponent; those are exact products or quotients of two
//! floating-point numbers that are exact themselves
//! ([Clinger 1990](https://doi.org/10.1145/93542.93557)). All others go through the standard library.

use std::str;

/// The digits that always fit in 64 bits.
const DIGITS: usize = 19;

/// Powers of ten that are exact in double precision, and those that are in single precision.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const SINGLE_POWERS: [f32; 11] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

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
    #[inline]
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let is_negative = text.first() == Some(&b'-');
        let mut scan = Scan { text, at: usize::from(is_negative), digits: 0 };
        let whole = scan.run();
        if whole == 0 || (whole > 1 && scan.text[scan.at - whole] == b'0') {
            return None;
        }
        let (mut exponent, mut is_integer, mut count) = (0, true, whole);
        if scan.next(b'.') {
            let fraction = scan.run();
            if fraction == 0 {
                return None;
            }
            count += fraction;
            (exponent, is_integer) = (-i32::try_from(fraction).ok()?, false);
        }
        let fits = count <= DIGITS || count - zeros(&text[usize::from(is_negative)..]) <= DIGITS;
        let digits = fits.then_some(scan.digits);
        if scan.next(b'e') || scan.next(b'E') {
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
    #[inline]
    pub(super) fn as_f32(&self) -> f32 {
        if let Some(exact) = self.exact_f32() {
            return exact;
        }
        match self.close_f64() {
            // Rounded once more to what is nearest; unless it lies about between two, where what was
            // rounded before decides.
            Some(double) if (double.to_bits() & 0x1fff_ffff).abs_diff(0x1000_0000) > 4 => {
                narrowed(double)
            }
            _ => self.as_str().parse().expect("its grammar was checked"),
        }
    }

    #[inline]
    fn exact_f32(&self) -> Option<f32> {
        let digits = self.digits.filter(|digits| *digits <= 1 << 24)?;
        let power = *SINGLE_POWERS.get(usize::try_from(self.exponent.unsigned_abs()).ok()?)?;
        #[expect(clippy::cast_precision_loss, reason = "it is at most 2^24")]
        let whole = digits as f32;
        let value = if self.exponent < 0 { whole / power } else { whole * power };
        Some(if self.is_negative { -value } else { value })
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
        Some(if self.is_negative { -value } else { value })
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

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    digits: u64,
}

impl Scan<'_> {
    /// Goes past this byte, if it comes next.
    #[inline]
    fn next(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Goes past digits, and adds them up; how many there were.
    #[inline]
    fn run(&mut self) -> usize {
        let begin = self.at;
        while let Some(eight) =
            self.text[self.at..].first_chunk().and_then(|text| eight_digits(*text))
        {
            self.digits = self.digits.wrapping_mul(100_000_000).wrapping_add(eight);
            self.at += 8;
        }
        while let Some(byte) = self.text.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            self.digits = self.digits.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.at - begin
    }

    /// What comes after the `e`.
    fn exponent(&mut self) -> Option<i32> {
        let is_negative = self.next(b'-');
        if !is_negative {
            self.next(b'+');
        }
        let begin = self.at;
        let mut written = 0_i32;
        while let Some(digit) = self.text.get(self.at).map(|byte| byte.wrapping_sub(b'0'))
            && digit <= 9
        {
            written = written.saturating_mul(10).saturating_add(i32::from(digit));
            self.at += 1;
        }
        (self.at > begin).then_some(if is_negative { -written } else { written })
    }
}

/// The whole number that eight digits are; `None` where not all are digits. All at once: neighbours are
/// added up to pairs, those to fours, and those to eight.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const SIXES: u64 = 0x0606_0606_0606_0606;
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let word = u64::from_le_bytes(text);
    // The upper half of each byte is three, and stays so when six is added: below, `:` and more do not.
    if word & HIGH != ZEROS || word.wrapping_add(SIXES) & HIGH != ZEROS {
        return None;
    }
    let digits = word - ZEROS;
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
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
        for text in
            ["", "-", "+1", "01", "-01", ".5", "5.", "1e", "1e+", "0x1", "inf", "NaN", "1_0"]
        {
            assert!(read(text).is_none(), "{text}");
        }
        assert_eq!(Number::read(b"12,3").unwrap().text, b"12");
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
