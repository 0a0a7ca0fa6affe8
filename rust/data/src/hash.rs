//! Mixing: the folded 64 x 64 -> 128 bit product, as in wyhash (Wang Yi), and the constants that all modules share.

/// Odd constants with well spread bits (digits of pi and e in hexadecimal, made odd).
pub const K: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xb7e1_5162_8aed_2a6b, 0xbf71_5880_9cf4_f3c7];

/// Low and high half of the product, one on the other.
#[inline(always)]
pub fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The `index`-th number of the stream that `seed` names (SplitMix64, Steele et al. 2014).
pub fn split_mix(seed: u64, index: u64) -> u64 {
    let mut value = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A 128-bit hash of a whole text, to find equal ones. Each step adds to the state before it, so that no block, not even one made
/// for it, can wipe out what stood before.
pub fn content(text: &[u8]) -> (u64, u64) {
    let (mut first, mut second) = (K[0] ^ text.len() as u64, K[1]);
    let mut blocks = text.chunks_exact(16);
    for block in &mut blocks {
        let (low, high) = halves(block);
        first = fold(first ^ low, high ^ K[2]).wrapping_add(first.rotate_left(29));
        second = fold(second ^ high, low ^ K[3]).wrapping_add(second.rotate_left(31));
    }
    let mut last = [0u8; 16];
    last[..blocks.remainder().len()].copy_from_slice(blocks.remainder());
    let (low, high) = halves(&last);
    (fold(first ^ low, high ^ K[2]), fold(second ^ high, low ^ K[3]))
}

/// The two little-endian words of 16 bytes.
#[inline(always)]
pub(crate) fn halves(block: &[u8]) -> (u64, u64) {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(block);
    let both = u128::from_le_bytes(bytes);
    (both as u64, (both >> 64) as u64)
}
