//! The text of the file: from byte offsets to lines and columns, and a line as it may be shown.

use std::ops::Range;

use super::diagnostic::{Excerpt, shown};

/// Bytes of the text.
pub(super) type Place = Range<usize>;

/// Longest part of a line that is shown, in characters.
const SHOWN: usize = 160;

/// The text, and where in it secrets stand.
#[derive(Debug)]
pub(super) struct Source<'t> {
    text: &'t str,
    secrets: Vec<Place>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str, mut secrets: Vec<Place>) -> Self {
        secrets.sort_by_key(|place| place.start);
        Self { text, secrets }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let start = self.line_start(offset);
        let line = 1 + self.text[..start].matches('\n').count();
        let column = 1 + self.text[start..self.floor(offset)].chars().count();
        (line, column)
    }

    /// The line on which `place` begins, with the part of it that lies in the place.
    pub(super) fn excerpt(&self, place: &Place) -> Excerpt {
        let start = self.line_start(place.start);
        let end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        let mut text = Vec::new();
        let (mut before, mut width) = (0, 0);
        let mut masked = None;
        for (at, character) in self.text[start..end].char_indices() {
            let at = start + at;
            let secret = self.secrets.iter().position(|secret| secret.contains(&at));
            if secret.is_some() && secret == masked {
                continue;
            }
            masked = secret;
            let stands_for: &[char] = if secret.is_some() { &['*', '*', '*'] } else { &[shown(character)] };
            match () {
                () if at < place.start => before += stands_for.len(),
                () if at < place.end => width += stands_for.len(),
                () => {}
            }
            text.extend_from_slice(stands_for);
        }
        window(&text, before, width.max(1))
    }

    /// A message about `place` without the words of secrets that stand there: a parser's own message may quote them.
    pub(super) fn redacted(&self, place: &Place, message: &str) -> String {
        let touched = self.secrets.iter().filter(|secret| secret.start < place.end && place.start < secret.end);
        let words = touched
            .flat_map(|secret| self.text.get(secret.clone()).unwrap_or_default().split(|c: char| !c.is_alphanumeric()));
        words.filter(|word| word.len() >= 4).fold(message.to_owned(), |message, word| message.replace(word, "***"))
    }

    fn line_start(&self, offset: usize) -> usize {
        self.text[..self.floor(offset)].rfind('\n').map_or(0, |at| at + 1)
    }

    /// The offset itself, or the start of the character that it cuts.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// The part of a long line around what is meant.
fn window(text: &[char], start: usize, width: usize) -> Excerpt {
    let cut = start.saturating_sub(SHOWN / 2);
    let mut shown = String::new();
    if cut > 0 {
        shown.push('…');
    }
    shown.extend(text.iter().skip(cut).take(SHOWN));
    if text.len() > cut + SHOWN {
        shown.push('…');
    }
    let start = start - cut + usize::from(cut > 0);
    Excerpt { text: shown, start, width: width.min(SHOWN.saturating_sub(start).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = Source::new("a = 1\nü = 'é' x\n", vec![]);
        let x = source.text.find('x').expect("it is there");
        assert_eq!(source.position(x), (2, 9));
        assert_eq!(source.position(9999), (3, 1), "the end, when the offset lies behind it");
    }

    #[test]
    fn a_masked_value_keeps_the_caret_in_place() {
        let text = "password = \"hunter2\", port = 0";
        let source = Source::new(text, std::iter::once(12..19).collect());
        let port = text.find("port").expect("it is there");
        let excerpt = source.excerpt(&(port..port + 4));
        assert_eq!(excerpt.text, "password = \"***\", port = 0");
        assert_eq!(&excerpt.text[excerpt.start..excerpt.start + excerpt.width], "port");
    }

    #[test]
    fn a_long_line_is_cut_around_its_problem() {
        let text = format!("{} = X{}", "k".repeat(500), "y".repeat(500));
        let source = Source::new(&text, vec![]);
        let excerpt = source.excerpt(&(503..504));
        assert_eq!(excerpt.text.chars().nth(excerpt.start), Some('X'));
        assert!(excerpt.text.chars().count() <= SHOWN + 2);
    }
}
