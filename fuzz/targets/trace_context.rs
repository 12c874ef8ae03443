//! `onward::fuzzing::trace_context` with bytes that libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onward::fuzzing::trace_context(data));
