//! The codec for betterproto2 message classes.
//!
//! betterproto2's own encoder and decoder interpret the field metadata of a class for every value.
//! Here that metadata is read once, into a [`plan::Plan`], and the bytes are moved by Rust. What a
//! plan does not foresee is left to betterproto2, so that both always agree.

mod decode;
mod encode;
mod fault;
mod plan;
mod well_known;
mod wire;

use std::cell::Cell;

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use decode::Decoder;
use encode::{Encoder, Unusual};
use plan::{Plan, PlanSpec};
use well_known::Toolbox;
use wire::Reader;

import_exception!(bascule.errors, EncodeError);

/// Nesting that protobuf implementations accept by default.
const MAX_DEPTH: u32 = 100;

/// A larger buffer is given back after use, so that one huge message does not stay in memory.
const MAX_SPARE: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encoder and decoder of one message class.
#[pyclass(module = "bascule._core", frozen)]
struct MessageCodec {
    /// The class itself, then every class that its fields lead to.
    plans: Vec<Plan>,
    name: String,
    tools: Toolbox,
}

#[pymethods]
impl MessageCodec {
    #[new]
    fn new(py: Python<'_>, name: String, plans: Vec<PlanSpec<'_>>) -> PyResult<Self> {
        let count = plans.len();
        let plans: Vec<Plan> = plans
            .into_iter()
            .map(|spec| Plan::build(spec, count))
            .collect::<PyResult<_>>()?;
        if plans.is_empty() {
            return Err(PyValueError::new_err(
                "a codec needs the plan of its message",
            ));
        }
        Ok(Self {
            plans,
            name,
            tools: Toolbox::new(py)?,
        })
    }

    /// The bytes of a message, identical to `bytes(message)`.
    #[pyo3(signature = (message, /))]
    fn encode<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = message.py();
        let mut encoder = Encoder {
            py,
            plans: &self.plans,
            tools: &self.tools,
            out: SPARE.take(),
        };
        encoder.out.clear();
        let bytes = match encoder.message(0, message, MAX_DEPTH) {
            Ok(()) => Ok(PyBytes::new(py, &encoder.out)),
            Err(unusual) => self.encode_slowly(message, unusual),
        };
        if encoder.out.capacity() <= MAX_SPARE {
            SPARE.set(encoder.out);
        }
        bytes
    }

    /// The message that the bytes hold.
    #[pyo3(signature = (data, /))]
    fn decode<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut decoder = Decoder {
            py,
            plans: &self.plans,
            tools: &self.tools,
            slots: Vec::with_capacity(16),
        };
        decoder
            .message(0, Reader::new(data), MAX_DEPTH)
            .map_err(|fault| fault.into_error(py, &self.name, data.len()))
    }
}

impl MessageCodec {
    /// Let betterproto2 encode the message, or say what it finds wrong with it.
    #[cold]
    fn encode_slowly<'py>(
        &self,
        message: &Bound<'py, PyAny>,
        Unusual(raised): Unusual,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = message.py();
        if let Some(error) = raised.filter(|error| !error.is_instance_of::<PyException>(py)) {
            return Err(error);
        }
        if !message.is_instance(self.plans[0].class().bind(py))? {
            let got = message.get_type().name()?;
            return Err(EncodeError::new_err(format!(
                "cannot encode {}: got an object of type {got}",
                self.name
            )));
        }
        match py.get_type::<PyBytes>().call1((message,)) {
            Ok(bytes) => Ok(bytes.cast_into()?),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                let reason = error.value(py);
                let wrapped =
                    EncodeError::new_err(format!("cannot encode {}: {reason}", self.name));
                wrapped.set_cause(py, Some(error));
                Err(wrapped)
            }
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MessageCodec>()
}
