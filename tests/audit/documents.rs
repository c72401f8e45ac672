//! Documents and sources: words that CONTRIBUTING bans, and links.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that have a noun of the field in their place.
const BANNED: [&str; 4] = ["whoever", "nobody", "somebody", ", too"];

/// All text files of the project, with their paths in it.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut directories) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap().map(|entry| entry.unwrap()) {
            let path = directory.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            let skipped = [".git", "target", "corpus", "seeds", "vectors", "captures"].map(Path::new);
            if kind.is_dir() && !skipped.iter().any(|name| path.ends_with(name)) {
                directories.push(path);
            } else if let Some(text) = fs::read_to_string(root.join(&path)).ok().filter(|_| kind.is_file()) {
                found.push((path.to_str().unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// How often a banned word stands in a text; line breaks, and the signs that begin a comment, count as one space.
fn banned(text: &str) -> usize {
    let words = text.split_whitespace().filter(|word| !matches!(*word, "//" | "///" | "//!" | "#" | "\\"));
    let text = format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase());
    let ends = |rest: &str| rest.starts_with([' ', '_', '.', ',', ';', ':', '?', '!', ')', '\'']);
    // The user `nobody` may be named.
    let begins =
        |before: &str| before.ends_with([' ', '_', '(']) && !before.ends_with("user ") && !before.ends_with("as ");
    let count = |word: &str| {
        let whole = |at: usize| {
            let rest = &text[at + word.len()..];
            // "too large" and `TOO_MANY` are no "also".
            let also = word.starts_with(',') && rest.starts_with([' ', '_']);
            ends(rest) && !also && (word.starts_with(',') || begins(&text[..at]))
        };
        text.match_indices(word).filter(|(at, _)| whole(*at)).count()
    };
    BANNED.into_iter().map(count).sum()
}

#[test]
fn banned_words_are_gone() {
    assert_eq!(banned("// Whoever\n// sends, too: nobody's, (somebody) a_nobody_b"), 5);
    assert_eq!(banned("user=nobody \"nobody\", too large, TOO_MANY --user nobody"), 0);
    let others = texts().into_iter().filter(|(path, _)| path != file!());
    let counts = others.map(|(path, text)| (banned(&text), path));
    let wrong: Vec<_> = counts.filter(|(count, _)| *count > 0).collect();
    assert!(wrong.is_empty(), "{BANNED:?} in {wrong:?}; CONTRIBUTING.md has other words");
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// The lines of a document outside blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(str::lines)
}

#[test]
fn links_between_documents_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    let is_document = |path: &String| Path::new(path).extension().is_some_and(|ending| ending == "md");
    for (path, text) in texts().into_iter().filter(|(path, _)| is_document(path)) {
        let links = prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root.join(&path),
                file => root.join(&path).parent().unwrap().join(file),
            };
            assert!(target.exists(), "{path}: {link}: no such file");
            if !heading.is_empty() {
                let page = fs::read_to_string(&target).unwrap();
                let mut headings = prose(&page).filter(|line| line.starts_with('#'));
                let here = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(here, "{path}: {link}: no such heading");
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} links");
}
