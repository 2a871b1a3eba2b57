//! Replays the corpus of every fuzz target, and random changes of it. `cargo fuzz run NAME` in tests/fuzz looks further; what it finds is
//! added to tests/fuzz/corpus/NAME.

#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// Changes tried of each sample.
const CHANGES: usize = 300;

/// One, two or a few changes of a sample: bytes that grammars turn on are set, put in, cut out or repeated.
fn changed(sample: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\0 \t:;,=\"\\/%.-+0fF\x7f\x80\xff";
    let mut bytes = sample.to_vec();
    for _ in 0..dice.usize(1..6) {
        let at = dice.usize(..=bytes.len());
        let byte = TELLING[dice.usize(..TELLING.len())];
        match dice.u8(..5) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => {
                let end = dice.usize(at..=bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {}
        }
    }
    bytes
}

/// Fails the test with the bytes that broke the target.
fn survives(name: &str, target: targets::Target, bytes: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(bytes));
    assert!(outcome.is_ok(), "{name} breaks on \"{}\"", bytes.escape_ascii());
}

#[test]
fn no_reader_of_foreign_bytes_breaks_on_the_corpus_or_near_it() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    // A fixed seed: a failure comes again.
    let mut dice = fastrand::Rng::with_seed(7);
    for (name, target) in targets::ALL {
        let folder = corpus.join(name);
        let samples =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut samples: Vec<_> = samples.map(|entry| entry.expect("a readable folder").path()).collect();
        samples.sort();
        assert!(!samples.is_empty(), "{name} has no corpus");
        for path in samples {
            let sample = std::fs::read(&path).expect("a readable sample");
            survives(name, *target, &sample);
            for _ in 0..CHANGES {
                survives(name, *target, &changed(&sample, &mut dice));
            }
        }
    }
}
