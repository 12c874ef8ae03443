//! Generates the messages and services of gRPC from `proto/`, without a `protoc`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use protox::prost::Message as _;

const FILES: [&str; 2] = ["inference.proto", "health.proto"];

#[expect(clippy::disallowed_methods, reason = "Cargo tells by the environment where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let server = generate().build_client(false).codec_path("crate::grpc::codec::Messages");
    server.compile_fds(descriptors.clone())?;
    // For the tests.
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    generate().build_server(false).out_dir(client).compile_fds(descriptors)?;
    Ok(())
}

fn generate() -> tonic_prost_build::Builder {
    let builder = tonic_prost_build::configure().build_transport(false).btree_map(".");
    let builder = builder.generate_default_stubs(true);
    // Tensors are shared with the buffer that they came in, not copied.
    builder.bytes(".")
}
