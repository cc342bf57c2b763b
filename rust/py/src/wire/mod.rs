//! Python access to `bascule-wire`.

mod client;
mod convert;
mod server;
mod table;
mod web;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<table::PyCallTable>()?;
    module.add_class::<convert::PyHeaders>()?;
    module.add_class::<server::PyServerConfig>()?;
    module.add_class::<server::PyServerConnection>()?;
    module.add_class::<web::PyWebConfig>()?;
    module.add_class::<client::PyClientConnection>()?;
    module.add("ENCODINGS", convert::encodings(module.py())?)?;
    module.add("CALL_BUCKETS", table::buckets(module.py())?)
}
