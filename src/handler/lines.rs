//! The output of a program line by line, as it comes: what is heard, and what of it is kept for the program's answer.

use super::notepad::RAW_LINE;

/// What becomes of a line that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It belongs to what the program says.
    Kept,
    /// It was meant for us alone.
    Taken,
}

/// One output of a program. A carriage return ends a line too: so that a progress bar is seen while it grows.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of the line that is not over yet.
    line: Vec<u8>,
    /// Bytes of it that did not fit, of a line that is too long to be anything but kept.
    beyond: u64,
    /// What became of the line before, if a carriage return ended it: a line feed may belong to that.
    returned: Option<Heard>,
}

impl Lines {
    /// Takes what came. `hear` is told of each line that is over, with the bytes that it had beyond what is told;
    /// `keep` gets what is kept, byte by byte as it came.
    pub(super) fn feed(
        &mut self,
        chunk: &[u8],
        hear: &mut dyn FnMut(&[u8], u64) -> Heard,
        keep: &mut dyn FnMut(&[u8]),
    ) {
        for part in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            match part.split_last() {
                Some((end @ (b'\n' | b'\r'), rest)) => {
                    self.add(rest, keep);
                    self.end(*end, hear, keep);
                }
                _ => self.add(part, keep),
            }
        }
    }

    /// The output is over, and with it its last line.
    pub(super) fn finish(&mut self, hear: &mut dyn FnMut(&[u8], u64) -> Heard, keep: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() && self.tell(hear) == Heard::Kept && self.beyond == 0 {
            keep(&self.line);
        }
    }

    fn add(&mut self, part: &[u8], keep: &mut dyn FnMut(&[u8])) {
        let room = RAW_LINE - self.line.len();
        if self.beyond == 0 && part.len() <= room {
            self.line.extend_from_slice(part);
            return;
        }
        if self.beyond == 0 {
            keep(&self.line);
        }
        keep(part);
        let (told, rest) = part.split_at(room.min(part.len()));
        self.line.extend_from_slice(told);
        self.beyond += rest.len() as u64;
    }

    fn end(&mut self, end: u8, hear: &mut dyn FnMut(&[u8], u64) -> Heard, keep: &mut dyn FnMut(&[u8])) {
        let is_second_half = end == b'\n' && self.line.is_empty();
        let heard = match self.returned.take().filter(|_| is_second_half) {
            Some(heard) => heard,
            None => {
                let heard = self.tell(hear);
                self.returned = (end == b'\r').then_some(heard);
                if heard == Heard::Kept && self.beyond == 0 {
                    keep(&self.line);
                }
                heard
            }
        };
        if heard == Heard::Kept {
            keep(&[end]);
        }
        self.line.clear();
        self.beyond = 0;
    }

    /// A line whose beginning is kept already cannot be taken any more.
    fn tell(&self, hear: &mut dyn FnMut(&[u8], u64) -> Heard) -> Heard {
        let heard = hear(&self.line, self.beyond);
        if self.beyond > 0 { Heard::Kept } else { heard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the output in pieces of this size; gives the lines that were heard, and what was kept.
    fn fed(output: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
        let (mut lines, mut heard, mut kept) = (Lines::default(), Vec::new(), Vec::new());
        let mut hear = |line: &[u8], beyond: u64| {
            let text = String::from_utf8_lossy(line).into_owned();
            let taken = text.starts_with('!');
            heard.push(if beyond > 0 { format!("{}+{beyond}", text.len()) } else { text });
            if taken { Heard::Taken } else { Heard::Kept }
        };
        let mut keep = |bytes: &[u8]| kept.extend_from_slice(bytes);
        for chunk in output.chunks(piece) {
            lines.feed(chunk, &mut hear, &mut keep);
        }
        lines.finish(&mut hear, &mut keep);
        (heard, kept)
    }

    #[test]
    fn lines_are_heard_and_what_is_not_taken_is_kept_as_it_came() {
        let long = "x".repeat(RAW_LINE + 7);
        let output = format!("{{\n\n!one\n  \"a\": 1\r\n!two\r\n10%\r20%\r!three\r30%\n!{long}\n}}");
        let kept = format!("{{\n\n  \"a\": 1\r\n10%\r20%\r30%\n!{long}\n}}");
        for piece in [1, 2, 3, 7, 4096, 1 << 20] {
            let (heard, left) = fed(output.as_bytes(), piece);
            let told: Vec<&str> = heard.iter().map(String::as_str).collect();
            let beyond = format!("{RAW_LINE}+8");
            assert_eq!(
                told,
                ["{", "", "!one", "  \"a\": 1", "!two", "10%", "20%", "!three", "30%", &beyond, "}"],
                "in pieces of {piece}"
            );
            assert_eq!(String::from_utf8_lossy(&left), kept, "in pieces of {piece}");
        }
        assert_eq!(fed(b"!last", 1), (vec!["!last".to_owned()], Vec::new()));
        assert_eq!(fed(b"", 1), (Vec::new(), Vec::new()));
    }
}
