//! Python access to `bascule-transcode`.

use bascule_transcode::{Binding, Error, ErrorKind, Found, Miss, Options, SchemaError};
use parking_lot::RwLock;
use pyo3::exceptions::{PyIndexError, PyLookupError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};

import_exception!(bascule.errors, ConfigurationError);
import_exception!(bascule.errors, DecodeError);
import_exception!(bascule.errors, EncodeError);
import_exception!(bascule.errors, MethodNotAllowedError);
import_exception!(bascule.errors, RouteNotFoundError);
import_exception!(bascule.errors, TranscodeError);

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RouteTable>()?;
    module.add_class::<Transcoder>()
}

/// A match as Python sees it: route, values of the variables, query.
type Match<'py> = (usize, Bound<'py, PyTuple>, &'py str);

/// Paths and methods of routes, with their indices in the order of addition.
#[pyclass(module = "bascule._core", frozen)]
struct RouteTable {
    inner: RwLock<bascule_transcode::RouteTable>,
}

#[pymethods]
impl RouteTable {
    #[new]
    fn new() -> Self {
        Self {
            inner: RwLock::default(),
        }
    }

    /// Add a route and answer the names of its variables.
    fn add<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        template: &str,
        owner: &str,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let mut table = self.inner.write();
        let route = table
            .add(method, template, owner)
            .map_err(configuration_error)?;
        let variables: Vec<String> = table.variables(route).map(str::to_owned).collect();
        drop(table);
        PyTuple::new(py, variables)
    }

    /// Find the route of a request.
    fn r#match<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        target: &'py str,
    ) -> PyResult<Match<'py>> {
        let found = self.inner.read().find(method, target);
        matched(py, method, found)
    }
}

/// The routes of a descriptor set and the translation of their messages.
#[pyclass(module = "bascule._core", frozen)]
struct Transcoder {
    inner: bascule_transcode::Transcoder,
}

#[pymethods]
impl Transcoder {
    #[new]
    #[pyo3(signature = (descriptor_set, services, max_depth, print_defaults, ignore_unknown=false))]
    fn new(
        descriptor_set: &[u8],
        services: Option<Vec<String>>,
        max_depth: usize,
        print_defaults: bool,
        ignore_unknown: bool,
    ) -> PyResult<Self> {
        let options = Options {
            max_depth,
            print_defaults,
            ignore_unknown,
            services,
        };
        let inner = bascule_transcode::Transcoder::new(descriptor_set, options);
        inner
            .map(|inner| Self { inner })
            .map_err(configuration_error)
    }

    /// The fields of each declared route, as `Binding` in Python has them.
    fn bindings<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.inner
            .bindings()
            .iter()
            .map(|binding| row(py, binding))
            .collect()
    }

    /// Find the route of a request.
    fn r#match<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        target: &'py str,
    ) -> PyResult<Match<'py>> {
        matched(py, method, self.inner.find(method, target))
    }

    /// Translate a matched request into protobuf bytes.
    fn request<'py>(
        &self,
        py: Python<'py>,
        binding: usize,
        values: &Bound<'py, PyTuple>,
        query: &str,
        body: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let binding = self.binding(binding)?;
        let values = values
            .iter()
            .map(|value| value.extract::<PyBackedStr>())
            .collect::<PyResult<Vec<_>>>()?;
        let message = self
            .inner
            .request(binding, &values, query, body)
            .map_err(error)?;
        Ok(PyBytes::new(py, &message))
    }

    /// Match and translate in one crossing.
    fn begin<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> PyResult<(usize, &str, Bound<'py, PyBytes>)> {
        let found = self
            .inner
            .find(method, target)
            .map_err(|miss| missed(method, miss))?;
        let binding = self.binding(found.route)?;
        let message = self
            .inner
            .request(binding, &found.values, found.query, body)
            .map_err(error)?;
        Ok((found.route, &binding.rpc_path, PyBytes::new(py, &message)))
    }

    /// Translate a reply's protobuf bytes into JSON.
    fn response<'py>(
        &self,
        py: Python<'py>,
        binding: usize,
        message: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let json = self
            .inner
            .response(self.binding(binding)?, message)
            .map_err(error)?;
        Ok(PyBytes::new(py, &json))
    }

    /// Translate a document into a message by its name.
    #[pyo3(name = "from_json")]
    fn parse<'py>(
        &self,
        py: Python<'py>,
        message_type: &str,
        document: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let parsed = self.inner.parse(message_type, document);
        let message = parsed
            .ok_or_else(|| unknown_type(message_type))?
            .map_err(error)?;
        Ok(PyBytes::new(py, &message))
    }

    /// Translate a message's bytes into JSON by its name.
    #[pyo3(name = "to_json")]
    fn print<'py>(
        &self,
        py: Python<'py>,
        message_type: &str,
        message: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let printed = self.inner.print(message_type, message);
        let json = printed
            .ok_or_else(|| unknown_type(message_type))?
            .map_err(error)?;
        Ok(PyBytes::new(py, &json))
    }
}

impl Transcoder {
    fn binding(&self, index: usize) -> PyResult<&Binding> {
        let binding = self.inner.bindings().get(index);
        binding.ok_or_else(|| PyIndexError::new_err(format!("there is no route {index}")))
    }
}

fn row<'py>(py: Python<'py>, binding: &Binding) -> PyResult<Bound<'py, PyTuple>> {
    let parts = (
        binding.http_method.as_str(),
        binding.template.as_str(),
        binding.rpc_path.as_str(),
        binding.service.as_str(),
        binding.method.as_str(),
        PyTuple::new(py, &binding.variables)?,
        binding.body.as_str(),
        binding.response_body.as_str(),
        binding.input_type.as_str(),
        binding.output_type.as_str(),
        binding.client_streaming,
        binding.server_streaming,
    );
    parts.into_pyobject(py)
}

fn matched<'py>(
    py: Python<'py>,
    method: &str,
    found: Result<Found<'py>, Miss>,
) -> PyResult<Match<'py>> {
    let Found {
        route,
        values,
        query,
    } = found.map_err(|miss| missed(method, miss))?;
    Ok((route, PyTuple::new(py, values)?, query))
}

fn missed(method: &str, miss: Miss) -> PyErr {
    match miss {
        Miss::BadTarget(bad) => error(bad),
        Miss::WrongMethod(allowed) => Python::attach(|py| match PyTuple::new(py, allowed) {
            Ok(allowed) => MethodNotAllowedError::new_err((method.to_owned(), allowed.unbind())),
            Err(error) => error,
        }),
        _ => RouteNotFoundError::new_err("no route has this path"),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn error(error: Error) -> PyErr {
    let (field, reason) = (error.field(), error.reason().to_owned());
    match error.kind() {
        ErrorKind::InvalidReply => DecodeError::new_err(error.to_string()),
        ErrorKind::Unprintable => EncodeError::new_err(error.to_string()),
        kind => TranscodeError::new_err((kind.as_str(), field, reason, error.offset())),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn configuration_error(error: SchemaError) -> PyErr {
    ConfigurationError::new_err(error.to_string())
}

fn unknown_type(message_type: &str) -> PyErr {
    PyLookupError::new_err(format!(
        "the descriptor set has no message {message_type:?}"
    ))
}
