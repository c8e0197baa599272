//! The repository's own Rust files, as the tests about them read them. Invariant: `Source::code` has as many
//! lines as the file, with comments and the insides of literals taken out, so that a word found there is code.
#![allow(dead_code, reason = "each test that reads the files uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders with Rust of ours, from the root of the repository.
const ROOTS: [&str; 5] = ["src", "shards", "loadtest", "benches", "tests"];
/// Folders below them that hold what was built or found, not written.
const BUILT: [&str; 3] = ["target", "corpus", "artifacts"];

/// One Rust file.
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The file without comments and without what stands in literals.
    pub(crate) code: String,
}

/// Root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the repository, by path.
pub(crate) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ROOTS {
        walk(&root().join(folder), &mut paths);
    }
    paths.sort_unstable();
    assert!(paths.len() > 100, "only {} files: the walk has lost its way", paths.len());
    paths.iter().map(|path| read(path)).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !BUILT.contains(&name) {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a file of ours is UTF-8");
    let short = path.strip_prefix(root()).expect("below the root");
    Source { path: short.to_string_lossy().into_owned(), code: bare(&text), text }
}

/// Takes comments and the insides of literals out; line breaks stay.
pub(crate) fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.push(b' ');
            code.extend(bytes[at..end].iter().filter(|byte| **byte == b'\n'));
            at = end;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// End of the comment or literal that begins at `at`; `at` itself where none does.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let is_inside_word = at > 0 && is_word(bytes[at - 1]);
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest),
        [b'r', b'"' | b'#', ..] if !is_inside_word || bytes[at - 1] == b'b' => raw_string(rest),
        [b'\'', b'\\', _, ..] => {
            3 + rest[3..].iter().position(|byte| *byte == b'\'').map_or(0, |n| n + 1)
        }
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    };
    at + length
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r"..."`, `r#"..."#`; 0 for a raw identifier such as `r#type`.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(vec![b'#'; hashes]).collect();
    let body = &rest[2 + hashes..];
    let length = body.windows(end.len()).position(|window| window == end);
    2 + hashes + length.map_or(body.len(), |length| length + end.len())
}

/// May `byte` stand in an identifier?
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Byte offsets at which `word` stands in `code` as a whole word, or path, of its own.
pub(crate) fn occurrences<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|at| code.as_bytes()[at]);
        let after = code.as_bytes().get(at + word.len()).copied();
        let begins = word.starts_with(|c: char| !c.is_alphanumeric());
        let ends = word.ends_with(|c: char| !c.is_alphanumeric());
        (begins || !before.is_some_and(is_word)) && (ends || !after.is_some_and(is_word))
    })
}

/// Number of the line that holds the byte at `at`.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].bytes().filter(|byte| *byte == b'\n').count()
}

#[test]
fn only_code_is_left_of_a_text() {
    let text =
        "a // b\n\"c\\\"d\" r#\"e\"f\"# 'g' '\\'' &'h str /* i /* j */ k */ l br\"m\" r#type";
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.len() > 10);
    let left = bare(text);
    assert_eq!(
        left.split_whitespace().collect::<Vec<_>>(),
        ["a", "&'h", "str", "l", "b", "r#type"]
    );
    assert_eq!(left.lines().count(), text.lines().count());
    assert_eq!(occurrences("x todo! my_todo! todo!(", "todo!").count(), 2);
    assert_eq!(occurrences("Instant::nowhere Instant::now()", "Instant::now").count(), 1);
}
