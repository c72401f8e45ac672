//! The line of another end in what was pasted: a whole command, a line that was wrapped or quoted, with characters that an editor
//! or a mail program has put there.

use super::line::{self, Line, RIGHT};
use crate::log;
use crate::tunnel::keys;

/// Words behind the first that can be parts of a line: a mail program breaks lines at some 70 characters.
const PARTS: usize = 20;

/// Finds the line.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn find(text: &str) -> Result<Line, String> {
    let seen: String = text.chars().filter(|&c| c.is_whitespace() || !log::is_unseen(c)).map(plain).collect();
    let words: Vec<_> = seen.split_whitespace().collect();
    let (mut found, mut begun): (Vec<Line>, Option<&str>) = (Vec::new(), None);
    for (number, word) in words.iter().enumerate() {
        let Some(at) = word.find(line::BEGIN) else { continue };
        begun.get_or_insert(&word[at..]);
        let mut whole = String::new();
        for part in [&word[at..]].iter().chain(words[number + 1..].iter().take(PARTS)) {
            // As quoted-printable breaks lines.
            whole += part.trim_end_matches('=');
            if let Ok(line) = line::parse(&whole) {
                found.push(line);
                break;
            }
        }
    }
    match (&found[..], begun) {
        ([line], _) => Ok(line.clone()),
        ([first, rest @ ..], _) if rest.iter().all(|other| other == first) => Ok(first.clone()),
        ([_, ..], _) => Err(format!("--peer: has two different lines in it; {RIGHT}")),
        ([], Some(begun)) => Err(broken(begun, &words)),
        ([], None) => Err(none(&words)),
    }
}

/// Quotes, brackets and marks around a line are not of it.
fn plain(c: char) -> char {
    let around = "'\"`<>()[]{}*|,;!.\u{ab}\u{bb}\u{2018}\u{2019}\u{201a}\u{201b}\u{201c}\u{201d}\u{201e}\u{201f}\u{2039}\u{203a}";
    if around.contains(c) { ' ' } else { c }
}

/// A line that has begun and is none.
fn broken(begun: &str, words: &[&str]) -> String {
    let odd = begun.chars().skip(line::BEGIN.len()).position(|c| !c.is_ascii_alphanumeric() && !"-_=".contains(c));
    if let Some(place) = odd {
        let c = begun.chars().nth(line::BEGIN.len() + place).unwrap_or_default();
        return format!(
            "--peer {:?}: character {c:?} (U+{:04X}), the {} of the line, cannot be in it; {RIGHT}",
            shown(begun),
            u32::from(c),
            ordinal(line::BEGIN.len() + place + 1)
        );
    }
    let all: String = words.concat();
    line::parse(if all.starts_with(line::BEGIN) { &all } else { begun })
        .map_or_else(|error| error, |_| format!("--peer {:?}: has been cut or changed; {RIGHT}", shown(begun)))
}

/// What has no line in it.
fn none(words: &[&str]) -> String {
    let all = words.join(" ");
    if words.len() == 1 && keys::parse("", all.as_bytes()).is_ok() {
        // It may be a private one.
        return format!("--peer: is a key, not a line; {RIGHT}");
    }
    if all.to_ascii_lowercase().contains(line::BEGIN) {
        return format!("--peer {:?}: was changed to upper case; upper and lower case matter: {RIGHT}", shown(&all));
    }
    line::parse(&all).map_or_else(|error| error, |_| format!("--peer: {RIGHT}"))
}

/// The beginning of what may be long.
pub fn shown(text: &str) -> String {
    let begin: String = text.chars().take(60).collect();
    if begin.len() < text.len() { begin + "..." } else { begin }
}

fn ordinal(number: usize) -> String {
    let end = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        let (endpoint, key) = (line::endpoint("198.51.100.7:6000").ok(), keys::public(&[7; 32]));
        Line { joins: false, key, inner: vec![("10.8.0.1".parse().unwrap(), 24)], endpoint }.to_string()
    }

    #[test]
    fn a_line_is_found_in_what_was_pasted() {
        let line = example();
        let (begin, end) = line.split_at(60);
        let expected = line::parse(&line);
        for text in [
            line.clone(),
            format!("ethudp: at the other end: ethudp init site --peer {line}"),
            format!("ethudp init site --peer {line} --dir /etc/ethudp"),
            format!("{line}\n{line}\n"),
            format!("{begin} {end}"),
            format!("{begin}=\n{end}"),
            format!("> {begin}\n> {end}\n"),
            format!("> > {line}"),
            format!("\"{line}\""),
            format!("\u{201c}{line}\u{201d}"),
            format!("\u{2018}{line}\u{2019}."),
            format!("<{line}>"),
            format!("`{line}`"),
            format!("\u{feff}{line}"),
            format!("{begin}\u{200b}{end}"),
            format!("{begin}\u{ad}{end}"),
            format!("\u{a0}{line}\u{a0}"),
            format!("**{line}**,"),
        ] {
            assert_eq!(find(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let line = example();
        let other = Line { joins: true, inner: Vec::new(), ..line::parse(&line).unwrap() }.to_string();
        for (text, words) in [
            (line.to_ascii_uppercase(), "was changed to upper case"),
            (
                line.replace('-', "\u{2013}").replacen("ethudp1:A", "ethudp1:\u{2013}", 1),
                "character '\u{2013}' (U+2013), the 9th",
            ),
            (line.replace("ethudp1:", "ethudp2:"), "is of another version"),
            (line[..line.len() - 4].to_owned(), "has been cut or changed"),
            (format!("{line} {other}"), "two different lines"),
            ("hello".into(), "is no such line"),
            (String::new(), "is no such line"),
            (format!("{}A", "x".repeat(100_000)), "more than any such line"),
        ] {
            let error = find(&text).unwrap_err();
            assert!(error.contains(words) && error.contains("must be the whole line"), "{text:.80}: {error}");
            assert!(error.len() < 400, "{error}");
        }
        let key = keys::text(&[9; 32]);
        let error = find(&key).unwrap_err();
        assert!(error.contains("is a key, not a line") && !error.contains(key.as_str()), "{error}");
    }
}
