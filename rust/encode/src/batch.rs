//! Many texts at once, on as many threads as asked for. Knows nothing of what encoding is.
//!
//! Threads take small parts of the batch in turn. As soon as the parts before it are done the place of a part is known, and it is
//! copied there while the cache of the processor still has it.

use std::alloc::{alloc, dealloc, handle_alloc_error, realloc, Layout};
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::error::Error;

/// About so many bytes of text are a part: enough that taking turns costs nothing, little enough for the second cache.
const PART: usize = 1 << 16;

/// All ids one after another, and where each text starts (one more than there are texts). `encode` adds the ids of some texts
/// to those it is given, and after each text the number of ids so far.
pub(crate) fn encode_batch<Encode>(
    texts: &[&str],
    threads: usize,
    encode: Encode,
) -> Result<(Vec<u32>, Vec<i64>), Error>
where
    Encode: Fn(&[&str], &mut Vec<u32>, &mut Vec<usize>) -> Result<(), Error> + Sync,
{
    // Enough for most text; what is not written takes no memory where the system gives it out by pages.
    let expected = texts.iter().map(|text| text.len()).sum::<usize>() / 3;
    let parts = parts(texts);
    let threads = threads.min(parts.len());
    if threads <= 1 {
        let (mut ids, mut ends) = (Vec::with_capacity(expected), Vec::with_capacity(texts.len()));
        encode(texts, &mut ids, &mut ends)?;
        let starts = std::iter::once(0).chain(ends.into_iter().map(|end| end as i64)).collect();
        return Ok((ids, starts));
    }
    let (turn, order, output) = (AtomicUsize::new(0), Mutex::new(Order::new(texts.len())), Output::new(expected));
    let work = || {
        let mut spare = Vec::new();
        while let Some(range) = parts.get(turn.fetch_add(1, Ordering::Relaxed)) {
            let (mut ids, mut ends): Part = spare.pop().unwrap_or_default();
            ids.clear();
            ends.clear();
            let result = encode(&texts[range.clone()], &mut ids, &mut ends);
            if result.is_err() {
                // All before it are taken already, so the first error of the batch is found.
                turn.store(parts.len(), Ordering::Relaxed);
            }
            let mut placed = Vec::new();
            order.lock().unwrap_or_else(PoisonError::into_inner).done(
                range.start,
                result.map(|()| (ids, ends)),
                &mut placed,
            );
            for (start, part) in placed {
                output.write(start, &part.0);
                spare.push(part);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let order = order.into_inner().unwrap_or_else(PoisonError::into_inner);
    match order.error {
        Some((_, error)) => Err(error),
        // SAFETY: all parts were placed one behind the other and written.
        None => Ok((unsafe { output.into_vec(order.length) }, order.starts)),
    }
}

/// Ranges of texts of about [`PART`] bytes.
fn parts(texts: &[&str]) -> Vec<Range<usize>> {
    let (mut parts, mut first, mut size) = (Vec::new(), 0, 0);
    for (index, text) in texts.iter().enumerate() {
        size += text.len();
        if size >= PART || index + 1 == texts.len() {
            parts.push(first..index + 1);
            (first, size) = (index + 1, 0);
        }
    }
    parts
}

/// Ids of some texts, and for each text where its ids end.
type Part = (Vec<u32>, Vec<usize>);

/// Which parts are done, and where the next one goes.
struct Order {
    /// Where each text starts, of all texts before the first that is not done, and of that.
    starts: Vec<i64>,
    /// Number of ids of these texts.
    length: usize,
    /// Parts that others before them keep waiting, by their first text.
    waiting: BTreeMap<usize, Part>,
    /// The first text of a part that failed, and why.
    error: Option<(usize, Error)>,
}

impl Order {
    fn new(num_texts: usize) -> Self {
        let mut starts = Vec::with_capacity(num_texts + 1);
        starts.push(0);
        Order { starts, length: 0, waiting: BTreeMap::new(), error: None }
    }

    /// Takes the part that begins with text `first`; puts all parts whose places are known now into `placed`.
    fn done(&mut self, first: usize, part: Result<Part, Error>, placed: &mut Vec<(usize, Part)>) {
        match part {
            Ok(part) => drop(self.waiting.insert(first, part)),
            Err(error) if self.error.as_ref().is_none_or(|known| first < known.0) => self.error = Some((first, error)),
            Err(_) => {}
        }
        while let Some(part) = self.waiting.remove(&(self.starts.len() - 1)) {
            let start = self.length;
            self.starts.extend(part.1.iter().map(|end| (start + end) as i64));
            self.length += part.0.len();
            placed.push((start, part));
        }
    }
}

/// A growing array that several threads write to at different places.
struct Output {
    memory: RwLock<Memory>,
}

struct Memory {
    start: NonNull<u32>,
    capacity: usize,
}

// SAFETY: it owns its memory as a vector does.
unsafe impl Send for Memory {}
// SAFETY: shared, it is written to at places that do not meet, as `Output::write` wants; see there.
unsafe impl Sync for Memory {}

impl Output {
    /// Room for so many ids, for now.
    fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let layout = Memory::layout(capacity);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc(layout) }.cast();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Output { memory: RwLock::new(Memory { start, capacity }) }
    }

    /// Writes ids from place `start` on. No two calls may mean the same place.
    fn write(&self, start: usize, ids: &[u32]) {
        let end = start + ids.len();
        loop {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            if end <= memory.capacity {
                // SAFETY: the places lie inside the memory, which stays where it is while it is read-locked, and nobody else
                // writes there.
                unsafe { std::ptr::copy_nonoverlapping(ids.as_ptr(), memory.start.as_ptr().add(start), ids.len()) };
                return;
            }
            drop(memory);
            self.memory.write().unwrap_or_else(PoisonError::into_inner).grow(end);
        }
    }

    /// The first `length` ids.
    ///
    /// # Safety
    /// All of them were written.
    unsafe fn into_vec(self, length: usize) -> Vec<u32> {
        let memory = std::mem::ManuallyDrop::new(self.memory.into_inner().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the memory was allocated as a vector allocates it, and as the caller says.
        unsafe { Vec::from_raw_parts(memory.start.as_ptr(), length, memory.capacity) }
    }
}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::array::<u32>(capacity).unwrap_or_else(|_| panic!("{capacity} ids do not fit the memory"))
    }

    /// Makes room for `least` ids at least; what was written stays.
    fn grow(&mut self, least: usize) {
        if least <= self.capacity {
            return;
        }
        let capacity = least.max(self.capacity * 2);
        let layout = Self::layout(capacity);
        // SAFETY: allocated with this layout, and the new size is above zero.
        let start = unsafe { realloc(self.start.as_ptr().cast(), Self::layout(self.capacity), layout.size()) }.cast();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        (self.start, self.capacity) = (start, capacity);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.capacity)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(texts: &[&str], ids: &mut Vec<u32>, ends: &mut Vec<usize>) -> Result<(), Error> {
        for text in texts {
            if text.starts_with('!') {
                return Err(Error::TooLong(text.len()));
            }
            ids.extend(text.bytes().map(u32::from));
            ends.push(ids.len());
        }
        Ok(())
    }

    /// More ids than are expected at first, of texts that are parts by themselves or many to a part.
    fn texts() -> Vec<String> {
        (0..900).map(|index| char::from(b'a' + (index % 26) as u8).to_string().repeat(index * 37 % 9001)).collect()
    }

    #[test]
    fn parts_are_put_in_order() {
        let texts = texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).chain(["", "z", ""]).collect();
        let expected: Vec<u32> = texts.iter().flat_map(|text| text.bytes().map(u32::from)).collect();
        for threads in [0, 1, 2, 3, 8] {
            let (ids, starts) = encode_batch(&texts, threads, bytes).expect("no text is bad");
            assert!(ids == expected, "{threads}");
            assert_eq!(starts.len(), texts.len() + 1);
            assert!(texts.iter().zip(starts.windows(2)).all(|(text, pair)| pair[1] - pair[0] == text.len() as i64));
            assert_eq!(encode_batch(&[], threads, bytes), Ok((Vec::new(), vec![0])));
        }
    }

    #[test]
    fn the_first_error_is_found() {
        let mut texts = texts();
        for (index, length) in [(300, 3), (301, 4), (600, 5), (899, 6)] {
            texts[index] = "!".repeat(length);
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for threads in [1, 2, 5] {
            assert_eq!(encode_batch(&texts, threads, bytes), Err(Error::TooLong(3)), "{threads}");
        }
    }
}
