//! Every path of the split gives the pieces of the scanner.

use highrise_encode::split::{Path, Scheme};

/// A small generator of its own: the same texts on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }
}

const FRAGMENTS: [&str; 44] = [
    "a",
    "b",
    "s",
    "S",
    "Z",
    "ll",
    "LL",
    "rE",
    "ve",
    "word",
    "Word",
    "WORD",
    "camelCase",
    "HTTPServer",
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "\r\n",
    "\n\n",
    "\n    ",
    " \n ",
    "\u{b}",
    "'",
    "'s",
    "'S",
    "'ll",
    "'Re",
    "''",
    ".",
    "..",
    "/",
    "//",
    "(",
    "_",
    "1",
    "12",
    "1234567",
    "\u{17f}",
    "é",
    "中",
    "\u{a0}",
    "\u{301}",
];

fn pieces(scheme: Scheme, path: Path, text: &str, room: usize) -> Vec<usize> {
    let (mut all, mut ends, mut start) = (Vec::new(), vec![0; room], 0);
    loop {
        let count = scheme.split_on(path, text, start, &mut ends);
        all.extend_from_slice(&ends[..count]);
        if count < room {
            return all;
        }
        start = ends[count - 1];
    }
}

#[test]
fn blocks_and_scanner_cut_the_same() {
    let mut draw = Draw(7);
    for round in 0..12_000 {
        // Some rounds hold no character beyond ASCII, so that blocks are whole.
        let kinds = if round % 3 == 0 { FRAGMENTS.len() } else { FRAGMENTS.len() - 5 };
        let (first, span) = (draw.below(kinds), 2 + draw.below(kinds));
        let text: String = (0..draw.below(120)).map(|_| FRAGMENTS[(first + draw.below(span)) % kinds]).collect();
        for name in Scheme::NAMES {
            let scheme = Scheme::from_name(name).expect("a listed name is known");
            let expected = pieces(scheme, Path::Scanner, &text, 4096);
            assert_eq!(expected.last().copied().unwrap_or(0), text.len());
            for room in [70, 4096] {
                assert_eq!(pieces(scheme, Path::Blocks, &text, room), expected, "{name} {text:?}");
            }
        }
    }
}
