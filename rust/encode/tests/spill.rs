//! Counts that went through files are those that stayed in memory, and train the same vocabulary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use highrise_encode::count::PieceCounts;
use highrise_encode::spill::SpilledCounts;
use highrise_encode::train::train;
use highrise_encode::Scheme;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("highrise-spill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).expect("the folder").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn texts(seed: u64, count: usize) -> Vec<String> {
    let mut state = seed | 1;
    let mut draw = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..count)
        .map(|_| {
            let words = (0..30).map(|_| {
                let longest = if draw(20) == 0 { 60 } else { 6 };
                let length = 1 + draw(longest);
                (0..length).map(|_| char::from(b'a' + draw(7) as u8)).collect::<String>()
            });
            words.collect::<Vec<_>>().join(if draw(5) == 0 { " é\n" } else { " " })
        })
        .collect()
}

fn all(counts: &PieceCounts) -> BTreeMap<Vec<u8>, u64> {
    let mut result = BTreeMap::new();
    counts.for_each(|piece, count| {
        assert!(result.insert(piece.to_vec(), count).is_none(), "a piece came twice");
    });
    result
}

fn scheme() -> Scheme {
    Scheme::from_name("qwen2").expect("a known scheme")
}

#[test]
fn counts_through_files_are_the_same() {
    for (seed, most) in [(1, 200), (2, 900), (3, 1), (4, 1 << 20)] {
        let folder = Folder::new(&format!("same-{seed}"));
        let texts = texts(seed, 120);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut plain = PieceCounts::new(scheme());
        plain.add(&texts, 1);
        // room for all pieces at the end: nothing is left out
        let mut spilled = SpilledCounts::new(PieceCounts::new(scheme()), &folder.0, most);
        for part in texts.chunks(1) {
            spilled.add(part, 2).expect("a run");
        }
        assert_eq!(spilled.bytes(), plain.bytes());
        assert_eq!(spilled.num_written() > 0, most < 1 << 20);
        let spilled = spilled.with_room(usize::MAX);
        let (counts, left_out) = spilled.finish().expect("merged runs");
        assert_eq!((left_out.pieces, left_out.least), (0, 1));
        assert_eq!(all(&counts), all(&plain));
        assert_eq!(train(&counts, 600, 3, 2), train(&plain, 600, 3, 2));
        assert_eq!(folder.files(), 0);
    }
}

#[test]
fn the_rarest_are_left_out_and_told() {
    let folder = Folder::new("rarest");
    let texts = texts(7, 200);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut plain = PieceCounts::new(scheme());
    plain.add(&texts, 1);
    let most = plain.len() / 3;
    let mut spilled = SpilledCounts::new(PieceCounts::new(scheme()), &folder.0, most);
    for part in texts.chunks(7) {
        spilled.add(part, 1).expect("a run");
    }
    let (counts, left_out) = spilled.finish().expect("merged runs");
    assert!(counts.len() <= most && left_out.least > 1);
    let expected: BTreeMap<_, _> = all(&plain).into_iter().filter(|(_, count)| *count >= left_out.least).collect();
    assert_eq!(all(&counts), expected);
    assert_eq!(left_out.pieces, (plain.len() - counts.len()) as u64);
    let sum = |counts: &PieceCounts| all(counts).values().sum::<u64>();
    assert_eq!(left_out.occurrences, sum(&plain) - sum(&counts));
}

#[test]
fn a_folder_that_is_gone_is_an_error() {
    let folder = Folder::new("gone");
    let mut spilled = SpilledCounts::new(PieceCounts::new(scheme()), &folder.0.join("missing"), 1);
    let error = spilled.add(&["some words here"], 1).expect_err("no folder");
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn a_run_that_was_cut_off_is_an_error() {
    let folder = Folder::new("cut");
    let mut spilled = SpilledCounts::new(PieceCounts::new(scheme()), &folder.0, 1);
    spilled.add(&["some words here"], 1).expect("a run");
    spilled.add(&["and more words"], 1).expect("a run");
    for file in std::fs::read_dir(&folder.0).expect("the folder") {
        let path = file.expect("a file").path();
        let length = path.metadata().expect("its size").len();
        std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(length - 1)).expect("cut");
    }
    let error = spilled.finish().err().expect("a file that ends too soon");
    assert!(error.to_string().contains("cannot be read"), "{error}");
}
