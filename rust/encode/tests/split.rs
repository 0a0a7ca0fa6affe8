//! Every path of the split gives the pieces of the scanner.
//!
//! In bulk: `cargo test --release -p highrise-encode --test split -- --ignored` (a million texts, some minutes).

use highrise_encode::split::{Path, ROOM};
use highrise_encode::unicode::{classes, LETTER, LOWER, NUMBER, SPACE, UPPER};
use highrise_encode::Scheme;

/// A small generator of its own: the same texts on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
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

fn pieces(scheme: Scheme, path: Path, text: &str, room: usize) -> Vec<usize> {
    let (mut all, mut ends, mut start) = (Vec::new(), vec![0; room], 0);
    while start < text.len() {
        let count = scheme.split_on(path, text, start, &mut ends);
        all.extend_from_slice(&ends[..count]);
        start = ends[count - 1];
    }
    all
}

/// Each path that the processor has against the scanner, under each pattern.
fn check(text: &str) {
    for name in Scheme::NAMES {
        let scheme = Scheme::from_name(name).expect("a listed name is known");
        let expected = pieces(scheme, Path::Scanner, text, 4096);
        assert_eq!(expected.last().copied().unwrap_or(0), text.len());
        for path in [Path::Avx2, Path::Portable].into_iter().filter(|path| path.is_here()) {
            for room in [ROOM, 4096] {
                assert_eq!(pieces(scheme, path, text, room), expected, "{name} {path:?} {text:?}");
            }
        }
    }
}

/// Fragments of a few kinds, of one script or several.
fn fragments(draw: &mut Draw) -> String {
    let some: Vec<&str> =
        (0..2 + draw.below(8)).map(|_| if draw.below(3) == 0 { draw.of(&WIDE) } else { draw.of(&ASCII) }).collect();
    (0..draw.below(120)).map(|_| draw.of(&some)).collect()
}

/// Characters of a few classes each, from all of Unicode.
fn characters(draw: &mut Draw) -> String {
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

fn check_many(draw: &mut Draw, rounds: usize) {
    for _ in 0..rounds {
        check(&fragments(draw));
        check(&characters(draw));
    }
}

#[test]
fn every_path_cuts_the_same() {
    check_many(&mut Draw(7), 1500);
}

#[test]
#[ignore = "some minutes; run before a release"]
fn every_path_cuts_a_million_texts_the_same() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    println!("seed {seed}");
    check_many(&mut Draw(seed), 500_000);
}

#[test]
fn every_code_point_alone_and_inside_words() {
    for first in (0..0x11_0000_u32).step_by(48) {
        let all: Vec<char> = (first..first + 48).filter_map(char::from_u32).collect();
        check(&all.iter().map(|character| format!("a{character}b {character}1{character} ")).collect::<String>());
        check(&all.iter().map(|character| format!("Б{character}中 {character}{character}\n.")).collect::<String>());
    }
}

#[test]
fn runs_of_each_class_around_the_edges() {
    let kinds = ["a", "A", " ", "\n", ".", "1", "'", "/", "é", "Б", "中", "\u{301}", "\u{3000}", "٣", "—", "\u{1f600}"];
    for kind in kinds {
        for length in [1, 2, 3, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 66] {
            for before in kinds {
                for after in kinds {
                    check(&format!("{before}{}{after}", kind.repeat(length)));
                }
            }
        }
    }
}
