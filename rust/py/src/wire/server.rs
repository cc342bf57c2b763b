//! The server's side of a connection.

use super::convert::{
    Keepalive, encoding_from_py, framed, from_ns, headers_to_py, http_headers_from_py,
    http_headers_to_py, keepalive_from_py, metadata_from_py, shared, to_ns,
};
use super::table::PyCallTable;
use super::web::PyWebConfig;
use bascule_wire::accepted::AcceptedConnection;
use bascule_wire::keepalive::{AgeLimits, PingLimits};
use bascule_wire::server::{ServerConfig, ServerEvent, ServerLimits};
use bascule_wire::{FloodLimits, HttpLimits, Problem};
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the connections of one listener share.
#[pyclass(module = "bascule._core", name = "ServerConfig", frozen)]
pub(crate) struct PyServerConfig(Arc<ServerConfig>);

#[pymethods]
impl PyServerConfig {
    #[new]
    #[pyo3(signature = (*, calls=None, max_streams=100, max_message=4_194_304, max_header_bytes=16_384,
        http_max_body=None, http_max_headers=100, http_header_timeout_ns=10_000_000_000,
        http_body_timeout_ns=15_000_000_000, handshake_timeout_ns=10_000_000_000,
        idle_timeout_ns=3_600_000_000_000, web=None, compression=None, max_calls=None,
        blocked_timeout_ns=60_000_000_000, stream_idle_timeout_ns=300_000_000_000,
        keepalive=None, min_ping_interval_ns=None, pings_without_calls=false,
        max_age_ns=None, max_age_grace_ns=30_000_000_000,
        max_incomplete=16_777_216, max_incomplete_of_all=536_870_912))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        calls: Option<&PyCallTable>,
        max_streams: u32,
        max_message: usize,
        max_header_bytes: u32,
        http_max_body: Option<usize>,
        http_max_headers: usize,
        http_header_timeout_ns: u64,
        http_body_timeout_ns: u64,
        handshake_timeout_ns: u64,
        idle_timeout_ns: u64,
        web: Option<&PyWebConfig>,
        compression: Option<&str>,
        max_calls: Option<usize>,
        blocked_timeout_ns: u64,
        stream_idle_timeout_ns: u64,
        keepalive: Option<Keepalive>,
        min_ping_interval_ns: Option<u64>,
        pings_without_calls: bool,
        max_age_ns: Option<u64>,
        max_age_grace_ns: u64,
        max_incomplete: usize,
        max_incomplete_of_all: usize,
    ) -> PyResult<Self> {
        let limits = ServerLimits {
            max_streams,
            max_message,
            max_header_bytes,
            handshake_timeout: from_ns(handshake_timeout_ns),
            idle_timeout: from_ns(idle_timeout_ns),
            max_calls,
            max_incomplete,
            max_incomplete_of_all,
            blocked_timeout: from_ns(blocked_timeout_ns),
            stream_idle_timeout: from_ns(stream_idle_timeout_ns),
            floods: FloodLimits {
                header_timeout: from_ns(
                    http_max_body.map_or(handshake_timeout_ns, |_| http_header_timeout_ns),
                ),
                ..FloodLimits::default()
            },
            ..ServerLimits::default()
        };
        let http = http_max_body.map(|max_body| HttpLimits {
            max_body,
            max_header_bytes: max_header_bytes as usize,
            max_headers: http_max_headers,
            header_timeout: from_ns(http_header_timeout_ns),
            body_timeout: from_ns(http_body_timeout_ns),
            idle_timeout: from_ns(idle_timeout_ns),
        });
        let grpc = calls.map(|table| Arc::clone(&table.0));
        Ok(Self(Arc::new(ServerConfig {
            limits,
            grpc,
            http,
            web: web.map(|web| web.0.clone()),
            compression: encoding_from_py(compression)?,
            calls: Arc::default(),
            incomplete: Arc::default(),
            refusals: Arc::default(),
            keepalive: keepalive.map(keepalive_from_py),
            pings: min_ping_interval_ns.map(|interval| PingLimits {
                min_interval: from_ns(interval),
                without_calls: pings_without_calls,
            }),
            age: max_age_ns.map(|max_age| AgeLimits {
                max_age: from_ns(max_age),
                grace: from_ns(max_age_grace_ns),
                made: Arc::default(),
            }),
        })))
    }

    /// Requests that no handler saw by reason, and connections that were cut off by what there
    /// was too much of.
    #[allow(clippy::type_complexity)]
    fn refusals(&self) -> (Vec<(&'static str, u64)>, Vec<(&'static str, u64)>) {
        (self.0.refusals.requests(), self.0.refusals.floods())
    }

    /// Bytes that are held of requests that are not whole, by all connections.
    #[getter]
    fn incomplete(&self) -> usize {
        self.0.incomplete.load(Ordering::Relaxed)
    }
}

/// A sans-IO server connection. Each call that takes input answers with the
/// events it led to, as tuples that begin with their kind.
#[pyclass(module = "bascule._core", name = "ServerConnection", frozen)]
pub(crate) struct PyServerConnection(Mutex<AcceptedConnection>);

#[pymethods]
impl PyServerConnection {
    #[new]
    #[pyo3(signature = (config, now_ns, alpn=None))]
    fn new(config: &PyServerConfig, now_ns: u64, alpn: Option<&str>) -> Self {
        Self(Mutex::new(AcceptedConnection::new(
            Arc::clone(&config.0),
            alpn,
            from_ns(now_ns),
        )))
    }

    fn receive<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        now_ns: u64,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut connection = self.0.lock();
        match shared(data) {
            Some(data) => connection.handle_bytes(data, from_ns(now_ns)),
            None => connection.handle_input(data.as_bytes(), from_ns(now_ns)),
        }
        events(py, &mut connection)
    }

    fn receive_eof<'py>(&self, py: Python<'py>, now_ns: u64) -> PyResult<Bound<'py, PyList>> {
        let mut connection = self.0.lock();
        connection.handle_eof(from_ns(now_ns));
        events(py, &mut connection)
    }

    fn tick<'py>(&self, py: Python<'py>, now_ns: u64) -> PyResult<Bound<'py, PyList>> {
        let mut connection = self.0.lock();
        connection.handle_timeout(from_ns(now_ns));
        events(py, &mut connection)
    }

    /// Bytes to send, and the events that making them led to.
    #[allow(clippy::type_complexity)]
    fn flush<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Option<Bound<'py, PyBytes>>, Bound<'py, PyList>)> {
        let mut connection = self.0.lock();
        let data = connection.drain_output(|data| PyBytes::new(py, data));
        let events = events(py, &mut connection)?;
        Ok((data, events))
    }

    #[pyo3(signature = (stream, message, initial, trailing, now_ns))]
    fn respond(
        &self,
        stream: u32,
        message: &Bound<'_, PyBytes>,
        initial: Option<&Bound<'_, PyAny>>,
        trailing: Option<&Bound<'_, PyAny>>,
        now_ns: u64,
    ) -> PyResult<()> {
        let (initial, trailing) = (metadata_from_py(initial)?, metadata_from_py(trailing)?);
        let framed = framed(message);
        self.0
            .lock()
            .respond(stream, framed, initial, trailing, from_ns(now_ns));
        Ok(())
    }

    /// False if the response headers are out and have announced something else.
    #[pyo3(signature = (stream, name, accepted))]
    fn set_compression(
        &self,
        stream: u32,
        name: Option<&str>,
        accepted: Option<&str>,
    ) -> PyResult<bool> {
        let encoding = encoding_from_py(name)?.filter(|encoding| {
            accepted.is_some_and(|accepted| encoding.is_accepted_by(accepted.as_bytes()))
        });
        Ok(self.0.lock().set_encoding(stream, encoding))
    }

    #[pyo3(signature = (stream, initial))]
    fn send_headers(&self, stream: u32, initial: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let initial = metadata_from_py(initial)?;
        self.0.lock().send_headers(stream, initial);
        Ok(())
    }

    fn send_message(&self, stream: u32, message: &Bound<'_, PyBytes>) -> bool {
        let framed = framed(message);
        self.0.lock().send_message(stream, framed)
    }

    #[pyo3(signature = (stream, status, message, initial, trailing, now_ns))]
    fn finish(
        &self,
        stream: u32,
        status: u32,
        message: Option<&str>,
        initial: Option<&Bound<'_, PyAny>>,
        trailing: Option<&Bound<'_, PyAny>>,
        now_ns: u64,
    ) -> PyResult<()> {
        let (initial, trailing) = (metadata_from_py(initial)?, metadata_from_py(trailing)?);
        self.0
            .lock()
            .finish(stream, status, message, initial, trailing, from_ns(now_ns));
        Ok(())
    }

    fn respond_http(
        &self,
        stream: u32,
        status: u16,
        headers: &Bound<'_, PyAny>,
        body: &[u8],
        now_ns: u64,
    ) -> PyResult<()> {
        let status = StatusCode::from_u16(status)
            .map_err(|_| PyValueError::new_err(format!("{status} is no HTTP status")))?;
        let headers = http_headers_from_py(headers)?;
        let body = Bytes::copy_from_slice(body);
        self.0
            .lock()
            .respond_http(stream, status, headers, body, from_ns(now_ns));
        Ok(())
    }

    fn reset(&self, stream: u32, code: u32, now_ns: u64) {
        self.0.lock().reset(stream, code.into(), from_ns(now_ns));
    }

    fn consume(&self, stream: u32, size: usize) {
        self.0.lock().consume(stream, size);
    }

    fn handler_ended(&self, stream: u32) {
        self.0.lock().handler_ended(stream);
    }

    fn shutdown(&self) {
        self.0.lock().shutdown();
    }

    #[getter]
    fn wants_read(&self) -> bool {
        self.0.lock().wants_read()
    }

    #[getter]
    fn wants_write(&self) -> bool {
        self.0.lock().wants_write()
    }

    #[getter]
    fn finished(&self) -> bool {
        self.0.lock().is_finished()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        self.0.lock().in_flight()
    }
}

fn events<'py>(
    py: Python<'py>,
    connection: &mut AcceptedConnection,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    while let Some(event) = connection.poll_event() {
        list.append(event_to_py(py, event)?)?;
    }
    Ok(list)
}

/// The kind of a call whose messages are JSON.
const JSON_CALL: u8 = 8;

fn event_to_py(py: Python<'_>, event: ServerEvent) -> PyResult<Bound<'_, PyAny>> {
    match event {
        ServerEvent::Call {
            stream,
            method,
            headers,
            timeout,
            message,
            json,
        } => {
            let headers = headers_to_py(py, headers)?;
            let message = message.map(|message| PyBytes::new(py, &message));
            let kind = if json { JSON_CALL } else { 0 };
            (kind, stream, method, headers, timeout.map(to_ns), message).into_bound_py_any(py)
        }
        ServerEvent::Message { stream, data } => {
            (1, stream, PyBytes::new(py, &data)).into_bound_py_any(py)
        }
        ServerEvent::End { stream } => (2, stream).into_bound_py_any(py),
        ServerEvent::Writable { stream } => (3, stream).into_bound_py_any(py),
        ServerEvent::Reset { stream } => (4, stream).into_bound_py_any(py),
        ServerEvent::Http(request) => {
            let headers = http_headers_to_py(py, &request.headers)?;
            let body = PyBytes::new(py, &request.body);
            let problem = request.problem.map(problem_name);
            (
                5,
                request.stream,
                request.method.as_str(),
                request.target,
                headers,
                body,
                problem,
                if request.version == http::Version::HTTP_2 {
                    "2"
                } else {
                    "1.1"
                },
            )
                .into_bound_py_any(py)
        }
        ServerEvent::Closed { error } => (6, error).into_bound_py_any(py),
        // The enum may grow in its crate before this one knows.
        _ => (7,).into_bound_py_any(py),
    }
}

fn problem_name(problem: Problem) -> &'static str {
    match problem {
        Problem::BodyTooLarge => "body_too_large",
        Problem::HeadersTooLarge => "headers_too_large",
        Problem::Timeout => "timeout",
        _ => "malformed",
    }
}
