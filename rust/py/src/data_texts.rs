//! Texts as Python holds them: borrowed from a list of `str` or `bytes`, from the buffers of an Arrow column, or from a numpy column of
//! fixed-width bytes. None is copied.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

/// Texts borrowed from Python objects that are immutable, or not changed by contract, and held for as long as this lives.
pub(crate) struct Texts {
    pub(crate) slices: Vec<&'static [u8]>,
    _owners: Vec<Py<PyAny>>,
    _buffers: Vec<PyBuffer<u8>>,
}

/// One chunk of an Arrow column: offsets, data, first row, number of rows, whether offsets have 64 bits.
type Chunk = (PyBuffer<u8>, PyBuffer<u8>, usize, usize, bool);
/// A numpy column: its bytes and the width of a row, filled up with zeros.
type Fixed = (PyBuffer<u8>, usize);

impl Texts {
    /// What `duplicates.py` hands over: a list of texts, of Arrow chunks, or of one numpy column.
    pub(crate) fn new(texts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Ok(list) = texts.cast::<PyList>() else {
            let kind = texts.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("texts is a {kind}; give a list or a column")));
        };
        match list.get_item(0).ok().and_then(|first| first.cast_into::<PyTuple>().ok()).map(|first| first.len()) {
            Some(2) => Self::from_fixed(texts.extract()?),
            Some(_) => Self::from_chunks(texts.extract()?),
            None => Self::from_list(list),
        }
    }

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

    fn from_fixed(columns: Vec<Fixed>) -> PyResult<Self> {
        let mut texts = Self { slices: vec![], _owners: vec![], _buffers: vec![] };
        for (column, width) in columns {
            // SAFETY: the buffer is contiguous, the caller does not write to it meanwhile, and `_buffers` keeps it alive as
            // long as the slices are.
            let bytes = unsafe { std::slice::from_raw_parts(column.buf_ptr().cast::<u8>(), column.len_bytes()) };
            texts.slices.extend(bytes.chunks_exact(width.max(1)).map(|row| {
                let length = row.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                &row[..length]
            }));
            texts._buffers.push(column);
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
}
