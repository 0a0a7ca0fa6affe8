//! Union-find with path halving; the root of a set is its smallest member, so labels do not depend on the order of unions.
//!
//! The parents may lie in memory or in a mapped file. A parent is never above its child and always truly connected to it, so a file that was
//! written only in part is still a valid, if less joined, state.

/// Disjoint sets over 0..n.
#[derive(Debug, Clone)]
pub struct Union<P = Vec<u32>> {
    parent: P,
    /// The next member of each set, in a ring; empty when members are not asked for.
    ring: Vec<u32>,
}

impl Union {
    /// Every number alone.
    pub fn new(count: usize) -> Self {
        Self::over((0..count as u32).collect())
    }

    /// Sets given by parents, that can grow and tell their members.
    pub fn with_members(parent: Vec<u32>) -> Self {
        let ring = (0..parent.len() as u32).collect();
        let mut union = Self { parent, ring };
        for item in 0..union.ring.len() {
            let root = union.find(item as u32) as usize;
            if root != item {
                union.ring.swap(root, item);
            }
        }
        union
    }

    /// One more number, alone; for sets that tell their members.
    pub fn push(&mut self) {
        self.ring.push(self.parent.len() as u32);
        self.parent.push(self.parent.len() as u32);
    }

    /// The set of `item`, ascending; for sets that tell their members.
    pub fn members(&self, item: u32) -> Vec<u32> {
        let mut found = vec![item];
        let mut next = self.ring[item as usize];
        while next != item {
            found.push(next);
            next = self.ring[next as usize];
        }
        found.sort_unstable();
        found
    }

    /// The parents, to be kept.
    pub fn parents(&self) -> &[u32] {
        &self.parent
    }
}

impl<P: AsMut<[u32]>> Union<P> {
    /// Sets given by parents, none above its child.
    pub fn over(parent: P) -> Self {
        Self { parent, ring: Vec::new() }
    }

    /// The smallest member of the set of `item`.
    #[inline]
    pub fn find(&mut self, mut item: u32) -> u32 {
        let parents = self.parent.as_mut();
        loop {
            let parent = parents[item as usize];
            if parent == item {
                return item;
            }
            let above = parents[parent as usize];
            parents[item as usize] = above;
            item = above;
        }
    }

    /// Join two sets; false when they were one already.
    pub fn join(&mut self, left: u32, right: u32) -> bool {
        let (left, right) = (self.find(left), self.find(right));
        let (low, high) = (left.min(right), left.max(right));
        self.parent.as_mut()[high as usize] = low;
        if low != high && !self.ring.is_empty() {
            self.ring.swap(low as usize, high as usize);
        }
        low != high
    }

    /// Whether two numbers are in one set.
    pub fn same(&mut self, left: u32, right: u32) -> bool {
        self.find(left) == self.find(right)
    }
}
