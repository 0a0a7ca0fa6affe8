//! Signals, gates and the grammar of one text as Python sees them.

use highrise_data::signals::{self, Shape};
use highrise_data::{gates, python};
use pyo3::prelude::*;

use crate::data::{detached, python_error};

/// Adds the names to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_function(wrap_pyfunction!(signals_of, floor)?)?;
    floor.add_function(wrap_pyfunction!(shape_of, floor)?)?;
    floor.add_function(wrap_pyfunction!(python_parses, floor)?)?;
    floor.add_class::<Signals>()?;
    floor.add_class::<Gates>()
}

/// What the surface of one text is like; see `highrise_data::signals::Signals`.
#[pyclass(frozen, get_all, module = "highrise._native.data")]
struct Signals {
    filled: usize,
    solid: usize,
    unique: usize,
    letters: usize,
    deep: usize,
    names: usize,
    name_letters: usize,
    commented: usize,
    definitions: usize,
    documented: usize,
}

/// The signals of a text.
#[pyfunction]
fn signals_of(py: Python<'_>, text: &str) -> PyResult<Signals> {
    let found = detached(py, || Ok(signals::signals(text)))?;
    let signals::Signals { filled, solid, unique, letters, deep, names, name_letters, .. } = found;
    let signals::Signals { commented, definitions, documented, .. } = found;
    Ok(Signals { filled, solid, unique, letters, deep, names, name_letters, commented, definitions, documented })
}

/// Lines, characters of the longest line, letters, blank characters, bytes of the longest run of base-64.
#[pyfunction]
fn shape_of(py: Python<'_>, text: &str) -> PyResult<(usize, usize, usize, usize, usize)> {
    let Shape { lines, longest_line, letters, blank, longest_run } = detached(py, || Ok(signals::shape(text)))?;
    Ok((lines, longest_line, letters, blank, longest_run))
}

/// Whether a text surely parses as Python; what is rare or new does not.
#[pyfunction]
fn python_parses(py: Python<'_>, text: &str) -> PyResult<bool> {
    detached(py, || Ok(python::parses(text)))
}

/// Patterns, each with hints, of which `open` says which a text may match.
#[pyclass(frozen, module = "highrise._native.data")]
struct Gates {
    gates: gates::Gates,
}

#[pymethods]
impl Gates {
    #[new]
    fn new(patterns: Vec<(Vec<String>, String)>) -> PyResult<Self> {
        Ok(Self { gates: gates::Gates::new(&patterns).map_err(python_error)? })
    }

    /// Numbers of the patterns that match somewhere in the text, in order.
    fn open(&self, py: Python<'_>, text: &str) -> PyResult<Vec<usize>> {
        detached(py, || Ok(self.gates.open(text.as_bytes())))
    }
}
