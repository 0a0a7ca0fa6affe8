//! Compare: the items that share a band with one another, pair by pair, as few pairs as decide which are connected.
//!
//! Pairs that are connected already are not looked at: the components cannot change by them. An estimate far from the threshold decides at
//! once; borderline pairs are handed out, to be compared exactly by who has the texts.

use std::collections::HashSet;

use crate::error::DataError;
use crate::options::Limits;
use crate::rows::Rows;
use crate::union::Union;

/// Two items to compare exactly; the flag, first to sort by, says that the estimate is below the threshold.
pub type Pair = (bool, u32, u32);

/// Compares buckets and counts.
#[derive(Debug)]
pub struct Comparer {
    limits: Limits,
    /// Borderline pairs of one item with one component that are handed out at once.
    per_component: usize,
    /// Pairs that an exact comparison has rejected.
    pub rejected: HashSet<(u32, u32)>,
    /// Pairs compared by estimate.
    pub candidate_pairs: u64,
    /// Whether borderline pairs were put off: the buckets must be looked at again when those handed out are decided.
    pub put_off: bool,
}

impl Comparer {
    /// Nothing compared so far.
    pub fn new(limits: Limits, per_component: usize) -> Self {
        Self { limits, per_component, rejected: HashSet::new(), candidate_pairs: 0, put_off: false }
    }

    /// Compare each item of a bucket with the components before it. The first `known` items have been compared with each other.
    pub fn bucket<R: Rows, P: AsMut<[u32]>>(
        &mut self,
        items: &[u32],
        known: usize,
        rows: &mut R,
        union: &mut Union<P>,
        borderline: &mut Vec<Pair>,
    ) -> Result<(), DataError> {
        let mut components: Vec<Vec<u32>> = Vec::new();
        for (position, &item) in items.iter().enumerate() {
            if position >= known {
                for component in &components {
                    self.compare(item, component, rows, union, borderline)?;
                }
            }
            let root = union.find(item);
            let mut own = vec![item];
            let mut index = 0;
            while index < components.len() {
                if union.find(components[index][0]) == root {
                    own.append(&mut components.swap_remove(index));
                } else {
                    index += 1;
                }
            }
            components.push(own);
        }
        Ok(())
    }

    /// Compare an item with the members of a component until one accepts it.
    fn compare<R: Rows, P: AsMut<[u32]>>(
        &mut self,
        item: u32,
        component: &[u32],
        rows: &mut R,
        union: &mut Union<P>,
        borderline: &mut Vec<Pair>,
    ) -> Result<(), DataError> {
        if union.same(item, component[0]) {
            return Ok(());
        }
        if self.limits.accept == 0 {
            union.join(item, component[0]);
            return Ok(());
        }
        let before = borderline.len();
        for &other in component {
            let equal = rows.equal(item, other)?;
            self.candidate_pairs += 1;
            if equal >= self.limits.accept {
                union.join(item, other);
                borderline.truncate(before);
                return Ok(());
            }
            let pair = (item.min(other), item.max(other));
            if equal >= self.limits.reject && !self.rejected.contains(&pair) {
                if borderline.len() - before == self.per_component {
                    self.put_off = true;
                    return Ok(());
                }
                borderline.push((equal < self.limits.likely, pair.0, pair.1));
            }
        }
        Ok(())
    }
}
