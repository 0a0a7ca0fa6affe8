//! The only PyO3 in the project: each floor's Rust crate as a submodule of `highrise._native`.
//!
//! The same shared object also carries the pybind11 module `_csrc`; `PyInit__csrc` below makes its
//! initialiser visible, and `highrise/core/native.py` opens it.

mod data;
mod data_index;
mod data_numbers;
mod data_partition;
mod data_signals;
mod data_spans;
mod data_spill;
mod data_texts;
mod encode;
mod encode_pipeline;
mod encode_texts;
mod integers;
mod serve;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;

extern "C" {
    fn PyInit__csrc_module() -> *mut PyObject;
}

/// Initialiser of the pybind11 module, exported from this shared object under the name Python looks for.
#[no_mangle]
pub extern "C" fn PyInit__csrc() -> *mut PyObject {
    // SAFETY: called by the interpreter with the GIL held, as every module initialiser is.
    unsafe { PyInit__csrc_module() }
}

/// The native module: `highrise._native`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    data::register(module)?;
    encode::register(module)?;
    serve::register(module)?;
    Ok(())
}
