//! One Python integer for each token id, shared by all tokenizers, so that a list of ids allocates nothing but itself.
//!
//! The integers live as long as the process. Where a reference count is a plain 64-bit number (before Python 3.12) theirs
//! begins so high that it can never fall to zero; a list then takes its references without counting them, and making it does
//! not touch the integers at all. Later versions count as usual.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

/// Ids that are handed out 2^60 times more than given back would be needed to reach zero.
#[cfg(all(not(Py_3_12), not(Py_GIL_DISABLED)))]
const UNCOUNTED: ffi::Py_ssize_t = 1 << 60;

/// The integers from 0 on.
pub(crate) type Integers = Arc<[Py<PyInt>]>;

static ALL: Mutex<Option<Integers>> = Mutex::new(None);

/// The integers below `count`, and maybe more.
pub(crate) fn integers(py: Python<'_>, count: usize) -> PyResult<Integers> {
    let known = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut all: Vec<Py<PyInt>> = match known {
        Some(known) if known.len() >= count => return Ok(known),
        Some(known) => known.iter().map(|integer| integer.clone_ref(py)).collect(),
        None => Vec::new(),
    };
    for id in all.len()..count {
        let integer = id.into_pyobject(py)?;
        #[cfg(all(not(Py_3_12), not(Py_GIL_DISABLED)))]
        // SAFETY: the interpreter is held, and before 3.12 a reference count is a plain number.
        unsafe {
            (*integer.as_ptr()).ob_refcnt += UNCOUNTED;
        }
        all.push(integer.unbind());
    }
    let all: Integers = all.into();
    *ALL.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
    Ok(all)
}

/// A list of ids, each below `integers.len()`.
pub(crate) fn list_of<'py>(py: Python<'py>, integers: &Integers, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
    // SAFETY: the list is new and nobody else sees it before every place holds a reference. Where these are not counted,
    // the integers still never die: see the module.
    unsafe {
        let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(ids.len() as ffi::Py_ssize_t))?;
        let places = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
        for (index, &id) in ids.iter().enumerate() {
            let integer = &integers[id as usize];
            #[cfg(all(not(Py_3_12), not(Py_GIL_DISABLED)))]
            places.add(index).write(integer.as_ptr());
            #[cfg(not(all(not(Py_3_12), not(Py_GIL_DISABLED))))]
            places.add(index).write(integer.clone_ref(py).into_ptr());
        }
        Ok(list.cast_into_unchecked())
    }
}
