//! Many texts at once, on as many threads as asked for. Knows nothing of what encoding is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Choice, Pipeline};
use crate::error::Error;

/// Ids of some texts one after another, and how many each has.
type Part = Result<(Vec<u32>, Vec<usize>), Error>;

impl Pipeline {
    /// All ids one after another, and where each text starts (one more than there are texts).
    pub fn encode_batch(&self, texts: &[&str], choice: &Choice, threads: usize) -> Result<(Vec<u32>, Vec<i64>), Error> {
        let ranges = ranges(texts, threads.clamp(1, texts.len().max(1)) * 8);
        let parts: Vec<Mutex<Option<Part>>> = ranges.iter().map(|_| Mutex::new(None)).collect();
        let turn = AtomicUsize::new(0);
        let work = || loop {
            let index = turn.fetch_add(1, Ordering::Relaxed);
            let Some(range) = ranges.get(index) else { return };
            let part = self.encode_some(&texts[range.clone()], choice);
            *parts[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
        };
        if threads <= 1 || ranges.len() <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads.min(ranges.len()) {
                    scope.spawn(work);
                }
            });
        }
        let (mut ids, mut starts) = (Vec::new(), vec![0_i64]);
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

    fn encode_some(&self, texts: &[&str], choice: &Choice) -> Part {
        let (mut ids, mut counts) = (Vec::new(), Vec::with_capacity(texts.len()));
        for text in texts {
            let before = ids.len();
            self.encode(text, choice, usize::MAX, &mut ids, None)?;
            counts.push(ids.len() - before);
        }
        Ok((ids, counts))
    }
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
