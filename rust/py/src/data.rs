//! Floor `data` as Python sees it: conversions only, the work is in `highrise-data`.

use pyo3::prelude::*;

/// Adds the names of this floor to `highrise._native`.
pub(crate) fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
