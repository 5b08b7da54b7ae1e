//! Texts for messages and reports: what others wrote, and lists of names.

/// Most characters of a foreign text that a message repeats.
const MAX_EXCERPT_CHARACTERS: usize = 100;
/// Most names that a message repeats.
const MAX_LISTED_NAMES: usize = 4;

/// A foreign text, cut so that it cannot fill a message and escaped so that it cannot move the cursor.
pub(super) fn excerpt(text: &str) -> String {
    let start = text.chars().take(MAX_EXCERPT_CHARACTERS);
    start.flat_map(char::escape_debug).collect()
}

/// At most `limit` characters of the text; if it is cut, the last of them is an ellipsis.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// `'a', 'b' and 2 more`, or `none`.
#[must_use]
pub fn quoted_list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let listed: Vec<String> = names
        .iter()
        .take(MAX_LISTED_NAMES)
        .map(|name| format!("'{name}'"))
        .collect();
    match names.len().saturating_sub(MAX_LISTED_NAMES) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        assert_eq!(excerpt("a\u{1b}[31m\n\u{202e}ä"), "a\\u{1b}[31m\\n\\u{202e}ä");
        assert_eq!(excerpt(&"x".repeat(1000)).len(), MAX_EXCERPT_CHARACTERS);
    }

    #[test]
    fn a_truncated_text_shows_that_it_is_cut() {
        assert_eq!(truncate("äöü", 3), "äöü");
        assert_eq!(truncate("äöüß", 3), "äö…");
    }

    #[test]
    fn a_list_of_names_counts_what_it_leaves_out() {
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(quoted_list(&[]), "none");
        assert_eq!(quoted_list(&names[..2]), "'a', 'b'");
        assert_eq!(quoted_list(&names), "'a', 'b', 'c', 'd' and 1 more");
    }
}
