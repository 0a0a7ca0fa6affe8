//! Floor `serve` as Python sees it: conversions only, the work is in `highrise-serve`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use highrise_serve::{Error, PageAllocator};
use numpy::ndarray::Axis;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn raise(error: Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Handle, cached tokens, and the copy that makes the last of them true.
type Reserved = (u64, usize, Option<(u32, u32)>);

/// Hands out the pages of one KV cache; one call a request or a step. All sequences are named by handles.
/// Any thread may call; calls take turns.
#[pyclass(name = "PageAllocator", module = "highrise._native", frozen)]
struct Pool {
    inner: Mutex<PageAllocator>,
}

impl Pool {
    /// Never taken while waiting for the interpreter, so the two locks cannot wait for each other. A panic inside leaves
    /// counts that `check` would report; the next caller still gets in.
    fn lock(&self) -> MutexGuard<'_, PageAllocator> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Pool {
    /// `PageAllocator(num_pages, page_size)`.
    #[new]
    fn new(py: Python<'_>, num_pages: usize, page_size: usize) -> PyResult<Self> {
        let inner = py.detach(|| PageAllocator::new(num_pages, page_size)).map_err(raise)?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    #[getter]
    fn page_size(&self) -> usize {
        self.lock().page_size()
    }

    #[getter]
    fn num_free(&self) -> usize {
        self.lock().num_free()
    }

    /// Pages for a prompt (uint32 ids): `(handle, num_cached_tokens, copy)`, or None when there is no room. `copy` is None or
    /// a pair of pages (from, to): the last cached tokens are there once the first was copied to the second.
    #[pyo3(signature = (tokens, salt=0, headroom=0))]
    fn allocate(
        &self,
        py: Python<'_>,
        tokens: PyReadonlyArray1<'_, u32>,
        salt: u64,
        headroom: usize,
    ) -> PyResult<Option<Reserved>> {
        let tokens = tokens.as_slice()?;
        let admission = py.detach(|| self.lock().allocate(tokens, salt, headroom)).map_err(raise)?;
        Ok(admission.map(|found| (found.handle, found.num_cached, found.copy)))
    }

    /// How many leading tokens of a prompt lie in the cache.
    #[pyo3(signature = (tokens, salt=0))]
    fn lookup(&self, py: Python<'_>, tokens: PyReadonlyArray1<'_, u32>, salt: u64) -> PyResult<usize> {
        let tokens = tokens.as_slice()?;
        Ok(py.detach(|| self.lock().lookup(tokens, salt)))
    }

    /// Appends one token to each sequence: `(num_done, copies)`. `num_done` is short when the pages ran out; `copies` is an
    /// int32 array of (from, to) pages to be copied before the next step.
    fn append<'py>(
        &self,
        py: Python<'py>,
        handles: PyReadonlyArray1<'py, u64>,
        tokens: PyReadonlyArray1<'py, u32>,
    ) -> PyResult<(usize, Bound<'py, PyArray2<i32>>)> {
        let (handles, tokens) = (handles.as_slice()?, tokens.as_slice()?);
        if handles.len() != tokens.len() {
            return Err(PyValueError::new_err(format!("{} handles and {} tokens", handles.len(), tokens.len())));
        }
        let (done, copies) = py
            .detach(|| {
                let mut inner = self.lock();
                let mut copies = Vec::new();
                for (index, (handle, token)) in handles.iter().zip(tokens).enumerate() {
                    if !inner.append(*handle, *token, &mut copies)? {
                        return Ok((index, copies));
                    }
                }
                Ok((handles.len(), copies))
            })
            .map_err(raise)?;
        let flat: Vec<i32> = copies.iter().flat_map(|(from, to)| [*from as i32, *to as i32]).collect();
        Ok((done, PyArray1::from_vec(py, flat).reshape([copies.len(), 2])?))
    }

    /// Says how many leading tokens of each sequence have their keys and values; full pages become shareable.
    fn commit(
        &self,
        py: Python<'_>,
        handles: PyReadonlyArray1<'_, u64>,
        num_computed: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<()> {
        let (handles, counts) = (handles.as_slice()?, num_computed.as_slice()?);
        if handles.len() != counts.len() {
            return Err(PyValueError::new_err(format!("{} handles and {} counts", handles.len(), counts.len())));
        }
        py.detach(|| {
            let mut inner = self.lock();
            handles.iter().zip(counts).try_for_each(|(handle, count)| inner.commit(*handle, (*count).max(0) as usize))
        })
        .map_err(raise)
    }

    /// A second sequence over the same pages.
    fn fork(&self, handle: u64) -> PyResult<u64> {
        self.lock().fork(handle).map_err(raise)
    }

    /// Keeps the committed pages of a sequence cached until the returned handle is released.
    fn pin(&self, handle: u64) -> PyResult<u64> {
        self.lock().pin(handle).map_err(raise)
    }

    /// Cuts a sequence back to `length` tokens, not into committed pages.
    fn truncate(&self, handle: u64, length: usize) -> PyResult<()> {
        self.lock().truncate(handle, length).map_err(raise)
    }

    /// Gives back the pages wholly before the last `window` tokens; the number of them.
    fn slide(&self, handle: u64, window: usize) -> PyResult<usize> {
        self.lock().slide(handle, window).map_err(raise)
    }

    /// Gives back the pages of a sequence that stays; int32, the pages whose content the caller keeps.
    fn swap_out<'py>(&self, py: Python<'py>, handle: u64) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let pages = py.detach(|| self.lock().swap_out(handle)).map_err(raise)?;
        Ok(PyArray1::from_vec(py, pages.into_iter().map(|page| page as i32).collect()))
    }

    /// Pages again for a sequence that was swapped out: int32 (place, page) rows to be filled with what was kept; None
    /// when there is no room.
    #[pyo3(signature = (handle, headroom=0))]
    fn swap_in<'py>(
        &self,
        py: Python<'py>,
        handle: u64,
        headroom: usize,
    ) -> PyResult<Option<Bound<'py, PyArray2<i32>>>> {
        let Some(wanted) = py.detach(|| self.lock().swap_in(handle, headroom)).map_err(raise)? else {
            return Ok(None);
        };
        let flat: Vec<i32> = wanted.iter().flat_map(|(place, page)| [*place as i32, *page as i32]).collect();
        Ok(Some(PyArray1::from_vec(py, flat).reshape([wanted.len(), 2])?))
    }

    /// Ends a sequence or a pin.
    fn release(&self, py: Python<'_>, handle: u64) -> PyResult<()> {
        py.detach(|| self.lock().release(handle)).map_err(raise)
    }

    /// Tokens of a sequence.
    fn length(&self, handle: u64) -> PyResult<usize> {
        self.lock().length(handle).map_err(raise)
    }

    /// Writes one row of pages a sequence into an int32 matrix, -1 behind the end; the longest row written.
    fn write_tables(&self, handles: PyReadonlyArray1<'_, u64>, mut out: PyReadwriteArray2<'_, i32>) -> PyResult<usize> {
        let handles = handles.as_slice()?;
        let mut rows = out.as_array_mut();
        if handles.len() > rows.nrows() {
            return Err(PyValueError::new_err(format!("{} handles and {} rows", handles.len(), rows.nrows())));
        }
        let inner = self.lock();
        let mut longest = 0;
        for (handle, mut row) in handles.iter().zip(rows.axis_iter_mut(Axis(0))) {
            let row = row.as_slice_mut().ok_or_else(|| PyValueError::new_err("the page table is not contiguous"))?;
            longest = longest.max(inner.write_row(*handle, row).map_err(raise)?);
        }
        Ok(longest)
    }

    /// Forgets every cached prefix.
    fn clear_cache(&self, py: Python<'_>) {
        py.detach(|| self.lock().clear_cache());
    }

    /// Counts and state as a dictionary.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.lock().statistics();
        let out = PyDict::new(py);
        out.set_item("num_pages", counts.num_pages)?;
        out.set_item("num_free", counts.num_free)?;
        out.set_item("num_held", counts.num_held)?;
        out.set_item("num_registered", counts.num_registered)?;
        out.set_item("num_sequences", counts.num_sequences)?;
        out.set_item("num_pins", counts.num_pins)?;
        out.set_item("num_swapped", counts.num_swapped)?;
        out.set_item("queried_tokens", counts.queried_tokens)?;
        out.set_item("cached_tokens", counts.cached_tokens)?;
        out.set_item("copied_tokens", counts.copied_tokens)?;
        out.set_item("evictions", counts.evictions)?;
        out.set_item("copies", counts.copies)?;
        Ok(out)
    }

    /// Counts every reference anew, for tests; raises when a page is lost or held twice.
    fn check(&self) -> PyResult<()> {
        self.lock().check().map_err(PyValueError::new_err)
    }
}

/// Adds the names of this floor to `highrise._native`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Pool>()
}
