//! Random texts for the tests of this crate: the same on every machine for the same seed.

use highrise_encode::unicode::{classes, LETTER, LOWER, NUMBER, SPACE, UPPER};

/// A small generator of its own.
pub struct Draw(pub u64);

impl Draw {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }

    /// One of some.
    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

#[rustfmt::skip]
const ASCII: [&str; 39] = [
    "a", "b", "s", "S", "Z", "ll", "LL", "rE", "ve", "word", "Word", "WORD", "camelCase", "HTTPServer", " ", "  ", "    ", "\t",
    "\n", "\r\n", "\n\n", "\n    ", " \n ", "\u{b}", "'", "'s", "'S", "'ll", "'Re", "''", ".", "..", "/", "//", "(", "_", "1",
    "12", "1234567",
];

#[rustfmt::skip]
const WIDE: [&str; 30] = [
    "\u{17f}", "'\u{17f}", "é", "É", "ß", "слово", "Слово", "СЛОВО", "ά", "Ω", "中", "文字", "ひらがな", "カナ", "한국어", "हिन्दी", "ไทย",
    "עברית", "مرحبا", "ǅ", "ʰ", "\u{301}", "\u{903}", "\u{a0}", "\u{3000}", "٣", "½", "—", "“", "\u{1f600}",
];

/// Fragments of a few kinds, of one script or several.
pub fn fragments(draw: &mut Draw) -> String {
    let some: Vec<&str> =
        (0..2 + draw.below(8)).map(|_| if draw.below(3) == 0 { draw.of(&WIDE) } else { draw.of(&ASCII) }).collect();
    (0..draw.below(120)).map(|_| draw.of(&some)).collect()
}

/// Characters of a few classes each, from all of Unicode.
pub fn characters(draw: &mut Draw) -> String {
    let class_of = |character: char| classes().of(character as u32) & (LETTER | NUMBER | SPACE | UPPER | LOWER);
    let some: Vec<char> = (0..1 + draw.below(6))
        .map(|_| loop {
            let most = [0x80, 0x250, 0x800, 0x1_0000, 0x11_0000][draw.below(5)];
            if let Some(character) = char::from_u32(draw.below(most) as u32) {
                // Most code points have no class, and are like one another.
                if class_of(character) != 0 || draw.below(8) == 0 {
                    break character;
                }
            }
        })
        .collect();
    (0..draw.below(150)).map(|_| some[draw.below(some.len())]).collect()
}
