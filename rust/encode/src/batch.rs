//! Many texts at once, on as many threads as asked for. Knows nothing of what encoding is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Ids of some texts one after another, and how many each has.
type Part = Result<(Vec<u32>, Vec<usize>), Error>;

/// All ids one after another, and where each text starts (one more than there are texts). `encode` adds the ids of a
/// text to those it is given.
pub(crate) fn encode_batch<Encode>(
    texts: &[&str],
    threads: usize,
    encode: Encode,
) -> Result<(Vec<u32>, Vec<i64>), Error>
where
    Encode: Fn(&str, &mut Vec<u32>) -> Result<(), Error> + Sync,
{
    let threads = threads.clamp(1, texts.len().max(1));
    let mut starts = Vec::with_capacity(texts.len() + 1);
    starts.push(0_i64);
    if threads == 1 {
        // Enough for most text; what is not written takes no memory where the system gives it out by pages.
        let mut ids = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() / 3);
        for text in texts {
            encode(text, &mut ids)?;
            starts.push(ids.len() as i64);
        }
        return Ok((ids, starts));
    }
    let ranges = ranges(texts, threads * 8);
    let parts: Vec<Mutex<Option<Part>>> = ranges.iter().map(|_| Mutex::new(None)).collect();
    on_threads(threads, ranges.len(), |index| {
        let part = encode_some(&texts[ranges[index].clone()], &encode);
        *parts[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
    });
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(part) = part.into_inner().unwrap_or_else(PoisonError::into_inner) else { continue };
        let (ids, counts) = part?;
        for count in counts {
            starts.push(starts.last().map_or(0, |last| last + count as i64));
        }
        found.push(ids);
    }
    // Putting the parts together touches as much memory as encoding does, so all threads do it.
    let mut ids = vec![0; found.iter().map(Vec::len).sum()];
    let mut rest = ids.as_mut_slice();
    let mut copies = Vec::with_capacity(found.len());
    for part in found {
        let (to, behind) = rest.split_at_mut(part.len());
        copies.push(Mutex::new(Some((part, to))));
        rest = behind;
    }
    on_threads(threads, copies.len(), |index| {
        let copy = copies[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((from, to)) = copy {
            to.copy_from_slice(&from);
        }
    });
    drop(copies);
    Ok((ids, starts))
}

/// Does each of `count` pieces of work once, on the calling thread and so many others.
fn on_threads(threads: usize, count: usize, work: impl Fn(usize) + Sync) {
    let turn = AtomicUsize::new(0);
    let run = || loop {
        let index = turn.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        work(index);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(run);
        }
        run();
    });
}

fn encode_some(texts: &[&str], encode: &impl Fn(&str, &mut Vec<u32>) -> Result<(), Error>) -> Part {
    let size: usize = texts.iter().map(|text| text.len()).sum();
    let (mut ids, mut counts) = (Vec::with_capacity(size / 3), Vec::with_capacity(texts.len()));
    for text in texts {
        let before = ids.len();
        encode(text, &mut ids)?;
        counts.push(ids.len() - before);
    }
    Ok((ids, counts))
}

/// About `count` ranges of texts of about the same size.
fn ranges(texts: &[&str], count: usize) -> Vec<std::ops::Range<usize>> {
    let total: usize = texts.iter().map(|text| text.len()).sum();
    let target = total / count + 1;
    let (mut ranges, mut first, mut size) = (Vec::new(), 0, 0);
    for (index, text) in texts.iter().enumerate() {
        size += text.len();
        if size >= target || index + 1 == texts.len() {
            ranges.push(first..index + 1);
            (first, size) = (index + 1, 0);
        }
    }
    ranges
}
