//! Arrays of some megabytes that are read at random: on huge pages where the system has them, since walking page tables costs
//! as much as the memory itself. Knows nothing of what lies in them.

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE: usize = 2 << 20;

/// A fixed number of values, all there from the start.
pub(crate) struct Pages<T: Copy> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it owns its values as a boxed slice does.
unsafe impl<T: Copy + Send> Send for Pages<T> {}
// SAFETY: shared, it gives out shared slices only.
unsafe impl<T: Copy + Sync> Sync for Pages<T> {}

impl<T: Copy> Pages<T> {
    fn layout(length: usize) -> Layout {
        let plain = Layout::array::<T>(length).unwrap_or_else(|_| panic!("{length} entries do not fit the memory"));
        // Memory is cheaper than page walks: an eighth of a page is worth a whole one.
        if plain.size() * 8 >= HUGE {
            plain.align_to(HUGE).unwrap_or(plain).pad_to_align()
        } else {
            plain
        }
    }

    /// `length` times `value`.
    pub(crate) fn filled(length: usize, value: T) -> Self {
        assert!(length > 0 && size_of::<T>() > 0, "an array of nothing has no memory");
        let layout = Self::layout(length);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc(layout) }.cast::<T>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE {
            // SAFETY: the range is memory of ours; a refusal changes nothing.
            unsafe {
                libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            }
        }
        for index in 0..length {
            // SAFETY: `index` lies inside the allocation.
            unsafe { start.add(index).write(value) };
        }
        Pages { start, length }
    }

    /// Asks the processor for an entry that will be read soon, if it can be asked.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            _mm_prefetch(self.start.as_ptr().wrapping_add(index).cast(), _MM_HINT_T0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = index;
    }
}

impl<T: Copy> Clone for Pages<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::filled(self.length, self[0]);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Copy> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `filled` with the same layout; `T` is Copy and needs no drop.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.length)) };
    }
}

impl<T: Copy> Deref for Pages<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: all values were written in `filled`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Copy> DerefMut for Pages<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T: Copy + std::fmt::Debug> std::fmt::Debug for Pages<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} entries", self.length)
    }
}
