//! Gates: which of many patterns a text may match, told without a backtracking engine.
//!
//! For screening: most texts match none of fifty patterns. Each pattern is searched by itself, since a search for one, led by the few
//! literals that it must hold, reads 1 to 20 GB/s, where one automaton for all fifty reads 30 MB/s. A pattern without such literals has
//! hints: small patterns of which one must match first. Classes are those of ASCII, and a byte beyond it is matched by negated classes
//! only. Knows nothing of what a pattern is for.

use regex::bytes::{Regex, RegexBuilder};

use crate::error::DataError;

/// A compiled pattern; one in any case is in lower case itself and searched in the text in lower case, which is twice as fast.
#[derive(Debug, Clone)]
struct Pattern {
    lowered: bool,
    regex: Regex,
}

/// A pattern and its hints.
#[derive(Debug, Clone)]
struct Gate {
    hints: Vec<Pattern>,
    pattern: Pattern,
}

/// Compiled patterns.
#[derive(Debug, Clone)]
pub struct Gates {
    gates: Vec<Gate>,
}

/// Bytes of one compiled pattern and of its automaton.
const LIMIT: usize = 1 << 23;

impl Gates {
    /// Compile patterns, each with its hints, in the syntax of the crate `regex`: no backreferences, nothing that looks around. One that
    /// begins with `(?i)` names its letters in lower case.
    pub fn new(patterns: &[(Vec<String>, String)]) -> Result<Self, DataError> {
        let mut gates = Vec::with_capacity(patterns.len());
        for (hints, pattern) in patterns {
            let hints = hints.iter().map(|hint| compile(hint)).collect::<Result<_, DataError>>()?;
            gates.push(Gate { hints, pattern: compile(pattern)? });
        }
        Ok(Self { gates })
    }

    /// Numbers of the patterns that match somewhere in `text`, in order; of one with hints only where one of them matches.
    pub fn open(&self, text: &[u8]) -> Vec<usize> {
        let any = self.gates.iter().any(|gate| gate.pattern.lowered);
        let lowered = if any { text.to_ascii_lowercase() } else { Vec::new() };
        let matches = |pattern: &Pattern| pattern.regex.is_match(if pattern.lowered { &lowered } else { text });
        let is_open =
            |gate: &Gate| (gate.hints.is_empty() || gate.hints.iter().any(&matches)) && matches(&gate.pattern);
        self.gates.iter().enumerate().filter(|(_, gate)| is_open(gate)).map(|(number, _)| number).collect()
    }
}

fn compile(pattern: &str) -> Result<Pattern, DataError> {
    let plain = pattern.strip_prefix("(?i)");
    let mut builder = RegexBuilder::new(plain.unwrap_or(pattern));
    let built = builder.unicode(false).size_limit(LIMIT).dfa_size_limit(LIMIT).build();
    let regex = built.map_err(|error| DataError::Pattern(format!("a pattern cannot be used as a gate: {error}")))?;
    Ok(Pattern { lowered: plain.is_some(), regex })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_hints() {
        let alone = |pattern: &str| (Vec::new(), pattern.to_owned());
        let hinted = (vec!["zz".to_owned(), "key".to_owned()], "_[0-9]".to_owned());
        let gates = Gates::new(&[alone("key_[0-9]{3}"), alone("(?i)token"), alone("never"), hinted]).unwrap();
        assert_eq!(gates.open("TOKEN = 'key_123'".as_bytes()), [0, 1, 3]);
        assert_eq!(gates.open("caf\u{e9} k_12".as_bytes()), [] as [usize; 0]);
        assert!(Gates::new(&[alone("(?=x)")]).unwrap_err().to_string().contains("cannot be used as a gate"));
    }
}
