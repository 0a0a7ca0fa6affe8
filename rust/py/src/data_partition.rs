//! The steps over a part of the rows as Python sees them, for the adapters of engines.

use highrise_data::{partition, DataError, Options};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::data::{detached, Settings};
use crate::data_texts::Texts;

/// Adds the functions to the module of the floor.
pub(crate) fn register(floor: &Bound<'_, PyModule>) -> PyResult<()> {
    floor.add_function(wrap_pyfunction!(band_keys, floor)?)?;
    floor.add_function(wrap_pyfunction!(compare_buckets, floor)?)?;
    floor.add_function(wrap_pyfunction!(similar, floor)?)?;
    floor.add_function(wrap_pyfunction!(stars, floor)?)
}

/// Pairs, int64 (pairs, 2).
type Pairs<'py> = Bound<'py, PyArray2<i64>>;

fn pairs_array<'py>(py: Python<'py>, pairs: &[(u32, u32)]) -> PyResult<Pairs<'py>> {
    let flat: Vec<i64> = pairs.iter().flat_map(|&(left, right)| [i64::from(left), i64::from(right)]).collect();
    flat.into_pyarray(py).reshape([pairs.len(), 2])
}

fn width(signatures: &PyReadonlyArray2<'_, u32>, options: &Options) -> PyResult<()> {
    let columns = signatures.as_array().ncols();
    match columns == options.num_perm {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("signatures have {columns} places, not {}", options.num_perm))),
    }
}

fn places(marks: &[i64], rows: usize) -> PyResult<Vec<usize>> {
    let ascending = marks.windows(2).all(|pair| pair[0] <= pair[1]);
    let ends = marks.first().is_none_or(|&first| first == 0) && marks.last().is_none_or(|&last| last == rows as i64);
    match ascending && ends {
        true => Ok(marks.iter().map(|&mark| mark as usize).collect()),
        false => Err(PyValueError::new_err(format!("marks do not ascend from 0 to {rows}"))),
    }
}

/// Keys, uint64 (rows, bands), of signatures, uint32 (rows, places).
#[pyfunction]
fn band_keys<'py>(
    py: Python<'py>,
    signatures: PyReadonlyArray2<'py, u32>,
    settings: Settings,
) -> PyResult<Bound<'py, PyArray2<u64>>> {
    let options = settings.options()?;
    width(&signatures, &options)?;
    let rows = signatures.as_array().nrows();
    let signatures = signatures.as_slice()?;
    let keys = detached(py, || Ok(partition::band_keys(signatures, &options)))?;
    keys.into_pyarray(py).reshape([rows, options.bands().0])
}

/// Pairs of rows that connect what is similar, and borderline pairs, each int64 (pairs, 2).
#[pyfunction]
fn compare_buckets<'py>(
    py: Python<'py>,
    marks: PyReadonlyArray1<'py, i64>,
    signatures: PyReadonlyArray2<'py, u32>,
    settings: Settings,
) -> PyResult<(Pairs<'py>, Pairs<'py>)> {
    let options = settings.options()?;
    width(&signatures, &options)?;
    let marks = places(marks.as_slice()?, signatures.as_array().nrows())?;
    let signatures = signatures.as_slice()?;
    let (accepted, borderline) = detached(py, || partition::compare_buckets(&marks, signatures, &options))?;
    Ok((pairs_array(py, &accepted)?, pairs_array(py, &borderline)?))
}

/// Whether the texts of each pair are similar, exactly; bool.
#[pyfunction]
fn similar<'py>(
    py: Python<'py>,
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    settings: Settings,
) -> PyResult<Bound<'py, PyArray1<bool>>> {
    let options = settings.options()?;
    let (left, right) = (Texts::new(left)?, Texts::new(right)?);
    let (left, right) = (&left.slices, &right.slices);
    let found = detached(py, || Ok::<_, DataError>(partition::similar(left, right, &options)))?;
    Ok(found.into_pyarray(py))
}

/// For each row the first row of its star, int64.
#[pyfunction]
fn stars<'py>(
    py: Python<'py>,
    marks: PyReadonlyArray1<'py, i64>,
    signatures: PyReadonlyArray2<'py, u32>,
    contents: PyReadonlyArray2<'py, u64>,
    settings: Settings,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let options = settings.options()?;
    width(&signatures, &options)?;
    let rows = signatures.as_array().nrows();
    let marks = places(marks.as_slice()?, rows)?;
    let hashes: Vec<(u64, u64)> = contents.as_slice()?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    if hashes.len() != rows {
        return Err(PyValueError::new_err(format!("{} content hashes for {rows} rows", hashes.len())));
    }
    let signatures = signatures.as_slice()?;
    let labels = detached(py, || partition::stars(&marks, signatures, &hashes, &options))?;
    Ok(crate::data::labels_array(py, &labels))
}
