//! Every path gives the same ids, counts and places, with a cache that is new and one that has seen it all.

use highrise_encode::count::PieceCounts;
use highrise_encode::split::Path;
use highrise_encode::train::train;
use highrise_encode::{Allowed, Scheme, SpecialToken, Tokenizer, Vocabulary};

const WORDS: [&str; 20] = [
    "the",
    " of",
    "return",
    " self",
    "(x)",
    "\n    ",
    "                    ",
    " 1234567",
    "'s",
    "слово",
    " Слова",
    "文字",
    "é",
    "\u{301}",
    "—",
    "\u{1f600}",
    "<|end|>",
    " internationalisation",
    "_______________________________________________________________",
    "\t",
];

fn draw(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*state >> 33) as usize % limit
}

#[test]
fn every_path_gives_the_same_ids() {
    let mut state = 11;
    let mut text = || -> String {
        let number = draw(&mut state, 300);
        (0..number).map(|_| WORDS[draw(&mut state, WORDS.len())]).collect()
    };
    let texts: Vec<String> = (0..300).map(|_| text()).collect();
    for name in Scheme::NAMES {
        let scheme = Scheme::from_name(name).expect("a listed name is known");
        let mut counts = PieceCounts::new(scheme);
        counts.add(&texts.iter().take(60).map(String::as_str).collect::<Vec<_>>(), 1);
        let trained = train(&counts, 400, 0, 1).expect("400 is more than 256");
        let tokenizer = |path: Path| {
            let vocabulary =
                Vocabulary::from_merges(&trained.tokens, &trained.merges, false).expect("merges make tokens");
            let special = SpecialToken { text: "<|end|>".into(), id: 400, in_plain_text: false };
            Tokenizer::new(vocabulary, scheme, vec![special], false).on_path(path)
        };
        let plain = tokenizer(Path::Scanner);
        for path in Path::NAMES.iter().filter_map(|name| Path::from_name(name)).filter(|path| path.is_here()) {
            let other = tokenizer(path);
            for text in texts.iter().chain(&texts) {
                for allowed in [Allowed::None, Allowed::All] {
                    let (expected, places) = plain.encode_with_offsets(text, allowed).expect("the text is short");
                    let mut ids = Vec::new();
                    other.encode(text, allowed, &mut ids).expect("the text is short");
                    assert_eq!(ids, expected, "{name} {path:?} {text:?}");
                    assert_eq!(other.count(text, allowed, None).expect("the text is short"), ids.len());
                    assert_eq!(other.encode_with_offsets(text, allowed).expect("the text is short"), (ids, places));
                }
            }
        }
    }
}

#[test]
fn a_batch_is_its_texts_whatever_the_threads() {
    let tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let vocabulary = Vocabulary::from_ranks(&tokens).expect("every byte has a token");
    let tokenizer = Tokenizer::new(vocabulary, Scheme::Qwen2, Vec::new(), false);
    let texts: Vec<String> = (0..200).map(|index| WORDS[index % WORDS.len()].repeat(index * index % 97)).collect();
    for count in [0, 1, 2, 3, 15, 200] {
        let some: Vec<&str> = texts[..count].iter().map(String::as_str).collect();
        let (mut expected, mut expected_starts) = (Vec::new(), vec![0]);
        for text in &some {
            tokenizer.encode(text, Allowed::None, &mut expected).expect("the text is short");
            expected_starts.push(expected.len() as i64);
        }
        for threads in [1, 2, 3, 8, 300] {
            let found = tokenizer.encode_batch(&some, Allowed::None, threads).expect("the texts are short");
            assert_eq!(found, (expected.clone(), expected_starts.clone()), "{count} texts, {threads} threads");
        }
    }
}
