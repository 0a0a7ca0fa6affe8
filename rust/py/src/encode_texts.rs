//! Texts of a batch as Python gives them: lists of str or bytes, or one array of UTF-8 with offsets (an Arrow column, a
//! mapped file). Nothing is copied but the texts of training (`copy_some`); what is no text is one error that names its position.

use highrise_encode::count::BEHIND;
use highrise_encode::Error;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList, PyString};

use crate::encode::{raise, to_python};

/// One text, kept alive by the Python object that owns it.
pub(crate) enum Held {
    Text(PyBackedStr),
    Bytes(PyBackedBytes),
}

/// The texts of any iterable of str and bytes.
pub(crate) fn hold(texts: &Bound<'_, PyAny>) -> PyResult<Vec<Held>> {
    let mut held = Vec::with_capacity(texts.len().unwrap_or(0));
    for (index, item) in texts.try_iter()?.enumerate() {
        let item = item?;
        if let Ok(text) = item.cast::<PyString>() {
            held.push(Held::Text(PyBackedStr::try_from(text.clone())?));
        } else if let Ok(bytes) = item.cast::<PyBytes>() {
            held.push(Held::Bytes(PyBackedBytes::from(bytes.clone())));
        } else {
            return Err(no_text(&item, index));
        }
    }
    Ok(held)
}

/// Some texts of a list, one after another, and what makes the end of the last as quick as the others'.
pub(crate) struct Copied {
    pub(crate) text: String,
    pub(crate) ends: Vec<usize>,
}

/// Copies the texts of a list from `start` on until `size` bytes of them are there; returns also where the next begins. Of many short
/// texts a copy costs less than holding each and letting it go again.
pub(crate) fn copy_some(texts: &Bound<'_, PyList>, start: usize, size: usize) -> PyResult<(Copied, usize)> {
    let mut copied = Copied { text: String::with_capacity(size + (size >> 3)), ends: Vec::new() };
    let mut next = start;
    while next < texts.len() && copied.text.len() < size {
        let item = texts.get_item(next)?;
        if let Ok(text) = item.cast::<PyString>() {
            copied.text.push_str(text.to_str()?);
        } else if let Ok(bytes) = item.cast::<PyBytes>() {
            copied.text.push_str(to_python(texts.py(), valid(bytes.as_bytes(), next))?);
        } else {
            return Err(no_text(&item, next));
        }
        copied.ends.push(copied.text.len());
        next += 1;
    }
    copied.text.push_str(BEHIND);
    Ok((copied, next))
}

fn no_text(item: &Bound<'_, PyAny>, index: usize) -> PyErr {
    match item.get_type().name() {
        Ok(kind) => {
            let message = format!("text {index} of the batch is of type {kind}; give str or bytes");
            raise(item.py(), "InputError", message)
        }
        Err(error) => error,
    }
}

/// The texts as Rust sees them; bytes that are no UTF-8 are an error with their place.
pub(crate) fn as_texts(held: &[Held]) -> Result<Vec<&str>, Error> {
    held.iter().enumerate().map(|(index, held)| held.text(index)).collect()
}

impl Held {
    fn text(&self, index: usize) -> Result<&str, Error> {
        match self {
            Held::Text(text) => Ok(text.as_ref()),
            Held::Bytes(bytes) => valid(bytes.as_ref(), index),
        }
    }
}

fn valid(bytes: &[u8], index: usize) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|error| Error::NotUtf8 { index, position: error.valid_up_to() })
}

/// Texts that lie one after another in `data`; text i is `data[offsets[i]..offsets[i + 1]]`.
pub(crate) fn flat_texts<'data>(
    py: Python<'_>,
    data: &'data PyReadonlyArray1<'_, u8>,
    offsets: &'data PyReadonlyArray1<'_, i64>,
) -> PyResult<FlatTexts<'data>> {
    let wrong = |message: &str| raise(py, "InputError", message.to_string());
    let data = data.as_slice().map_err(|_| wrong("the bytes of the texts must lie one after another in memory"))?;
    let offsets = offsets.as_slice().map_err(|_| wrong("the offsets must lie one after another in memory"))?;
    let size = data.len() as i64;
    if let Some(index) = offsets.windows(2).position(|pair| pair[0] > pair[1] || pair[0] < 0 || pair[1] > size) {
        let message = format!("text {index} runs from {} to {} in {size} bytes", offsets[index], offsets[index + 1]);
        return Err(raise(py, "InputError", message));
    }
    if offsets.is_empty() {
        return Err(wrong("there are no offsets; give one more than there are texts"));
    }
    Ok(FlatTexts { data, offsets })
}

/// See [`flat_texts`]; checked.
pub(crate) struct FlatTexts<'data> {
    data: &'data [u8],
    offsets: &'data [i64],
}

impl<'data> FlatTexts<'data> {
    /// Each text, checked to be UTF-8.
    pub(crate) fn texts(&self) -> Result<Vec<&'data str>, Error> {
        let text = |(index, pair): (usize, &[i64])| valid(&self.data[pair[0] as usize..pair[1] as usize], index);
        self.offsets.windows(2).enumerate().map(text).collect()
    }
}
