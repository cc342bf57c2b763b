//! How browsers are served.

use super::convert::from_ns;
use bascule_wire::web::{Origins, WebConfig};
use pyo3::prelude::*;

#[pyclass(module = "bascule._core", name = "WebConfig", frozen)]
pub(crate) struct PyWebConfig(pub(crate) WebConfig);

#[pymethods]
impl PyWebConfig {
    #[new]
    #[pyo3(signature = (*, origins, credentials, max_age_ns, unary, safe))]
    fn new(
        origins: Option<Vec<String>>,
        credentials: bool,
        max_age_ns: u64,
        unary: Vec<u32>,
        safe: Vec<u32>,
    ) -> Self {
        Self(WebConfig {
            origins: origins.map_or(Origins::Any, |listed| {
                Origins::Listed(listed.into_iter().collect())
            }),
            credentials,
            max_age: from_ns(max_age_ns),
            unary: unary.into_iter().collect(),
            safe: safe.into_iter().collect(),
        })
    }
}
