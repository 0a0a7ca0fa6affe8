//! The index of texts seen so far as Python sees it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use highrise_data::Index;
use numpy::PyArray1;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::{detached, labels_array, statistics, Settings};
use crate::data_texts::Texts;

/// Adds the class to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_class::<DuplicateIndex>()
}

/// Texts seen so far; one call at a time works on it, others wait.
#[pyclass(frozen)]
struct DuplicateIndex {
    index: Mutex<Index>,
}

impl DuplicateIndex {
    fn hold(index: &Mutex<Index>) -> Result<MutexGuard<'_, Index>, highrise_data::DataError> {
        // a panic in the middle of a call may have left the index half done
        index.lock().map_err(|_| {
            highrise_data::DataError::File("this Deduplicator failed before; load the saved one again".to_owned())
        })
    }
}

#[pymethods]
impl DuplicateIndex {
    #[new]
    fn new(settings: Settings) -> PyResult<Self> {
        let index = Index::new(settings.options()?).map_err(crate::data::python_error)?;
        Ok(Self { index: Mutex::new(index) })
    }

    /// See these texts too; the label of each of them, int64.
    fn add<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let texts = Texts::new(texts)?;
        let slices = &texts.slices;
        let labels = detached(py, || Self::hold(&self.index)?.add(slices, threads))?;
        Ok(labels_array(py, &labels))
    }

    /// The labels of all texts, int64.
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let labels = detached(py, || Self::hold(&self.index)?.labels())?;
        Ok(labels_array(py, &labels))
    }

    /// What was counted, as a dict; "memory" is in bytes.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (counts, options, texts, memory) = detached(py, || {
            let index = Self::hold(&self.index)?;
            Ok((*index.counts(), index.options().clone(), index.len(), index.memory()))
        })?;
        let found = statistics(py, &counts, &options)?;
        found.set_item("texts", texts)?;
        found.set_item("memory", memory)?;
        Ok(found)
    }

    /// The number of texts seen.
    fn __len__(&self) -> PyResult<usize> {
        match self.index.lock() {
            Ok(index) => Ok(index.len()),
            Err(_) => Err(PyRuntimeError::new_err("this Deduplicator failed before; load the saved one again")),
        }
    }

    /// Write to `path`, not synced.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        detached(py, || Self::hold(&self.index)?.save(&path))
    }

    /// Read what `save` wrote.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, threads: usize) -> PyResult<Self> {
        let index = detached(py, || Index::load(&path, threads))?;
        Ok(Self { index: Mutex::new(index) })
    }
}
