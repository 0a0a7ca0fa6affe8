//! Shingles: the hash of every run of five words, rolled so that each costs two products however long the words are.
//!
//! The hash of words w0..w4 is `w0 M^4 + w1 M^3 + w2 M^2 + w3 M + w4` modulo 2^64. A text of one to four words is one shingle of all
//! of them; a text without words has none.

use crate::words::for_each_word;

/// Words in a shingle.
pub const WORDS: usize = 5;

const M: u64 = 0xd6e8_feb8_6659_fd93;
const M5: u64 = M.wrapping_mul(M).wrapping_mul(M).wrapping_mul(M).wrapping_mul(M);

/// Call `emit` with the hash of every shingle of `text`, in order, repeats included.
#[inline(always)]
pub fn for_each_shingle(text: &[u8], mut emit: impl FnMut(u64)) {
    let mut last = [0u64; 8];
    let mut count = 0usize;
    let mut rolling = 0u64;
    for_each_word(text, |word| {
        let leaving = last[count.wrapping_sub(WORDS) & 7];
        last[count & 7] = word;
        count += 1;
        rolling = rolling.wrapping_mul(M).wrapping_add(word).wrapping_sub(leaving.wrapping_mul(M5));
        if count >= WORDS {
            emit(rolling);
        }
    });
    if (1..WORDS).contains(&count) {
        emit(rolling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::hash_word;

    #[test]
    fn rolled_equals_direct() {
        let words: Vec<String> = (0..40).map(|n| format!("w{}", n * n)).collect();
        for count in 0..words.len() {
            let mut rolled = Vec::new();
            for_each_shingle(words[..count].join(" ").as_bytes(), |hash| rolled.push(hash));
            let hashes: Vec<u64> = words[..count].iter().map(|word| hash_word(word.as_bytes())).collect();
            let direct: Vec<u64> = match count {
                0 => Vec::new(),
                _ => hashes
                    .windows(count.min(WORDS))
                    .map(|run| run.iter().fold(0u64, |sum, &word| sum.wrapping_mul(M).wrapping_add(word)))
                    .collect(),
            };
            assert_eq!(rolled, direct, "{count}");
        }
    }
}
