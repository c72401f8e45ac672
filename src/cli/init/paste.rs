//! Finds the other end's line in pasted text: in a whole command, in a wrapped or quoted line, or among characters that an editor
//! or a mail program added.

use super::line::{self, Line, RIGHT};
use crate::log;
use crate::tunnel::keys;

/// Most words after the first that can be parts of a line. Mail programs break lines at about 70 characters.
const PARTS: usize = 20;

/// Result of a search.
pub struct PeerArgument {
    /// Line of the other end, if there is one.
    pub peer: Option<Line>,
    /// Whether the line was pasted with the command that the other end printed.
    pub whole_command: bool,
}

/// Finds the line in the words of a command line: the tunnel's name, the words that belong to no option, and the values of
/// `--peer`.
///
/// # Errors
/// Message with the fault and the right form.
pub fn parse(name: &String, rest: &[String], peers: &[String]) -> Result<PeerArgument, String> {
    if peers.is_empty() {
        if let Some(line) = [name].into_iter().chain(rest).find(|word| has_line(word)) {
            return Err(format!(
                "{:?}: line of the other end without --peer; did you mean `ethudp init NAME --peer LINE`?",
                shown(line)
            ));
        }
        let peer = rest.first().map_or(Ok(None), |word| Err(unexpected(word)))?;
        return Ok(PeerArgument { peer, whole_command: false });
    }
    if let Some(own) = after_command([name].into_iter().chain(rest)).map(|words| words[0]) {
        return Err(format!(
            "`ethudp init` is followed by a whole command: run the command alone, `ethudp init {own} --peer LINE`"
        ));
    }
    let (lines, words): (Vec<_>, Vec<_>) = peers.iter().partition(|value| has_line(value));
    let words = words.into_iter().chain(rest);
    let behind = after_command(words.clone());
    let (whole_command, rest) = (behind.is_some(), behind.map_or_else(|| words.collect(), |words| words[1..].to_vec()));
    let text = |all: &[&String]| all.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ");
    let line = text(&lines);
    // The words after an incomplete line are parts of the line.
    let peer = match (find(&line), rest.first()) {
        (Ok(_), Some(word)) => return Err(unexpected(word)),
        (found, None) => found?,
        (Err(_), Some(_)) => find(&format!("{line} {}", text(&rest)))?,
    };
    Ok(PeerArgument { peer: Some(peer), whole_command })
}

/// Whether a line of this release or an older one begins in a word.
pub fn has_line(word: &str) -> bool {
    word.contains(line::BEGIN) || word.contains(line::OLDER)
}

/// Words after `ethudp init`, the first of them the tunnel's name, if the words begin as the command that `ethudp init` prints.
fn after_command<'a>(words: impl Iterator<Item = &'a String>) -> Option<Vec<&'a String>> {
    const BEFORE: [&str; 9] = ["$", "#", "sudo", "ethudp:", "run", "at", "the", "other", "end:"];
    let mut words = words.skip_while(|word| BEFORE.contains(&word.as_str()));
    let command = words.next()? == "ethudp" && words.next()? == "init";
    let behind: Vec<_> = words.collect();
    (command && !behind.is_empty()).then_some(behind)
}

fn unexpected(word: &str) -> String {
    format!("unexpected argument {word:?}; `ethudp init --help` lists the options")
}

/// Finds the line in a text.
///
/// # Errors
/// Message with the fault and the right form.
pub fn find(text: &str) -> Result<Line, String> {
    let seen: String = text.chars().filter(|&c| c.is_whitespace() || !log::is_unseen(c)).map(plain).collect();
    let words: Vec<_> = seen.split_whitespace().collect();
    let (mut found, mut begun): (Vec<Line>, Option<&str>) = (Vec::new(), None);
    for (number, word) in words.iter().enumerate() {
        let Some(at) = word.find(line::BEGIN) else { continue };
        begun.get_or_insert(&word[at..]);
        let mut whole = String::new();
        for part in [&word[at..]].iter().chain(words[number + 1..].iter().take(PARTS)) {
            // Quoted-printable breaks lines with `=`.
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
        ([_, ..], _) => Err(format!("--peer: contains two different lines; {RIGHT}")),
        ([], Some(begun)) => Err(broken(begun, &words)),
        ([], None) => Err(none(&words)),
    }
}

/// Replaces quotes, brackets and marks around a line by spaces.
fn plain(c: char) -> char {
    let around = "'\"`<>()[]{}*|,;!.\u{ab}\u{bb}\u{2018}\u{2019}\u{201a}\u{201b}\u{201c}\u{201d}\u{201e}\u{201f}\u{2039}\u{203a}";
    if around.contains(c) { ' ' } else { c }
}

/// Message about an incomplete or changed line.
fn broken(begun: &str, words: &[&str]) -> String {
    let odd = begun.chars().skip(line::BEGIN.len()).position(|c| !c.is_ascii_alphanumeric() && !"-_=".contains(c));
    if let Some(place) = odd {
        let c = begun.chars().nth(line::BEGIN.len() + place).unwrap_or_default();
        return format!(
            "--peer {:?}: invalid character {c:?} (U+{:04X}), the {} of the line; {RIGHT}",
            shown(begun),
            u32::from(c),
            ordinal(line::BEGIN.len() + place + 1)
        );
    }
    let all: String = words.concat();
    line::parse(if all.starts_with(line::BEGIN) { &all } else { begun })
        .map_or_else(|error| error, |_| format!("--peer {:?}: cut or changed (wrong checksum); {RIGHT}", shown(begun)))
}

/// Message about a text without a line.
fn none(words: &[&str]) -> String {
    let all = words.join(" ");
    if words.len() == 1 && keys::parse("", all.as_bytes()).is_ok() {
        // The message does not show the key, which may be a private one.
        return format!("--peer: a key, not a line; {RIGHT}");
    }
    if let Some(at) = all.find(line::OLDER) {
        return line::older_release(&shown(&all[at..]));
    }
    if all.to_ascii_lowercase().contains(line::BEGIN) {
        return format!("--peer {:?}: changed to upper case; {RIGHT}", shown(&all));
    }
    line::parse(&all).map_or_else(|error| error, |_| format!("--peer: {RIGHT}"))
}

/// Beginning of a text that may be long.
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
        let inner = vec![("10.8.0.1".parse().unwrap(), 24)];
        Line { joins: false, key, tunnel: [7; 8], slot: 0, inner, endpoint }.to_string()
    }

    #[test]
    fn line_is_found_in_pasted_text() {
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
    fn pasted_old_line_is_recognised() {
        let older = example().replace(line::BEGIN, line::OLDER);
        for text in [older.clone(), format!("ethudp init site --peer {older}"), format!("> \"{older}\"")] {
            let error = find(&text).unwrap_err();
            assert!(
                error.contains("older ethudp; install this release at the other end, run `ethudp init`"),
                "{error}"
            );
        }
    }

    #[test]
    fn line_errors_are_named() {
        let line = example();
        let other = Line { joins: true, inner: Vec::new(), ..line::parse(&line).unwrap() }.to_string();
        for (text, words) in [
            (line.to_ascii_uppercase(), ": changed to upper case"),
            (
                line.replace('-', "\u{2013}").replacen("ethudp2:A", "ethudp2:\u{2013}", 1),
                "character '\u{2013}' (U+2013), the 9th",
            ),
            (line.replace("ethudp2:", "ethudp3:"), "line of another version"),
            (line[..line.len() - 4].to_owned(), "cut or changed"),
            (format!("{line} {other}"), "two different lines"),
            ("hello".into(), "not a line of `ethudp init`"),
            (String::new(), "not a line of `ethudp init`"),
            (format!("{}A", "x".repeat(100_000)), "too long ("),
        ] {
            let error = find(&text).unwrap_err();
            assert!(error.contains(words) && error.contains("must be the whole line"), "{text:.80}: {error}");
            assert!(error.len() < 400, "{error}");
        }
        let key = keys::text(&[9; 32]);
        let error = find(&key).unwrap_err();
        assert!(error.contains(": a key, not a line") && !error.contains(key.as_str()), "{error}");
    }
}
