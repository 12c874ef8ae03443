//! `onward::fuzzing::tfs_predict` with bytes that libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onward::fuzzing::tfs_predict(data));
