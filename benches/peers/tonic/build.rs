//! Generates the echo service from the proto that every peer shares, without a protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/bench/echo.proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile([proto], ["../../proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(files)?;
    Ok(())
}
