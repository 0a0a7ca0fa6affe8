//! Text that is being changed, and for each of its bytes the bytes of the first text that it stands for.
//! Knows no rules.

use std::ops::Range;

/// A stretch of the first text, in bytes.
pub type Span = (u32, u32);

/// See the module. Without `from`, nothing is remembered; that is faster.
#[derive(Debug, Clone, Default)]
pub struct Aligned {
    /// The text as it is now.
    pub text: String,
    /// For each byte of `text`, where it came from.
    pub from: Option<Vec<Span>>,
}

impl Aligned {
    /// Unchanged text that begins at byte `start` of the first one.
    pub fn new(text: &str, start: usize, remember: bool) -> Self {
        let from = remember.then(|| {
            let mut from = Vec::with_capacity(text.len());
            for (at, character) in text.char_indices() {
                let span = ((start + at) as u32, (start + at + character.len_utf8()) as u32);
                from.extend(std::iter::repeat_n(span, character.len_utf8()));
            }
            from
        });
        Aligned { text: text.to_string(), from }
    }

    /// A part of it.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let from = self.from.as_ref().map(|from| from[range.clone()].to_vec());
        Aligned { text: self.text[range].to_string(), from }
    }

    /// What a range of bytes stands for; (0, 0) where nothing was remembered.
    pub fn span(&self, range: Range<usize>) -> Span {
        let Some(from) = &self.from else { return (0, 0) };
        if range.is_empty() {
            let at = from.get(range.start).map_or_else(|| from.last().map_or(0, |span| span.1), |span| span.0);
            return (at, at);
        }
        let part = &from[range];
        let start = part.iter().map(|span| span.0).min().unwrap_or(0);
        let end = part.iter().map(|span| span.1).max().unwrap_or(0);
        (start, end)
    }

    /// A new text, made piece by piece from this one.
    pub fn rewrite(&self) -> Rewrite<'_> {
        let from = self.from.as_ref().map(|from| Vec::with_capacity(from.len()));
        Rewrite { old: self, new: Aligned { text: String::with_capacity(self.text.len() + 8), from } }
    }

    /// Puts `prefix` in front; it stands for what the first character stands for, as in `tokenizers`.
    pub fn prepend(&mut self, prefix: &str) {
        self.text.insert_str(0, prefix);
        if let Some(from) = &mut self.from {
            let first = from.first().copied().unwrap_or_default();
            from.splice(0..0, std::iter::repeat_n(first, prefix.len()));
        }
    }
}

/// See [`Aligned::rewrite`].
pub struct Rewrite<'old> {
    old: &'old Aligned,
    new: Aligned,
}

impl Rewrite<'_> {
    /// Appends `text`, which stands for the bytes `source` of the old text.
    pub fn push(&mut self, text: &str, source: Range<usize>) {
        self.new.text.push_str(text);
        if self.new.from.is_some() {
            let span = self.old.span(source);
            if let Some(from) = &mut self.new.from {
                from.extend(std::iter::repeat_n(span, text.len()));
            }
        }
    }

    /// Appends one character.
    pub fn push_char(&mut self, character: char, source: Range<usize>) {
        let mut buffer = [0; 4];
        self.push(character.encode_utf8(&mut buffer), source);
    }

    /// Appends bytes of the old text unchanged.
    pub fn keep(&mut self, range: Range<usize>) {
        self.new.text.push_str(&self.old.text[range.clone()]);
        if let (Some(new), Some(old)) = (&mut self.new.from, &self.old.from) {
            new.extend_from_slice(&old[range]);
        }
    }

    /// The new text.
    pub fn finish(self) -> Aligned {
        self.new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rewritten_knows_where_it_came_from() {
        let old = Aligned::new("aéb", 10, true);
        let mut rewrite = old.rewrite();
        rewrite.keep(0..1);
        rewrite.push("e", 1..3);
        rewrite.push_char('x', 3..4);
        let mut new = rewrite.finish();
        new.prepend("_");
        assert_eq!(new.text, "_aex");
        assert_eq!(new.span(0..1), (10, 11));
        assert_eq!((new.span(1..2), new.span(2..3), new.span(1..4)), ((10, 11), (11, 13), (10, 14)));
        assert_eq!(new.slice(2..4).span(0..2), (11, 14));
    }
}
