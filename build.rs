//! Generates the messages and services of gRPC from `proto/`, without a `protoc`, and compresses the
//! files of `/docs`.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Cursor, Read, copy};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use protox::prost::Message as _;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;
use zip::read::root_dir_common_filter;

const FILES: [&str; 2] = ["inference.proto", "health.proto"];

/// What spans are sent as.
const SPANS: &str = "traces.proto";

/// What `/docs` has of our own.
const OWN: [&str; 2] = ["index.html", "start.js"];

/// What it has of Swagger UI, whose license wants to go with it; the rest stays out of the binary.
const SWAGGER_UI: [&str; 5] = [
    "LICENSE",
    "NOTICE",
    "dist/favicon-32x32.png",
    "dist/swagger-ui-bundle.js",
    "dist/swagger-ui.css",
];

#[expect(clippy::disallowed_methods, reason = "Cargo tells by the environment where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/http/docs");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    messages(&out)?;
    pages(&out.join("docs"))
}

fn messages(out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let server = generate().build_client(false).codec_path("crate::grpc::codec::Bounded");
    server.compile_fds(descriptors.clone())?;
    // For the tests.
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    generate().build_server(false).out_dir(client).compile_fds(descriptors)?;
    spans(out)
}

/// What spans are sent as: the messages of OpenTelemetry, with the client that sends them; and with the server
/// that takes them, for the tests.
fn spans(out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile([SPANS], ["proto"])?;
    for (folder, takes) in [("otlp", false), ("otlp_server", true)] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder)?;
        let generated = tonic_prost_build::configure().build_transport(false);
        let generated = generated.build_server(takes).build_client(!takes).out_dir(folder);
        generated.compile_fds(descriptors.clone())?;
    }
    Ok(())
}

fn generate() -> tonic_prost_build::Builder {
    let builder = tonic_prost_build::configure().build_transport(false).btree_map(".");
    let builder = builder.generate_default_stubs(true);
    // Tensors are shared with the buffer that they came in, not copied.
    builder.bytes(".")
}

fn pages(out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    for name in OWN {
        compress(File::open(Path::new("src/http/docs").join(name))?, &out.join(name))?;
    }
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    // It tells the version.
    let root = archive.root_dir(root_dir_common_filter)?.ok_or("Swagger UI has another form")?;
    for path in SWAGGER_UI.map(Path::new) {
        let name = path.file_name().ok_or("it is the path of a file")?;
        compress(archive.by_path(root.join(path))?, &out.join(name))?;
    }
    Ok(())
}

/// Writes it with `.gz` behind its name.
fn compress(mut content: impl Read, path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::create(path.with_added_extension("gz"))?;
    // Without a time, so that each build makes the same.
    let mut compressed = GzBuilder::new().write(file, Compression::best());
    copy(&mut content, &mut compressed)?;
    compressed.finish()?;
    Ok(())
}
