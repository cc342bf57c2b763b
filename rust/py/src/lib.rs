//! `bascule._core`: the Rust core as Python sees it.
//!
//! This is the only crate that knows Python. Each module wraps one pure crate
//! and adds its classes to the extension module in `register`.

mod codec;
mod policy;
mod transcode;
mod wire;

use pyo3::prelude::*;

/// The Rust core of bascule.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    codec::register(module)?;
    policy::register(module)?;
    transcode::register(module)?;
    wire::register(module)
}
