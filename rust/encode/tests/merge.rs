//! Every way to encode a piece gives the tokens that merging gives.

use highrise_encode::count::PieceCounts;
use highrise_encode::merge::{merge, merge_below, Scratch};
use highrise_encode::train::train;
use highrise_encode::{Scheme, Vocabulary};

/// A small generator of its own: the same texts on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }

    /// Bytes of a small alphabet, so that many merges apply.
    fn piece(&mut self, most: usize) -> Vec<u8> {
        let letters = 1 + self.below(5);
        (0..1 + self.below(most)).map(|_| b'a' + self.below(letters) as u8).collect()
    }
}

fn check(vocabulary: &Vocabulary, draw: &mut Draw, rounds: usize) {
    let mut scratch = Scratch::default();
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let piece = draw.piece([12, 20, 40, 70, 300][round % 5]);
        expected.clear();
        found.clear();
        merge_below(vocabulary, &piece, u32::MAX, &mut scratch, &mut expected);
        merge(vocabulary, &piece, &mut scratch, &mut found);
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(&piece));
    }
}

#[test]
fn trained_vocabularies() {
    let mut draw = Draw(1);
    for size in [257, 270, 300, 400, 700] {
        let texts: Vec<String> =
            (0..200).map(|_| String::from_utf8(draw.piece(30)).expect("the alphabet is ASCII")).collect();
        let mut counts = PieceCounts::new(Scheme::Qwen2);
        counts.add(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        let trained = train(&counts, size, 0, 1).expect("the size is above 256");
        let merges = Vocabulary::from_merges(&trained.tokens, &trained.merges, false).expect("trained merges fit");
        check(&merges, &mut draw, 3000);
        let ranks = Vocabulary::from_ranks(&trained.tokens).expect("every byte has a token");
        check(&ranks, &mut draw, 3000);
    }
}

#[test]
fn vocabularies_that_no_training_makes() {
    let mut draw = Draw(2);
    for _ in 0..300 {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for _ in 0..40 {
            let token = draw.piece(6);
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        let ranks = Vocabulary::from_ranks(&tokens).expect("every byte has a token");
        check(&ranks, &mut draw, 200);
        // Merges in any order, of any two tokens whose bytes together are one.
        let mut merges = Vec::new();
        for _ in 0..400 {
            let token = &tokens[256 + draw.below(tokens.len() - 256)];
            let middle = draw.below(token.len() + 1);
            let part = |bytes: &[u8]| tokens.iter().position(|token| token == bytes).map(|id| id as u32);
            if let (Some(left), Some(right)) = (part(&token[..middle]), part(&token[middle..])) {
                if !merges.contains(&(left, right)) {
                    merges.push((left, right));
                }
            }
        }
        let merges = Vocabulary::from_merges(&tokens, &merges, false).expect("each merge makes a token");
        check(&merges, &mut draw, 200);
    }
}
