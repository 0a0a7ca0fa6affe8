//! One Python integer for each token id, shared by all tokenizers, so that a list of ids allocates nothing but itself.
//!
//! The integers live as long as the process. Before Python 3.12 they are copies of integers that Python made, one behind the
//! other in one block of memory: the address of one is arithmetic on its id, and its reference count, a plain 64-bit number
//! there, begins so high that it can never fall to zero. A list then takes its references without counting them, and making
//! it reads nothing at all. Later versions count as usual, each integer where Python put it.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

#[cfg(all(not(Py_3_12), not(Py_GIL_DISABLED), target_pointer_width = "64"))]
mod all {
    use super::*;

    /// Ids that are handed out 2^60 times more than given back would be needed to reach zero.
    const UNCOUNTED: ffi::Py_ssize_t = 1 << 60;

    /// A count, a type, a size and the one digit that every id fits, as `PyLongObject` has them.
    const SIZE: usize = size_of::<ffi::PyVarObject>() + size_of::<u64>();

    type Place = [u64; SIZE / 8];

    /// Integers from 0 on. Never freed, and never borrowed: Python writes their reference counts.
    pub(crate) struct Integers {
        start: *mut Place,
        count: usize,
    }

    // SAFETY: what lies there is touched by the interpreter only, and by us while it is held.
    unsafe impl Send for Integers {}
    // SAFETY: as above.
    unsafe impl Sync for Integers {}

    impl Integers {
        /// The integers below `count`.
        pub(super) fn new(py: Python<'_>, count: usize) -> PyResult<Self> {
            let start = Box::leak(vec![[0; SIZE / 8]; count].into_boxed_slice()).as_mut_ptr();
            for id in 0..count {
                let made = id.into_pyobject(py)?;
                // SAFETY: the interpreter is held. An integer of at most one digit is its header and that digit, which are copied;
                // nothing refers to where it lies, and Python never gives back what it did not take.
                unsafe {
                    let known = size_of::<ffi::PyVarObject>() + size_of::<u32>();
                    let copy = start.add(id);
                    std::ptr::copy_nonoverlapping(made.as_ptr().cast::<u8>(), copy.cast::<u8>(), known);
                    (*copy.cast::<ffi::PyObject>()).ob_refcnt = UNCOUNTED;
                }
            }
            Ok(Integers { start, count })
        }

        pub(super) fn len(&self) -> usize {
            self.count
        }

        /// A reference of one's own to the integer of an id.
        #[inline(always)]
        pub(super) fn own(&self, _py: Python<'_>, id: u32) -> *mut ffi::PyObject {
            assert!((id as usize) < self.count, "id {id} is none of the {} integers", self.count);
            // SAFETY: the place lies inside what was allocated.
            unsafe { self.start.add(id as usize).cast() }
        }

        /// The id of an integer that is one of these, told by its address.
        #[inline(always)]
        pub(super) fn id_of(&self, item: *mut ffi::PyObject) -> Option<u32> {
            let offset = (item as usize).wrapping_sub(self.start as usize);
            (offset < self.count * SIZE).then_some((offset / SIZE) as u32)
        }
    }
}

#[cfg(not(all(not(Py_3_12), not(Py_GIL_DISABLED), target_pointer_width = "64")))]
mod all {
    use pyo3::types::PyInt;

    use super::*;

    /// Integers from 0 on.
    pub(crate) struct Integers(Vec<Py<PyInt>>);

    impl Integers {
        /// The integers below `count`.
        pub(super) fn new(py: Python<'_>, count: usize) -> PyResult<Self> {
            (0..count).map(|id| Ok(id.into_pyobject(py)?.unbind())).collect::<PyResult<_>>().map(Integers)
        }

        pub(super) fn len(&self) -> usize {
            self.0.len()
        }

        /// A reference of one's own to the integer of an id.
        #[inline(always)]
        pub(super) fn own(&self, py: Python<'_>, id: u32) -> *mut ffi::PyObject {
            self.0[id as usize].clone_ref(py).into_ptr()
        }

        /// Nothing is told by an address here.
        #[inline(always)]
        pub(super) fn id_of(&self, _item: *mut ffi::PyObject) -> Option<u32> {
            None
        }
    }
}

pub(crate) use all::Integers;

/// The largest so far.
static ALL: Mutex<Option<Arc<Integers>>> = Mutex::new(None);

/// The integers below `count`, and maybe more.
pub(crate) fn integers(py: Python<'_>, count: usize) -> PyResult<Arc<Integers>> {
    let known = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(known) = known.filter(|known| known.len() >= count) {
        return Ok(known);
    }
    let all = Arc::new(Integers::new(py, count.next_power_of_two())?);
    *ALL.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
    Ok(all)
}

/// The ids of a list of nothing but integers that fit 32 bits. Integers that we gave out are not even looked at.
pub(crate) fn plain_ids(list: &Bound<'_, PyList>) -> Option<Vec<u32>> {
    let known = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut ids = Vec::with_capacity(list.len());
    for index in 0..list.len() {
        // SAFETY: the interpreter is held and no code of Python runs in between, since the items are asked for their value
        // only where they are of the type int itself; so the list stays as it is and keeps them alive.
        let value = unsafe {
            let item = ffi::PyList_GET_ITEM(list.as_ptr(), index as ffi::Py_ssize_t);
            if let Some(id) = known.as_ref().and_then(|known| known.id_of(item)) {
                ids.push(id);
                continue;
            }
            if ffi::PyLong_CheckExact(item) == 0 {
                return None;
            }
            ffi::PyLong_AsLongLong(item)
        };
        match u32::try_from(value) {
            Ok(id) => ids.push(id),
            Err(_) => {
                // SAFETY: the interpreter is held. A number beyond 64 bits left an error that the caller words anew.
                unsafe { ffi::PyErr_Clear() };
                return None;
            }
        }
    }
    Some(ids)
}

/// A list of ids, each below `integers.len()`.
pub(crate) fn list_of<'py>(py: Python<'py>, integers: &Integers, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
    // SAFETY: the list is new and nobody else sees it before every place holds a reference.
    unsafe {
        let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(ids.len() as ffi::Py_ssize_t))?;
        let places = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
        for (index, &id) in ids.iter().enumerate() {
            places.add(index).write(integers.own(py, id));
        }
        Ok(list.cast_into_unchecked())
    }
}
