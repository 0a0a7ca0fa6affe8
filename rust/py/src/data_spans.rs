//! Repeated spans and lines as Python sees them.

use std::sync::Mutex;

use highrise_data::lines::LineCounts;
use highrise_data::{spans, DataError};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::data::detached;
use crate::data_texts::Texts;

/// Adds the names to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_function(wrap_pyfunction!(repeated_spans, floor)?)?;
    floor.add_function(wrap_pyfunction!(cut, floor)?)?;
    floor.add_class::<LineCounter>()
}

/// One column of a result, int64.
type Column<'py> = Bound<'py, PyArray1<i64>>;

fn column<'py>(py: Python<'py>, values: impl Iterator<Item = u64>) -> Column<'py> {
    values.map(|value| value as i64).collect::<Vec<_>>().into_pyarray(py)
}

/// Columns (int64): text, start, end, first text, start there.
#[pyfunction]
fn repeated_spans<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    length: usize,
    memory: usize,
) -> PyResult<Vec<Column<'py>>> {
    let texts = Texts::new(texts)?;
    let slices = &texts.slices;
    let found = detached(py, || {
        if slices.len() >= u32::MAX as usize {
            return Err(DataError::TooMany(slices.len()));
        }
        Ok(spans::repeated_spans(slices, length, memory))
    })?;
    Ok(vec![
        column(py, found.iter().map(|span| u64::from(span.text))),
        column(py, found.iter().map(|span| span.start)),
        column(py, found.iter().map(|span| span.end)),
        column(py, found.iter().map(|span| u64::from(span.first_text))),
        column(py, found.iter().map(|span| span.first_start)),
    ])
}

/// What is left of each text without the stretches `start..end` of text `text` (int64, in order, not overlapping).
#[pyfunction]
fn cut<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
    text: PyReadonlyArray1<'py, i64>,
    start: PyReadonlyArray1<'py, i64>,
    end: PyReadonlyArray1<'py, i64>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let texts = Texts::new(texts)?;
    let mut stretches: Vec<Vec<(u64, u64)>> = vec![Vec::new(); texts.slices.len()];
    for ((&number, &start), &end) in text.as_slice()?.iter().zip(start.as_slice()?).zip(end.as_slice()?) {
        let index = usize::try_from(number).ok().filter(|&index| index < stretches.len());
        let index = index.ok_or_else(|| PyValueError::new_err(format!("there is no text {number}")))?;
        let after = stretches[index].last().map_or(0, |&(_, end)| end as i64);
        let size = texts.slices[index].len() as i64;
        if start < after || end < start || end > size {
            return Err(PyValueError::new_err(format!(
                "{start}..{end} of text {number}, which has {size} bytes, is out of order or outside"
            )));
        }
        stretches[index].push((start as u64, end as u64));
    }
    let slices = &texts.slices;
    let left: Vec<Vec<u8>> = detached(py, || {
        Ok(slices.iter().zip(&stretches).map(|(text, stretches)| spans::without(text, stretches)).collect())
    })?;
    Ok(left.iter().map(|text| PyBytes::new(py, text)).collect())
}

/// In how many texts each line stands.
#[pyclass(frozen)]
struct LineCounter {
    counts: Mutex<LineCounts>,
}

fn failed<T>(_: T) -> DataError {
    DataError::File("this counter failed before; count again".to_owned())
}

#[pymethods]
impl LineCounter {
    #[new]
    fn new(shortest: usize) -> Self {
        Self { counts: Mutex::new(LineCounts::new(shortest)) }
    }

    /// Count the lines of these texts.
    fn add(&self, py: Python<'_>, texts: &Bound<'_, PyAny>, threads: usize) -> PyResult<()> {
        let texts = Texts::new(texts)?;
        let slices = &texts.slices;
        detached(py, || {
            self.counts.lock().map_err(failed)?.add(slices, threads);
            Ok(())
        })
    }

    /// Forget lines that stand in no more than so many texts.
    fn keep_repeated(&self, py: Python<'_>, more_than: u32) -> PyResult<usize> {
        detached(py, || {
            let mut counts = self.counts.lock().map_err(failed)?;
            counts.keep_repeated(more_than);
            Ok(counts.len())
        })
    }

    /// Columns (int64): text, start, end, number of texts.
    fn frequent<'py>(&self, py: Python<'py>, texts: &Bound<'py, PyAny>, more_than: u32) -> PyResult<Vec<Column<'py>>> {
        let texts = Texts::new(texts)?;
        let slices = &texts.slices;
        let found = detached(py, || Ok(self.counts.lock().map_err(failed)?.frequent(slices, more_than)))?;
        Ok(vec![
            column(py, found.iter().map(|line| u64::from(line.text))),
            column(py, found.iter().map(|line| line.start)),
            column(py, found.iter().map(|line| line.end)),
            column(py, found.iter().map(|line| u64::from(line.texts))),
        ])
    }
}
