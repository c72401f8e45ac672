//! Text without effect on a terminal.

/// Whether a terminal obeys a character or shows nothing for it: control characters, changes of writing direction, invisible
/// characters.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Text from an untrusted process: at most 300 characters, without any that a terminal obeys.
pub fn untrusted(text: &str) -> String {
    text.chars().take(300).map(|c| if is_unseen(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_moves_no_terminal() {
        let text = "a\u{1b}[2J\nb\u{202e}c\u{61c}d\u{ad}e\u{feff}f\u{e0041}\u{e0101}\u{fe0f}g\u{fff9}\u{9b}é漢";
        assert_eq!(untrusted(text), "a [2J b c d e f   g  é漢");
        assert_eq!(untrusted(&"x".repeat(1000)).len(), 300);
    }
}
