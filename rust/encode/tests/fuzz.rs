//! Random texts from the split to ids and back: every path cuts as the scanner does, the ids are those of merging each piece by
//! itself, counts and places agree with them, and decoding gives the text back.
//!
//! In bulk: `cargo test --release -p highrise-encode --test fuzz -- --ignored --nocapture` (ten million texts).

mod texts;

use highrise_encode::count::PieceCounts;
use highrise_encode::merge::{merge_below, Scratch};
use highrise_encode::split::{Path, ROOM};
use highrise_encode::train::train;
use highrise_encode::{Allowed, Scheme, Tokenizer, Vocabulary};
use texts::{characters, fragments, Draw};

/// A split pattern with a vocabulary learned under it, and a tokenizer for each path.
struct Subject {
    scheme: Scheme,
    vocabulary: Vocabulary,
    tokenizers: Vec<(Path, Tokenizer)>,
}

/// Memory that is kept between texts.
struct Fuzz {
    subjects: Vec<Subject>,
    expected: Vec<usize>,
    found: Vec<usize>,
    ends: Vec<usize>,
    scratch: Scratch,
}

impl Subject {
    fn new(name: &str) -> Self {
        let scheme = Scheme::from_name(name).expect("a listed name is known");
        let mut draw = Draw(scheme.name().len() as u64);
        let texts: Vec<String> = (0..400).map(|_| fragments(&mut draw)).collect();
        let mut counts = PieceCounts::new(scheme);
        counts.add(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        let trained = train(&counts, 1500, 0, 2).expect("1500 is more than 256");
        let vocabulary =
            || Vocabulary::from_merges(&trained.tokens, &trained.merges, false).expect("merges make tokens");
        let paths = Path::NAMES.iter().filter_map(|name| Path::from_name(name)).filter(|path| path.is_here());
        let tokenizers =
            paths.map(|path| (path, Tokenizer::new(vocabulary(), scheme, Vec::new(), false).on_path(path))).collect();
        Subject { scheme, vocabulary: vocabulary(), tokenizers }
    }
}

impl Fuzz {
    fn new() -> Self {
        let subjects = Scheme::NAMES.into_iter().map(Subject::new).collect();
        Fuzz { subjects, expected: Vec::new(), found: Vec::new(), ends: vec![0; 4096], scratch: Scratch::default() }
    }

    fn check(&mut self, draw: &mut Draw, text: &str) {
        let Fuzz { subjects, expected, found, ends, scratch } = self;
        let index = draw.below(subjects.len());
        let Subject { scheme, vocabulary, tokenizers } = &subjects[index];
        cut(*scheme, Path::Scanner, text, ends, expected);
        let room = [ROOM, 256, 4096][draw.below(3)];
        let mut ids = Vec::new();
        let mut start = 0;
        for &end in expected.iter() {
            merge_below(vocabulary, &text.as_bytes()[start..end], u32::MAX, scratch, &mut ids);
            start = end;
        }
        assert_eq!(start, text.len(), "{} {text:?}", scheme.name());
        for (path, tokenizer) in tokenizers {
            cut(*scheme, *path, text, &mut ends[..room], found);
            assert_eq!(found, expected, "{} {path:?} {text:?}", scheme.name());
            let (encoded, places) = tokenizer.encode_with_offsets(text, Allowed::All).expect("the text is short");
            assert_eq!(encoded, ids, "{} {path:?} {text:?}", scheme.name());
            let mut end = 0;
            for (&id, &place) in encoded.iter().zip(&places) {
                let length = vocabulary.token(id).map_or(0, <[u8]>::len);
                assert_eq!(place, (end, end + length), "{} {path:?} {text:?}", scheme.name());
                end += length;
            }
        }
        let (_, tokenizer) = &tokenizers[draw.below(tokenizers.len())];
        let mut encoded = Vec::new();
        tokenizer.encode(text, Allowed::None, &mut encoded).expect("the text is short");
        assert_eq!(encoded, ids, "{} {text:?}", scheme.name());
        assert_eq!(tokenizer.count(text, Allowed::None, None), Ok(ids.len()), "{} {text:?}", scheme.name());
        assert_eq!(tokenizer.decode(&ids).as_deref(), Ok(text.as_bytes()), "{} {text:?}", scheme.name());
    }

    fn check_many(&mut self, draw: &mut Draw, num_texts: usize) {
        for round in 0..num_texts {
            let text = if round % 2 == 0 { fragments(draw) } else { characters(draw) };
            self.check(draw, &text);
        }
    }
}

fn cut(scheme: Scheme, path: Path, text: &str, ends: &mut [usize], all: &mut Vec<usize>) {
    all.clear();
    let mut start = 0;
    while start < text.len() {
        let count = scheme.split_on(path, text, start, ends);
        all.extend_from_slice(&ends[..count]);
        start = ends[count - 1];
    }
}

#[test]
fn some_thousand_texts() {
    Fuzz::new().check_many(&mut Draw(12), 6000);
}

#[test]
#[ignore = "many minutes; run before a release"]
fn ten_million_texts() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    println!("seed {seed}");
    let (mut fuzz, mut draw) = (Fuzz::new(), Draw(seed));
    for million in 1..=10 {
        fuzz.check_many(&mut draw, 1_000_000);
        println!("{million} million texts: no difference");
    }
}
