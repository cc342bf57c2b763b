//! Values that cross between Python and the wire.

use bascule_wire::compress::Encoding;
use bascule_wire::grpc::{self, BadMetadata, Framed, MetadataValue};
use bascule_wire::keepalive::KeepaliveSettings;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use std::borrow::Cow;
use std::time::Duration;

/// From this size on, keeping Python's bytes alive is cheaper than copying them.
const LARGE: usize = 16 * 1024;

/// Large bytes as they are, without a copy; `None` if they are small.
pub(super) fn shared(data: &Bound<'_, PyBytes>) -> Option<Bytes> {
    (data.as_bytes().len() >= LARGE).then(|| Bytes::from_owner(PyBackedBytes::from(data.clone())))
}

/// A message as it goes on the wire.
pub(super) fn framed(message: &Bound<'_, PyBytes>) -> Framed {
    match shared(message) {
        Some(message) => Framed::apart(message),
        None => grpc::frame(message.as_bytes()).into(),
    }
}

/// Metadata as it came, turned into Python values only when asked for.
#[pyclass(module = "bascule._core", name = "Headers", frozen)]
pub(crate) struct PyHeaders(HeaderMap);

#[pymethods]
impl PyHeaders {
    /// The application's metadata as (name, str or bytes) pairs, in order.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (name, value) in grpc::metadata(&self.0) {
            match value {
                MetadataValue::Text(text) => list.append((name, text))?,
                MetadataValue::Binary(raw) => list.append((name, PyBytes::new(py, &raw)))?,
            }
        }
        Ok(list)
    }

    /// The first value of any header, protocol headers included.
    fn get(&self, name: &str) -> Option<String> {
        self.0
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// `None` when there is nothing that an application could want.
pub(crate) fn headers_to_py(py: Python<'_>, headers: HeaderMap) -> PyResult<Option<Py<PyHeaders>>> {
    if headers.is_empty() || !headers.keys().any(|name| is_interesting(name.as_str())) {
        return Ok(None);
    }
    Py::new(py, PyHeaders(headers)).map(Some)
}

/// Everything but what each gRPC message carries anyway.
fn is_interesting(name: &str) -> bool {
    !matches!(
        name,
        "content-type" | "te" | "grpc-timeout" | "grpc-status" | "grpc-message"
    )
}

type Append = fn(&mut HeaderMap, &str, &MetadataValue<'_>) -> Result<(), BadMetadata>;

pub(crate) fn metadata_from_py(pairs: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    headers_from_py(pairs, grpc::append_metadata)
}

pub(crate) fn request_metadata_from_py(pairs: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    headers_from_py(pairs, grpc::append_request_metadata)
}

fn headers_from_py(pairs: Option<&Bound<'_, PyAny>>, append: Append) -> PyResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    let Some(pairs) = pairs else {
        return Ok(headers);
    };
    for pair in pairs.try_iter()? {
        let (name, value): (Bound<'_, PyString>, Bound<'_, PyAny>) = pair?.extract()?;
        let name = name.to_cow()?;
        let result = if let Ok(text) = value.cast::<PyString>() {
            append(&mut headers, &name, &MetadataValue::Text(text.to_cow()?))
        } else if let Ok(raw) = value.cast::<PyBytes>() {
            let raw = raw.as_bytes().to_vec();
            append(&mut headers, &name, &MetadataValue::Binary(raw))
        } else {
            let kind = value.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "metadata {name:?}: the value is {kind}, not str or bytes"
            )));
        };
        result.map_err(|error| PyValueError::new_err(error.0))?;
    }
    Ok(headers)
}

/// Plain HTTP headers for a response; a value that would break the framing is refused.
pub(crate) fn http_headers_from_py(pairs: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in pairs.try_iter()? {
        let (name, value): (Bound<'_, PyString>, Bound<'_, PyString>) = pair?.extract()?;
        let (name, value): (Cow<'_, str>, Cow<'_, str>) = (name.to_cow()?, value.to_cow()?);
        let bad = || PyValueError::new_err(format!("header {name:?}: no valid name or value"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        headers.append(key, HeaderValue::from_str(&value).map_err(|_| bad())?);
    }
    Ok(headers)
}

pub(crate) fn http_headers_to_py<'py>(
    py: Python<'py>,
    headers: &HeaderMap,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (name, value) in headers {
        // ISO-8859-1, as RFC 9110 had it once: every byte string has a text.
        let text: Cow<'_, str> = value.to_str().map_or_else(
            |_| {
                Cow::Owned(
                    value
                        .as_bytes()
                        .iter()
                        .map(|byte| char::from(*byte))
                        .collect(),
                )
            },
            Cow::Borrowed,
        );
        list.append((name.as_str(), text))?;
    }
    Ok(list)
}

pub(crate) fn encodings(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, Encoding::ALL.map(Encoding::name))
}

pub(crate) fn encoding_from_py(name: Option<&str>) -> PyResult<Option<Encoding>> {
    name.map_or(Ok(None), Encoding::named)
        .map_err(PyValueError::new_err)
}

/// Time and timeout in nanoseconds, and whether to ping without calls.
pub(crate) type Keepalive = (u64, u64, bool);

pub(crate) fn keepalive_from_py((time, timeout, without_calls): Keepalive) -> KeepaliveSettings {
    KeepaliveSettings {
        time: from_ns(time),
        timeout: from_ns(timeout),
        without_calls,
    }
}

pub(crate) fn from_ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

pub(crate) fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
