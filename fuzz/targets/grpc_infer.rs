//! `onward::fuzzing::grpc_infer` with bytes that libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onward::fuzzing::grpc_infer(data));
