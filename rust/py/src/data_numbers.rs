//! Numbers of digests as Python sees them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use highrise_data::numbers;
use pyo3::prelude::*;

use crate::data::python_error;

/// Adds the name to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_class::<Numbers>()
}

/// A number for each digest of 16 bytes (of longer ones the first 16), about 40 bytes an entry.
#[pyclass(frozen, module = "highrise._native.data")]
struct Numbers {
    numbers: Mutex<numbers::Numbers>,
}

impl Numbers {
    /// A look-up takes less time than letting others run, so the interpreter's lock is kept.
    fn held(&self) -> MutexGuard<'_, numbers::Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Numbers {
    #[new]
    fn new() -> Self {
        Self { numbers: Mutex::new(numbers::Numbers::default()) }
    }

    /// The number of a digest, and whether it had one before; new ones are numbered in the order in which they come.
    fn number(&self, digest: &[u8]) -> PyResult<(u64, bool)> {
        self.held().number(digest).map_err(python_error)
    }

    /// Give a digest this number.
    fn put(&self, digest: &[u8], number: u64) -> PyResult<()> {
        self.held().put(digest, number).map_err(python_error)
    }

    /// The number of a digest, or None.
    fn find(&self, digest: &[u8]) -> PyResult<Option<u64>> {
        self.held().find(digest).map_err(python_error)
    }

    fn __len__(&self) -> usize {
        self.held().len()
    }
}
