//! The search in files as Python sees it; arrays are numpy arrays mapped from files.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use highrise_data::spill::{Folder, SetWriter, Writer};
use highrise_data::DataError;
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

use crate::data::{detached, python_error, Settings};
use crate::data_texts::Texts;

/// Adds the classes to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_class::<SpillFolder>()?;
    floor.add_class::<SpillWriter>()?;
    floor.add_class::<SpillSets>()
}

/// A folder of files and the steps over them.
#[pyclass(frozen)]
struct SpillFolder {
    folder: Folder,
    threads: usize,
}

fn held<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, DataError> {
    mutex.lock().map_err(|_| DataError::File("this writer failed before; open it again".to_owned()))
}

#[pymethods]
impl SpillFolder {
    #[new]
    fn new(path: PathBuf, settings: Settings, memory: usize) -> PyResult<Self> {
        let threads = settings.threads();
        let folder = Folder::new(&path, settings.options()?, memory).map_err(python_error)?;
        Ok(Self { folder, threads })
    }

    /// Write the first row of the same content for each row, uint32; the number of rows equal to one before them.
    fn find_equal(&self, py: Python<'_>, mut first: PyReadwriteArray1<'_, u32>) -> PyResult<u64> {
        let first = first.as_slice_mut()?;
        detached(py, || self.folder.find_equal(first))
    }

    /// Compare what shares a band; the number of pairs compared by estimate.
    fn compare_band(
        &self,
        py: Python<'_>,
        band: usize,
        first: PyReadonlyArray1<'_, u32>,
        mut parents: PyReadwriteArray1<'_, u32>,
    ) -> PyResult<u64> {
        let (first, parents) = (first.as_slice()?, parents.as_slice_mut()?);
        detached(py, || self.folder.compare_band(band, first, parents))
    }

    /// Set the bytes of rows whose texts are compared exactly; their number.
    fn mark_needed(
        &self,
        py: Python<'_>,
        mut parents: PyReadwriteArray1<'_, u32>,
        mut needed: PyReadwriteArray1<'_, u8>,
    ) -> PyResult<u64> {
        let (parents, needed) = (parents.as_slice_mut()?, needed.as_slice_mut()?);
        detached(py, || self.folder.mark_needed(parents, needed))
    }

    /// Compare the borderline pairs exactly; the number of comparisons.
    fn check_borderline(&self, py: Python<'_>, mut parents: PyReadwriteArray1<'_, u32>) -> PyResult<u64> {
        let parents = parents.as_slice_mut()?;
        detached(py, || self.folder.check_borderline(parents, self.threads))
    }

    /// Write the label of each row, uint32; the number of rows cut off.
    fn label(
        &self,
        py: Python<'_>,
        first: PyReadonlyArray1<'_, u32>,
        mut parents: PyReadwriteArray1<'_, u32>,
        mut labels: PyReadwriteArray1<'_, u32>,
    ) -> PyResult<u64> {
        let (first, parents, labels) = (first.as_slice()?, parents.as_slice_mut()?, labels.as_slice_mut()?);
        detached(py, || self.folder.label(first, parents, labels))
    }

    /// A writer of what texts leave, after `rows` rows.
    fn writer(&self, rows: u64) -> PyResult<SpillWriter> {
        let writer = Writer::open(&self.folder, rows).map_err(python_error)?;
        Ok(SpillWriter { writer: Mutex::new(writer), threads: self.threads })
    }

    /// A writer of sets of shingles, after `count` sets.
    fn set_writer(&self, count: u64) -> PyResult<SpillSets> {
        let writer = SetWriter::open(&self.folder, count).map_err(python_error)?;
        Ok(SpillSets { writer: Mutex::new(writer), threads: self.threads })
    }
}

/// Writes what texts leave.
#[pyclass(frozen)]
struct SpillWriter {
    writer: Mutex<Writer>,
    threads: usize,
}

#[pymethods]
impl SpillWriter {
    /// Write what these texts leave; `absent` (bool) says which are none. Returns their bytes.
    fn add(&self, py: Python<'_>, texts: &Bound<'_, PyAny>, absent: PyReadonlyArray1<'_, bool>) -> PyResult<u64> {
        let texts = Texts::new(texts)?;
        let (slices, absent) = (&texts.slices, absent.as_slice()?);
        detached(py, || held(&self.writer)?.add(slices, absent, self.threads))
    }

    /// Make it durable; the number of rows.
    fn sync(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || held(&self.writer)?.sync())
    }
}

/// Writes sets of shingles.
#[pyclass(frozen)]
struct SpillSets {
    writer: Mutex<SetWriter>,
    threads: usize,
}

#[pymethods]
impl SpillSets {
    /// Write the sets of these rows, uint32, ascending.
    fn add(&self, py: Python<'_>, rows: PyReadonlyArray1<'_, u32>, texts: &Bound<'_, PyAny>) -> PyResult<()> {
        let texts = Texts::new(texts)?;
        let (slices, rows) = (&texts.slices, rows.as_slice()?);
        detached(py, || held(&self.writer)?.add(rows, slices, self.threads))
    }

    /// Make it durable; the number of sets.
    fn sync(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || held(&self.writer)?.sync())
    }
}
