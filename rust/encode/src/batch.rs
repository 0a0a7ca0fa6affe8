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
    let mut starts = vec![0_i64];
    if threads == 1 {
        let mut ids = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() / 4);
        for text in texts {
            encode(text, &mut ids)?;
            starts.push(ids.len() as i64);
        }
        return Ok((ids, starts));
    }
    let ranges = ranges(texts, threads * 8);
    let parts: Vec<Mutex<Option<Part>>> = ranges.iter().map(|_| Mutex::new(None)).collect();
    let turn = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let index = turn.fetch_add(1, Ordering::Relaxed);
                let Some(range) = ranges.get(index) else { return };
                let part = encode_some(&texts[range.clone()], &encode);
                *parts[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
            });
        }
    });
    let mut ids = Vec::new();
    for part in parts {
        let Some(part) = part.into_inner().unwrap_or_else(PoisonError::into_inner) else { continue };
        let (found, counts) = part?;
        let mut at = ids.len() as i64;
        for count in counts {
            at += count as i64;
            starts.push(at);
        }
        ids.extend_from_slice(&found);
    }
    Ok((ids, starts))
}

fn encode_some(texts: &[&str], encode: &impl Fn(&str, &mut Vec<u32>) -> Result<(), Error>) -> Part {
    let (mut ids, mut counts) = (Vec::new(), Vec::with_capacity(texts.len()));
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
