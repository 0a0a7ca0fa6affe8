//! Record: numbers of a fixed size in files, little-endian.

/// What a file holds many of.
pub trait Record: Copy {
    /// Bytes of one.
    const SIZE: usize;
    /// Append it to `bytes`.
    fn put(self, bytes: &mut Vec<u8>);
    /// Read it from `SIZE` bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($kind:ty) => {
        impl Record for $kind {
            const SIZE: usize = std::mem::size_of::<$kind>();
            #[inline]
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn take(bytes: &[u8]) -> Self {
                let mut raw = [0u8; std::mem::size_of::<$kind>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    };
}
number!(u8);
number!(u32);
number!(u64);

impl<A: Record, B: Record> Record for (A, B) {
    const SIZE: usize = A::SIZE + B::SIZE;
    #[inline]
    fn put(self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
        self.1.put(bytes);
    }
    #[inline]
    fn take(bytes: &[u8]) -> Self {
        (A::take(&bytes[..A::SIZE]), B::take(&bytes[A::SIZE..]))
    }
}

impl<A: Record, B: Record, C: Record> Record for (A, B, C) {
    const SIZE: usize = A::SIZE + B::SIZE + C::SIZE;
    #[inline]
    fn put(self, bytes: &mut Vec<u8>) {
        (self.0, (self.1, self.2)).put(bytes);
    }
    #[inline]
    fn take(bytes: &[u8]) -> Self {
        let (first, (second, third)) = <(A, (B, C))>::take(bytes);
        (first, second, third)
    }
}

impl Record for bool {
    const SIZE: usize = 1;
    #[inline]
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self));
    }
    #[inline]
    fn take(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}
