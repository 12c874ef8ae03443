//! `onward::fuzzing::config_pbtxt` with bytes that libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onward::fuzzing::config_pbtxt(data));
