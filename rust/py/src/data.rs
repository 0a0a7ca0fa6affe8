//! Floor `data` as Python sees it: conversions only, the work is in `highrise-data`.
//!
//! Texts arrive as a list of `str` or `bytes`, or as the buffers of an Arrow column; none is copied. All work happens without the
//! GIL, and a panic becomes a `RuntimeError`.

use std::panic::{catch_unwind, AssertUnwindSafe};

use highrise_data::{bands, cluster, jaccard, shingle, sketch, words, DataError, Options, Verify};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

/// Adds the names of this floor to `highrise._native`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let floor = PyModule::new(module.py(), "data")?;
    floor.add_function(wrap_pyfunction!(deduplicate, &floor)?)?;
    floor.add_function(wrap_pyfunction!(signatures, &floor)?)?;
    floor.add_function(wrap_pyfunction!(word_hashes, &floor)?)?;
    floor.add_function(wrap_pyfunction!(shingle_hashes, &floor)?)?;
    floor.add_function(wrap_pyfunction!(exact_jaccard, &floor)?)?;
    floor.add_function(wrap_pyfunction!(choose_bands, &floor)?)?;
    module.add_submodule(&floor)
}

/// Texts borrowed from Python objects that are immutable and held for as long as this lives.
struct Texts {
    slices: Vec<&'static [u8]>,
    _owners: Vec<Py<PyAny>>,
    _buffers: Vec<PyBuffer<u8>>,
}

/// One chunk of an Arrow column: offsets, data, first row, number of rows, whether offsets have 64 bits.
type Chunk = (PyBuffer<u8>, PyBuffer<u8>, usize, usize, bool);

impl Texts {
    fn from_list(list: &Bound<'_, PyList>) -> PyResult<Self> {
        let mut texts =
            Self { slices: Vec::with_capacity(list.len()), _owners: Vec::with_capacity(list.len()), _buffers: vec![] };
        for (index, item) in list.iter().enumerate() {
            let slice = if let Ok(text) = item.cast::<PyString>() {
                text.to_str()?.as_bytes()
            } else if let Ok(bytes) = item.cast::<PyBytes>() {
                bytes.as_bytes()
            } else {
                let kind = item.get_type().name()?.to_string();
                return Err(PyTypeError::new_err(format!("text {index} is a {kind}; give str or bytes")));
            };
            // SAFETY: str (its UTF-8 form is cached in it) and bytes are immutable, and `_owners` keeps the object alive as
            // long as the slice is.
            texts.slices.push(unsafe { std::slice::from_raw_parts(slice.as_ptr(), slice.len()) });
            texts._owners.push(item.unbind());
        }
        Ok(texts)
    }

    fn from_chunks(chunks: Vec<Chunk>) -> PyResult<Self> {
        let mut texts = Self { slices: vec![], _owners: vec![], _buffers: vec![] };
        for (offsets, data, first, count, wide) in chunks {
            // SAFETY: Arrow buffers are contiguous and immutable by contract, and `_buffers` keeps them alive as long as the
            // slices are.
            let (marks, bytes) = unsafe {
                (
                    std::slice::from_raw_parts(offsets.buf_ptr().cast::<u8>(), offsets.len_bytes()),
                    std::slice::from_raw_parts(data.buf_ptr().cast::<u8>(), data.len_bytes()),
                )
            };
            let width = if wide { 8 } else { 4 };
            let mark = |row: usize| -> PyResult<usize> {
                let at = row * width;
                let number = marks.get(at..at + width).and_then(|raw| match width {
                    8 => raw.try_into().ok().map(i64::from_le_bytes),
                    _ => raw.try_into().ok().map(|raw| i64::from(i32::from_le_bytes(raw))),
                });
                number
                    .and_then(|number| usize::try_from(number).ok())
                    .ok_or_else(|| PyValueError::new_err(format!("the Arrow column has no offset for row {row}")))
            };
            texts.slices.reserve(count);
            for row in first..first + count {
                let (start, end) = (mark(row)?, mark(row + 1)?);
                let slice = bytes.get(start..end).ok_or_else(|| {
                    PyValueError::new_err(format!(
                        "row {row} of the Arrow column is {start}..{end} of {} bytes",
                        bytes.len()
                    ))
                })?;
                texts.slices.push(slice);
            }
            texts._buffers.extend([offsets, data]);
        }
        Ok(texts)
    }

    fn new(texts: &Bound<'_, PyAny>) -> PyResult<Self> {
        match texts.cast::<PyList>() {
            Ok(list) => match list.get_item(0) {
                Ok(first) if first.is_instance_of::<pyo3::types::PyTuple>() => Self::from_chunks(texts.extract()?),
                _ => Self::from_list(list),
            },
            Err(_) => {
                let kind = texts.get_type().name()?.to_string();
                Err(PyTypeError::new_err(format!("texts is a {kind}; give a list or Arrow chunks")))
            }
        }
    }
}

/// Run `work` without the GIL; a panic in it becomes a `RuntimeError`.
fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, DataError> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(|error| PyValueError::new_err(error.to_string())),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(PyRuntimeError::new_err(format!("highrise-data failed: {}", message.unwrap_or_default())))
        }
    }
}

/// Labels (int64) and statistics of equal and nearly equal texts; `threshold` None looks for equal ones only.
#[pyfunction]
#[pyo3(signature = (texts, threshold, num_perm, threads, seed, verify))]
fn deduplicate<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    threshold: Option<f64>,
    num_perm: usize,
    threads: usize,
    seed: u64,
    verify: &str,
) -> PyResult<(Bound<'py, PyArray1<i64>>, Bound<'py, PyDict>)> {
    let verify = match verify {
        "estimate" => Verify::Estimate,
        "borderline" => Verify::Borderline,
        "exact" => Verify::Exact,
        other => {
            return Err(PyValueError::new_err(format!("verify is \"{other}\"; use estimate, borderline or exact")))
        }
    };
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let options = Options { threshold, num_perm, threads, seed, verify };
    let (labels, found) = detached(py, || {
        let found = cluster::deduplicate(slices, &options)?;
        Ok((found.labels.iter().map(|&label| i64::from(label)).collect::<Vec<_>>(), found))
    })?;
    let statistics = PyDict::new(py);
    statistics.set_item("texts", found.labels.len())?;
    statistics.set_item("bytes", found.bytes)?;
    statistics.set_item("exact_duplicates", found.exact_duplicates)?;
    statistics.set_item("near_duplicates", found.near_duplicates)?;
    statistics.set_item("candidate_pairs", found.candidate_pairs)?;
    statistics.set_item("exact_checks", found.exact_checks)?;
    statistics.set_item("bands", found.bands.0)?;
    statistics.set_item("rows", found.bands.1)?;
    Ok((labels.into_pyarray(py), statistics))
}

/// Signatures, uint32 (texts, num_perm); a text without words has zeros.
#[pyfunction]
fn signatures<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    num_perm: usize,
    threads: usize,
    seed: u64,
) -> PyResult<Bound<'py, PyArray2<u32>>> {
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let rows = detached(py, || {
        let sketch = sketch::Sketch::new(num_perm, seed)?;
        Ok(cluster::signatures(slices, &sketch, threads.max(1)).0)
    })?;
    rows.into_pyarray(py).reshape([slices.len(), num_perm])
}

/// The hash of each word, uint64.
#[pyfunction]
fn word_hashes<'py>(py: Python<'py>, text: &[u8]) -> Bound<'py, PyArray1<u64>> {
    let hashes = py.detach(|| {
        let mut hashes = Vec::new();
        words::for_each_word(text, |hash| hashes.push(hash));
        hashes
    });
    hashes.into_pyarray(py)
}

/// The hash of each shingle of five words, uint64, repeats included.
#[pyfunction]
fn shingle_hashes<'py>(py: Python<'py>, text: &[u8]) -> Bound<'py, PyArray1<u64>> {
    let hashes = py.detach(|| {
        let mut hashes = Vec::new();
        shingle::for_each_shingle(text, |hash| hashes.push(hash));
        hashes
    });
    hashes.into_pyarray(py)
}

/// Exact Jaccard similarity of the shingle sets of two texts.
#[pyfunction]
fn exact_jaccard(py: Python<'_>, left: &[u8], right: &[u8]) -> f64 {
    py.detach(|| jaccard::jaccard(left, right))
}

/// Number of bands and of rows a band for a threshold.
#[pyfunction]
fn choose_bands(threshold: f64, num_perm: usize) -> PyResult<(usize, usize)> {
    let error = if !(threshold > 0.0 && threshold <= 1.0) {
        DataError::Threshold(threshold)
    } else if num_perm % 8 != 0 || !(8..=1024).contains(&num_perm) {
        DataError::NumPerm(num_perm)
    } else {
        return Ok(bands::choose(threshold, num_perm));
    };
    Err(PyValueError::new_err(error.to_string()))
}
