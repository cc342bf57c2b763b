//! The client's side of a connection.

use super::convert::{
    Keepalive, encoding_from_py, framed, from_ns, headers_to_py, keepalive_from_py,
    request_metadata_from_py, shared, to_ns,
};
use super::table::PyCallTable;
use bascule_wire::client::{ClientConnection, ClientEvent, ClientLimits, Outcome, Start};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::Arc;

/// A sans-IO client connection. Each call that takes input answers with the
/// events it led to, as tuples that begin with their kind.
#[pyclass(module = "bascule._core", name = "ClientConnection", frozen)]
pub(crate) struct PyClientConnection(Mutex<ClientConnection>);

#[pymethods]
impl PyClientConnection {
    #[new]
    #[pyo3(signature = (calls, authority, now_ns, *, tls=false, user_agent, max_message=4_194_304,
        compression=None, keepalive=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        calls: &PyCallTable,
        authority: &str,
        now_ns: u64,
        tls: bool,
        user_agent: &str,
        max_message: usize,
        compression: Option<&str>,
        keepalive: Option<Keepalive>,
    ) -> PyResult<Self> {
        let limits = ClientLimits {
            max_message,
            compression: encoding_from_py(compression)?,
            keepalive: keepalive.map(keepalive_from_py),
            ..ClientLimits::default()
        };
        let table = Arc::clone(&calls.0);
        ClientConnection::new(table, limits, tls, authority, user_agent, from_ns(now_ns))
            .map(|connection| Self(Mutex::new(connection)))
            .ok_or_else(|| PyValueError::new_err(format!("{authority:?} is no host and port")))
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

    /// When `tick` is due, in the clock of `now_ns`.
    fn next_timeout(&self) -> Option<u64> {
        self.0.lock().poll_timeout().map(to_ns)
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

    /// The call's id, or None if the connection takes no new calls.
    #[pyo3(signature = (method, request, metadata, deadline_ns, unary_reply, now_ns))]
    fn start(
        &self,
        method: u32,
        request: Option<&Bound<'_, PyBytes>>,
        metadata: Option<&Bound<'_, PyAny>>,
        deadline_ns: Option<u64>,
        unary_reply: bool,
        now_ns: u64,
    ) -> PyResult<Option<u32>> {
        let start = Start {
            method,
            metadata: request_metadata_from_py(metadata)?,
            deadline: deadline_ns.map(from_ns),
            request: request.map(framed),
            unary_reply,
        };
        Ok(self.0.lock().start(start, from_ns(now_ns)))
    }

    fn send_message(&self, call: u32, message: &Bound<'_, PyBytes>) -> bool {
        let framed = framed(message);
        self.0.lock().send_message(call, framed)
    }

    fn end(&self, call: u32) {
        self.0.lock().end(call);
    }

    fn cancel(&self, call: u32, now_ns: u64) {
        self.0.lock().cancel(call, from_ns(now_ns));
    }

    fn consume(&self, call: u32, size: usize) {
        self.0.lock().consume(call, size);
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
    fn draining(&self) -> bool {
        self.0.lock().is_draining()
    }

    #[getter]
    fn pings_refused(&self) -> bool {
        self.0.lock().pings_refused()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        self.0.lock().in_flight()
    }
}

fn events<'py>(py: Python<'py>, connection: &mut ClientConnection) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    while let Some(event) = connection.poll_event() {
        list.append(event_to_py(py, event)?)?;
    }
    Ok(list)
}

fn event_to_py(py: Python<'_>, event: ClientEvent) -> PyResult<Bound<'_, PyAny>> {
    match event {
        ClientEvent::Reply {
            call,
            headers,
            message,
            outcome,
        } => {
            let headers = headers_to_py(py, headers)?;
            let reply = message.map(|message| PyBytes::new(py, &message));
            let Outcome {
                status,
                message,
                trailers,
                unprocessed,
                unsent,
            } = outcome;
            let trailers = headers_to_py(py, trailers)?;
            (
                0,
                call,
                status,
                reply,
                message,
                headers,
                trailers,
                u8::from(unprocessed) + u8::from(unsent),
            )
                .into_bound_py_any(py)
        }
        ClientEvent::Message { call, data } => {
            (1, call, PyBytes::new(py, &data)).into_bound_py_any(py)
        }
        ClientEvent::Headers { call, headers } => {
            (2, call, headers_to_py(py, headers)?).into_bound_py_any(py)
        }
        ClientEvent::Writable { call } => (3, call).into_bound_py_any(py),
        ClientEvent::End { call, outcome } => {
            let Outcome {
                status,
                message,
                trailers,
                unprocessed,
                unsent,
            } = outcome;
            (
                4,
                call,
                status,
                message,
                headers_to_py(py, trailers)?,
                u8::from(unprocessed) + u8::from(unsent),
            )
                .into_bound_py_any(py)
        }
        ClientEvent::Draining => (5,).into_bound_py_any(py),
        ClientEvent::Closed { error } => (6, error).into_bound_py_any(py),
        // The enum may grow in its crate before this one knows.
        _ => (7,).into_bound_py_any(py),
    }
}
