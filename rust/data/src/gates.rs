//! Gates: which of many patterns a text may match, all of them in one pass over its bytes.
//!
//! For screening: most texts match none of fifty patterns, and a backtracking engine reads the text once for each. Classes are those of
//! ASCII, and a byte beyond it is matched by negated classes only. Knows nothing of what a pattern is for.

use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::error::DataError;

/// Compiled patterns.
#[derive(Debug, Clone)]
pub struct Gates {
    set: RegexSet,
}

/// Bytes of compiled automata; 50 patterns of screening need about a tenth.
const LIMIT: usize = 1 << 25;

impl Gates {
    /// Compile `patterns`, in the syntax of the crate `regex`: no backreferences, nothing that looks around.
    pub fn new(patterns: &[String]) -> Result<Self, DataError> {
        let built = RegexSetBuilder::new(patterns).unicode(false).size_limit(LIMIT).dfa_size_limit(LIMIT).build();
        Ok(Self {
            set: built.map_err(|error| DataError::Pattern(format!("a pattern cannot be used as a gate: {error}")))?,
        })
    }

    /// Numbers of the patterns that match somewhere in `text`, in order.
    pub fn open(&self, text: &[u8]) -> Vec<usize> {
        self.set.matches(text).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_in_one_pass() {
        let gates = Gates::new(&["key_[0-9]{3}".into(), "(?i)token".into(), "never".into()]).unwrap();
        assert_eq!(gates.open("TOKEN = 'key_123'".as_bytes()), [0, 1]);
        assert_eq!(gates.open("caf\u{e9} key_12".as_bytes()), [] as [usize; 0]);
        assert!(Gates::new(&["(?=x)".into()]).unwrap_err().to_string().contains("cannot be used as a gate"));
    }
}
