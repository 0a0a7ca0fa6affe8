//! Every path of the split gives the pieces of the scanner. `fuzz.rs` asks the same of random texts in bulk.

mod texts;

use highrise_encode::split::{Path, ROOM};
use highrise_encode::Scheme;
use texts::{characters, fragments, Draw};

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
        for path in Path::NAMES.iter().filter_map(|name| Path::from_name(name)).filter(|path| path.is_here()) {
            for room in [ROOM, 4096] {
                assert_eq!(pieces(scheme, path, text, room), expected, "{name} {path:?} {text:?}");
            }
        }
    }
}

#[test]
fn every_path_cuts_the_same() {
    let mut draw = Draw(7);
    for _ in 0..1500 {
        check(&fragments(&mut draw));
        check(&characters(&mut draw));
    }
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
