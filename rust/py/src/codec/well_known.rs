//! Timestamps and durations as Python's `datetime` and `timedelta`, with betterproto2's rounding.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyType};

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;
/// Seconds from the year 1 to 1970, and from 1970 to the end of the year 9999: what fits a datetime.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

/// What the codec needs of Python, looked up once.
pub(super) struct Toolbox {
    pub(super) object_new: Py<PyAny>,
    datetime: Py<PyType>,
    timedelta: Py<PyType>,
    utc: Py<PyAny>,
    epoch: Py<PyAny>,
}

impl Toolbox {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("datetime")?;
        let datetime = module.getattr("datetime")?.cast_into::<PyType>()?;
        let utc = module.getattr("timezone")?.getattr("utc")?;
        let epoch = datetime.call1((1970, 1, 1, 0, 0, 0, 0, &utc))?;
        Ok(Self {
            object_new: py
                .import("builtins")?
                .getattr("object")?
                .getattr("__new__")?
                .unbind(),
            timedelta: module.getattr("timedelta")?.cast_into()?.unbind(),
            datetime: datetime.unbind(),
            utc: utc.unbind(),
            epoch: epoch.unbind(),
        })
    }

    /// `(seconds, nanos)` of an aware datetime; None if it takes more than arithmetic.
    pub(super) fn timestamp_parts(&self, value: &Bound<'_, PyAny>) -> Option<(i64, i64)> {
        let py = value.py();
        if !value.is_exact_instance(self.datetime.bind(py)) {
            return None;
        }
        let offset = value.sub(self.epoch.bind(py)).ok()?;
        let (seconds, micros) = self.delta_parts(&offset)?;
        (FIRST_SECOND..=LAST_SECOND)
            .contains(&seconds)
            .then_some((seconds, micros * 1_000))
    }

    pub(super) fn datetime<'py>(
        &self,
        py: Python<'py>,
        seconds: i64,
        nanos: i64,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let micros = nanos.div_euclid(1_000);
        let seconds = seconds.checked_add(micros.div_euclid(MICROS))?;
        let micros = micros.rem_euclid(MICROS);
        if !(FIRST_SECOND..=LAST_SECOND).contains(&seconds) {
            return None;
        }
        let (year, month, day) = civil(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY);
        Some(self.datetime.bind(py).call1((
            year,
            month,
            day,
            second / 3_600,
            second / 60 % 60,
            second % 60,
            micros,
            self.utc.bind(py),
        )))
    }

    /// `(seconds, nanos)` of a timedelta as betterproto2 computes them: through floats.
    pub(super) fn duration_parts(&self, value: &Bound<'_, PyAny>) -> Option<(i64, i64)> {
        let (seconds, micros) = self.delta_parts(value)?;
        let total = i128::from(seconds) * i128::from(MICROS) + i128::from(micros);
        // A timedelta has at most 8.64e19 microseconds, so none of these casts saturates.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        {
            let total = total as f64;
            let mut part = total % 1e6;
            if part < 0.0 {
                part += 1e6;
            }
            Some(((total / 1e6) as i64, (part * 1e3) as i64))
        }
    }

    pub(super) fn timedelta<'py>(
        &self,
        py: Python<'py>,
        seconds: i64,
        nanos: i64,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        // Fractions of a microsecond are rounded by Python's own rules.
        if nanos % 1_000 != 0 {
            return None;
        }
        Some(self.timedelta.bind(py).call1((
            seconds.div_euclid(DAY),
            seconds.rem_euclid(DAY),
            nanos / 1_000,
        )))
    }

    /// Whole seconds and the microseconds above them.
    fn delta_parts(&self, value: &Bound<'_, PyAny>) -> Option<(i64, i64)> {
        let py = value.py();
        if !value.is_exact_instance(self.timedelta.bind(py)) {
            return None;
        }
        let part = |name| -> Option<i64> {
            value
                .getattr(name)
                .ok()?
                .cast::<PyInt>()
                .ok()?
                .extract()
                .ok()
        };
        let days = part(intern!(py, "days"))?;
        let seconds = part(intern!(py, "seconds"))?;
        Some((days * DAY + seconds, part(intern!(py, "microseconds"))?))
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that start in March put the leap day last, so month lengths follow one formula.
    const TO_MARCH_OF_YEAR_0: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + TO_MARCH_OF_YEAR_0;
    let cycle = days.div_euclid(DAYS_IN_400_YEARS);
    let day = days.rem_euclid(DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}
