//! Union-find with path halving; the root of a set is its smallest member, so labels do not depend on the order of unions.

/// Disjoint sets over 0..n.
#[derive(Debug, Clone)]
pub struct Union {
    parent: Vec<u32>,
}

impl Union {
    /// Every number alone.
    pub fn new(count: usize) -> Self {
        Self { parent: (0..count as u32).collect() }
    }

    /// The smallest member of the set of `item`.
    #[inline]
    pub fn find(&mut self, mut item: u32) -> u32 {
        loop {
            let parent = self.parent[item as usize];
            if parent == item {
                return item;
            }
            let above = self.parent[parent as usize];
            self.parent[item as usize] = above;
            item = above;
        }
    }

    /// Join two sets; false when they were one already.
    pub fn join(&mut self, left: u32, right: u32) -> bool {
        let (left, right) = (self.find(left), self.find(right));
        let (low, high) = (left.min(right), left.max(right));
        self.parent[high as usize] = low;
        low != high
    }

    /// Whether two numbers are in one set.
    pub fn same(&mut self, left: u32, right: u32) -> bool {
        self.find(left) == self.find(right)
    }
}
