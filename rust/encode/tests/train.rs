//! Training learns what counting every pair again after every merge learns, and counting pieces does not depend on path or
//! threads.

mod texts;

use std::collections::HashMap;

use highrise_encode::count::{PieceCounts, BEHIND};
use highrise_encode::split::Path;
use highrise_encode::train::{bytes_in_order, train};
use highrise_encode::Scheme;
use texts::{characters, fragments, Draw};

/// Slow and obvious.
fn reference(pieces: &[(Vec<u8>, u64)], vocabulary: usize, min_count: u64) -> Vec<(u32, u32)> {
    let mut tokens: Vec<Vec<u8>> = bytes_in_order().into_iter().map(|byte| vec![byte]).collect();
    let id = |tokens: &[Vec<u8>], token: &[u8]| tokens.iter().position(|known| known == token).map(|id| id as u32);
    let mut words: Vec<(Vec<u32>, u64)> = pieces
        .iter()
        .map(|(piece, count)| (piece.iter().filter_map(|&byte| id(&tokens, &[byte])).collect(), *count))
        .collect();
    let mut merges = Vec::new();
    while tokens.len() < vocabulary {
        let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
        for (symbols, count) in &words {
            for pair in symbols.windows(2) {
                *pairs.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        let best = pairs.into_iter().max_by_key(|&(pair, count)| (count, std::cmp::Reverse(pair)));
        let Some((pair, count)) = best else { break };
        if count < min_count {
            break;
        }
        merges.push(pair);
        let joined = [tokens[pair.0 as usize].as_slice(), tokens[pair.1 as usize].as_slice()].concat();
        let new = id(&tokens, &joined).unwrap_or_else(|| {
            tokens.push(joined);
            tokens.len() as u32 - 1
        });
        for (symbols, _) in &mut words {
            let mut merged = Vec::new();
            let mut at = 0;
            while at < symbols.len() {
                let is_pair = symbols.get(at..at + 2) == Some(&[pair.0, pair.1][..]);
                merged.push(if is_pair { new } else { symbols[at] });
                at += 1 + usize::from(is_pair);
            }
            *symbols = merged;
        }
    }
    merges
}

#[test]
fn merges_are_those_of_the_reference() {
    let mut draw = Draw(5);
    for round in 0..3000 {
        let letters = 1 + draw.below(4);
        let (most_pieces, most_length, most_count) =
            (1 + draw.below(40), [3, 8, 30][round % 3], [1, 3, 5000, 1 << 40][draw.below(4)]);
        let mut counts = PieceCounts::new(Scheme::Gpt2);
        let mut pieces: HashMap<Vec<u8>, u64> = HashMap::new();
        for _ in 0..most_pieces {
            // With runs, where places of a pair overlap.
            let mut piece = Vec::new();
            while piece.len() < 1 + draw.below(most_length) {
                piece.extend(vec![b'a' + draw.below(letters) as u8; 1 + draw.below(5)]);
            }
            let count = 1 + draw.below(most_count) as u64;
            counts.add_piece(&piece, count);
            *pieces.entry(piece).or_default() += count;
        }
        let pieces: Vec<_> = pieces.into_iter().collect();
        let (vocabulary, min_count) = (256 + draw.below(60), [1, 2, 4][draw.below(3)]);
        let trained = train(&counts, vocabulary, 0, min_count).expect("256 is enough");
        assert_eq!(trained.merges, reference(&pieces, vocabulary, min_count), "{vocabulary} {min_count} {pieces:?}");
        assert_eq!(trained.merges.len(), trained.tokens.len() - 256, "a token is spelled twice");
        let special = train(&counts, vocabulary + 3, 3, min_count).expect("259 is enough");
        let moved: Vec<_> = special.merges.iter().map(|&(left, right)| (left - 3, right - 3)).collect();
        assert_eq!(moved, trained.merges);
        assert_eq!(special.tokens[3..], trained.tokens);
    }
}

#[test]
fn every_path_and_any_number_of_threads_count_the_same() {
    let mut draw = Draw(6);
    let mut texts: Vec<String> = Vec::new();
    for _ in 0..600 {
        texts.extend([fragments(&mut draw), characters(&mut draw)]);
    }
    texts.push("a".repeat(300) + &"é".repeat(5000));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for name in Scheme::NAMES {
        let scheme = Scheme::from_name(name).expect("a listed name is known");
        let mut expected: HashMap<&[u8], u64> = HashMap::new();
        let mut ends = vec![0; 1 << 14];
        for text in &texts {
            let number = scheme.split_on(Path::Scanner, text, 0, &mut ends);
            let mut start = 0;
            for &end in &ends[..number] {
                *expected.entry(&text.as_bytes()[start..end]).or_default() += 1;
                start = end;
            }
        }
        for path in Path::NAMES.iter().filter_map(|name| Path::from_name(name)) {
            for (threads, joined) in [(1, false), (3, false), (1, true), (3, true)] {
                let mut counts = PieceCounts::new(scheme).on_path(path);
                if joined {
                    // In two calls, the first with nothing behind it.
                    let (first, second) = texts.split_at(texts.len() / 3);
                    for (some, behind) in [(first, ""), (second, BEHIND)] {
                        let ends = some.iter().scan(0, |end, text| {
                            *end += text.len();
                            Some(*end)
                        });
                        counts.add_joined(&(some.concat() + behind), &ends.collect::<Vec<_>>(), threads);
                    }
                } else {
                    counts.add(&texts, threads);
                }
                assert_eq!(counts.len(), expected.len(), "{name} {path:?} {threads}");
                assert_eq!(counts.bytes(), texts.iter().map(|text| text.len() as u64).sum::<u64>());
                counts.for_each(|piece, count| {
                    assert_eq!(expected.get(piece), Some(&count), "{name} {path:?} {piece:?}")
                });
                assert!(expected.iter().all(|(piece, &count)| counts.count(piece) == count));
            }
        }
        let none = PieceCounts::new(scheme);
        assert!(none.is_empty() && none.count(b"a") == 0 && none.count(&[b'a'; 40]) == 0);
    }
}
