//! A slice worked on in chunks by scoped threads; no pool outlives a call, and one thread means the caller's own.

use std::sync::Mutex;

/// Call `work(offset, chunk, &mut scratch)` for every chunk of `size` items; each thread makes one `scratch`.
pub(crate) fn for_each_chunk<T: Send, S>(
    items: &mut [T],
    size: usize,
    threads: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(usize, &mut [T], &mut S) + Sync,
) {
    let size = size.max(1);
    let threads = threads.clamp(1, items.len().div_ceil(size).max(1));
    if threads == 1 {
        let mut scratch = scratch();
        for (number, chunk) in items.chunks_mut(size).enumerate() {
            work(number * size, chunk, &mut scratch);
        }
        return;
    }
    let queue = Mutex::new(items.chunks_mut(size).enumerate());
    let next = || match queue.lock() {
        Ok(mut queue) => queue.next(),
        Err(_) => None, // another thread panicked; the scope passes its panic on
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut scratch = scratch();
                while let Some((number, chunk)) = next() {
                    work(number * size, chunk, &mut scratch);
                }
            });
        }
    });
}
