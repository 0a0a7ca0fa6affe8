//! How a piece becomes a key and how a key is found among the two of a line: by the processor's own instructions where it has
//! them, by plain arithmetic on all others. Knows no tokens.

use crate::cache::{INLINE, NO_ID};
#[cfg(target_arch = "x86_64")]
use crate::masks::Avx2;
use crate::masks::Portable;

/// One way to do it; all give the same.
pub(crate) trait Probe {
    /// The first `length` of 16 bytes, at most 15, with their number in the highest byte.
    fn pack(window: &[u8; 16], length: usize) -> u128;

    /// Which of two keys this is.
    fn find(keys: &[u128; 2], key: &u128) -> Option<usize>;

    /// Number of ids before the first [`NO_ID`].
    fn count(ids: &[u32; INLINE]) -> usize;
}

impl Probe for Portable {
    #[inline(always)]
    fn pack(window: &[u8; 16], length: usize) -> u128 {
        u128::from_le_bytes(*window) & (u128::MAX >> (128 - 8 * length)) | (length as u128) << 120
    }

    #[inline(always)]
    fn find(keys: &[u128; 2], key: &u128) -> Option<usize> {
        keys.iter().position(|known| known == key)
    }

    #[inline(always)]
    fn count(ids: &[u32; INLINE]) -> usize {
        ids.iter().take_while(|&&id| id != NO_ID).count()
    }
}

/// Called inside functions that are compiled for AVX2 and run after a check only.
#[cfg(target_arch = "x86_64")]
impl Probe for Avx2 {
    #[inline(always)]
    fn pack(window: &[u8; 16], length: usize) -> u128 {
        use std::arch::x86_64::_bzhi_u64;
        let word = u128::from_le_bytes(*window);
        let (low, high) = (word as u64, (word >> 64) as u64);
        let bits = 8 * length as u32;
        // SAFETY: BMI2 is there (see above).
        let (low, high) = unsafe { (_bzhi_u64(low, bits), _bzhi_u64(high, bits.saturating_sub(64))) };
        u128::from(high | (length as u64) << 56) << 64 | u128::from(low)
    }

    #[inline(always)]
    fn find(keys: &[u128; 2], key: &u128) -> Option<usize> {
        use std::arch::x86_64::{
            _mm256_broadcastsi128_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_loadu_si256,
            _mm256_movemask_pd, _mm_loadu_si128,
        };
        // SAFETY: AVX2 is there (see above), and the keys are 32 bytes.
        let equal = unsafe {
            let keys = _mm256_loadu_si256(keys.as_ptr().cast());
            let key = _mm256_broadcastsi128_si256(_mm_loadu_si128(std::ptr::from_ref(key).cast()));
            _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(keys, key)))
        };
        let both = equal & equal >> 1 & 0b101;
        (both != 0).then_some(both as usize >> 2)
    }

    #[inline(always)]
    fn count(ids: &[u32; INLINE]) -> usize {
        use std::arch::x86_64::{_mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_ps, _mm_set1_epi32};
        // SAFETY: 16 bytes are read from where they are.
        let free = unsafe {
            let ids = _mm_loadu_si128(ids.as_ptr().cast());
            _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(ids, _mm_set1_epi32(NO_ID as i32))))
        };
        (free | 1 << INLINE).trailing_zeros() as usize
    }
}
