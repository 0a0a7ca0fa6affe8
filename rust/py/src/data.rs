//! Floor `data` as Python sees it: conversions only, the work is in `highrise-data`.
//!
//! All work happens without the GIL, and a panic becomes a `RuntimeError`.

use std::panic::{catch_unwind, AssertUnwindSafe};

use highrise_data::{
    bands, cluster, exact, jaccard, sketch, words, Counts, DataError, Form, Options, Reading, Shingle, Verify,
};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data_texts::Texts;

/// Adds the names of this floor to `highrise._native`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let floor = PyModule::new(module.py(), "data")?;
    floor.add_function(wrap_pyfunction!(deduplicate, &floor)?)?;
    floor.add_function(wrap_pyfunction!(signatures, &floor)?)?;
    floor.add_function(wrap_pyfunction!(signatures_of_shingles, &floor)?)?;
    floor.add_function(wrap_pyfunction!(content_hashes, &floor)?)?;
    floor.add_function(wrap_pyfunction!(word_hashes, &floor)?)?;
    floor.add_function(wrap_pyfunction!(shingle_hashes, &floor)?)?;
    floor.add_function(wrap_pyfunction!(form_of, &floor)?)?;
    floor.add_function(wrap_pyfunction!(exact_jaccard, &floor)?)?;
    floor.add_function(wrap_pyfunction!(choose_bands, &floor)?)?;
    crate::data_index::register(&floor)?;
    crate::data_numbers::register(&floor)?;
    crate::data_partition::register(&floor)?;
    crate::data_signals::register(&floor)?;
    crate::data_spans::register(&floor)?;
    crate::data_spill::register(&floor)?;
    module.add_submodule(&floor)
}

/// The options as `duplicates.py` holds them: an object with these attributes.
#[derive(FromPyObject)]
pub(crate) struct Settings {
    threshold: Option<f64>,
    num_perm: usize,
    seed: u64,
    verify: String,
    unit: String,
    length: usize,
    equal: String,
    slack: Option<f64>,
    bands: Option<(usize, usize)>,
    threads: usize,
}

impl Settings {
    /// How many to use.
    pub(crate) fn threads(&self) -> usize {
        self.threads.max(1)
    }

    /// The same for Rust.
    pub(crate) fn options(&self) -> PyResult<Options> {
        let wrong = |name: &str, value: &str, choices: &str| {
            Err(PyValueError::new_err(format!("{name} is \"{value}\"; use {choices}")))
        };
        let verify = match self.verify.as_str() {
            "none" => Verify::None,
            "estimate" => Verify::Estimate,
            "borderline" => Verify::Borderline,
            "exact" => Verify::Exact,
            other => return wrong("verify", other, "none, estimate, borderline or exact"),
        };
        let form = match self.equal.as_str() {
            "bytes" => Form::Bytes,
            "spaces" => Form::Spaces,
            "words" => Form::Words,
            other => return wrong("equal", other, "bytes, spaces or words"),
        };
        let shingle = match self.unit.as_str() {
            "words" => Shingle::Words(self.length),
            "characters" => Shingle::Characters(self.length),
            other => return wrong("shingle", other, "words or characters"),
        };
        let options = Options {
            threshold: self.threshold,
            num_perm: self.num_perm,
            threads: self.threads,
            seed: self.seed,
            verify,
            reading: Reading { form, shingle },
            slack: self.slack,
            bands: self.bands,
        };
        options.check().map_err(python_error)?;
        Ok(options)
    }
}

/// The Python exception that an error means.
pub(crate) fn python_error(error: DataError) -> PyErr {
    match error {
        DataError::Io(error) => match error.raw_os_error() {
            Some(code) => PyOSError::new_err((code, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        },
        other => PyValueError::new_err(other.to_string()),
    }
}

/// Run `work` without the GIL; a panic in it becomes a `RuntimeError`.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, DataError> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(python_error),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(PyRuntimeError::new_err(format!("highrise-data failed: {}", message.unwrap_or_default())))
        }
    }
}

/// What was counted, as a dict.
pub(crate) fn statistics<'py>(py: Python<'py>, counts: &Counts, options: &Options) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    let (bands, rows) = options.bands();
    found.set_item("bytes", counts.bytes)?;
    found.set_item("exact_duplicates", counts.exact_duplicates)?;
    found.set_item("candidate_pairs", counts.candidate_pairs)?;
    found.set_item("exact_checks", counts.exact_checks)?;
    found.set_item("cut_off", counts.cut_off)?;
    found.set_item("bands", bands)?;
    found.set_item("rows", rows)?;
    Ok(found)
}

/// Labels as Python has them.
pub(crate) fn labels_array<'py>(py: Python<'py>, labels: &[u32]) -> Bound<'py, PyArray1<i64>> {
    labels.iter().map(|&label| i64::from(label)).collect::<Vec<_>>().into_pyarray(py)
}

/// Labels of clusters and of connected texts, and statistics.
type Clustered<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyDict>);

/// Labels (int64) of equal and nearly equal texts, the same before any is cut off, and statistics; `threshold` None looks for
/// equal ones only.
#[pyfunction]
fn deduplicate<'py>(py: Python<'py>, texts: &Bound<'py, PyAny>, settings: Settings) -> PyResult<Clustered<'py>> {
    let options = settings.options()?;
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let found = detached(py, || cluster::deduplicate(slices, &options))?;
    let counted = statistics(py, &found.counts, &options)?;
    Ok((labels_array(py, &found.labels), labels_array(py, &found.connected), counted))
}

/// Signatures and numbers of shingles.
type Signed<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray1<u32>>);

/// Signatures, uint32 (texts, num_perm), and the number of shingles of each text, uint32; without shingles a row has zeros.
#[pyfunction]
fn signatures<'py>(py: Python<'py>, texts: &Bound<'py, PyAny>, settings: Settings) -> PyResult<Signed<'py>> {
    let options = settings.options()?;
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let (rows, counts) = detached(py, || {
        let sketch = sketch::Sketch::new(options.num_perm, options.seed, options.reading)?;
        Ok(cluster::signatures(slices, &sketch, options.threads.max(1)))
    })?;
    Ok((rows.into_pyarray(py).reshape([slices.len(), options.num_perm])?, counts.into_pyarray(py)))
}

/// Signatures, uint32 (sets, num_perm), of ready 64-bit shingle hashes; set i is `hashes[marks[i]:marks[i + 1]]`.
#[pyfunction]
fn signatures_of_shingles<'py>(
    py: Python<'py>,
    hashes: PyReadonlyArray1<'py, u64>,
    marks: PyReadonlyArray1<'py, i64>,
    settings: Settings,
) -> PyResult<Bound<'py, PyArray2<u32>>> {
    let options = settings.options()?;
    let (hashes, marks) = (hashes.as_slice()?, marks.as_slice()?);
    let mut sets: Vec<&[u64]> = Vec::with_capacity(marks.len().saturating_sub(1));
    for pair in marks.windows(2) {
        let ends = (usize::try_from(pair[0]), usize::try_from(pair[1]));
        let set = match ends {
            (Ok(start), Ok(end)) => hashes.get(start..end),
            _ => None,
        };
        sets.push(set.ok_or_else(|| {
            PyValueError::new_err(format!("a set is {}..{} of {} shingle hashes", pair[0], pair[1], hashes.len()))
        })?);
    }
    let rows = detached(py, || {
        let sketch = sketch::Sketch::new(options.num_perm, options.seed, options.reading)?;
        Ok(cluster::signatures_of(&sets, &sketch, options.threads.max(1)))
    })?;
    rows.into_pyarray(py).reshape([sets.len(), options.num_perm])
}

/// The 128-bit hashes of the forms of texts, uint64 (texts, 2).
#[pyfunction]
fn content_hashes<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    settings: Settings,
) -> PyResult<Bound<'py, PyArray2<u64>>> {
    let options = settings.options()?;
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let hashes: Vec<u64> = detached(py, || {
        let found = exact::contents(slices, options.reading, options.threads.max(1));
        Ok(found.into_iter().flat_map(|(first, second)| [first, second]).collect())
    })?;
    hashes.into_pyarray(py).reshape([slices.len(), 2])
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

/// The hash of each shingle, uint64, repeats included.
#[pyfunction]
fn shingle_hashes<'py>(py: Python<'py>, text: &[u8], settings: Settings) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let reading = settings.options()?.reading;
    let hashes = py.detach(|| {
        let mut hashes = Vec::new();
        reading.for_each_shingle(text, &mut Vec::new(), |hash| hashes.push(hash));
        hashes
    });
    Ok(hashes.into_pyarray(py))
}

/// The form of a text that equal texts share.
#[pyfunction]
fn form_of(py: Python<'_>, text: &[u8], settings: Settings) -> PyResult<Vec<u8>> {
    let reading = settings.options()?.reading;
    Ok(py.detach(|| reading.form(text, &mut Vec::new()).to_vec()))
}

/// Exact Jaccard similarity of the shingle sets of two texts.
#[pyfunction]
fn exact_jaccard(py: Python<'_>, left: &[u8], right: &[u8], settings: Settings) -> PyResult<f64> {
    let reading = settings.options()?.reading;
    Ok(py.detach(|| jaccard::jaccard(left, right, reading)))
}

/// Number of bands and of rows a band for a threshold.
#[pyfunction]
fn choose_bands(threshold: f64, num_perm: usize) -> PyResult<(usize, usize)> {
    let options = Options { threshold: Some(threshold), num_perm, ..Options::default() };
    options.check().map_err(python_error)?;
    Ok(bands::choose(threshold, num_perm))
}
