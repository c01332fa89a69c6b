//! What a handler writes down for those who watch its job: progress, and lines of log and output.
//!
//! Whoever runs the attempt takes it from here and carries it to Redis, as often as it likes: however much a program
//! says, only its last words wait here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock;
use crate::job::{Line, Notes, Progress, Source};

/// Bytes of a line that are kept until its secrets are masked: more than are shown, so that a secret at the cut is still
/// whole when it is looked for.
pub(super) const RAW_LINE: usize = 2 * Notes::LINE;
/// Characters of a message beside the percentage.
const MESSAGE: usize = 200;

/// One attempt's notepad. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notepad(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    page: Mutex<Page>,
    news: Notify,
}

/// What was written since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub lines: VecDeque<Line>,
    /// Lines before these that did not fit.
    pub left_out: u64,
    /// How far the attempt is, when that has changed.
    pub progress: Option<Progress>,
    bytes: usize,
    /// The step that runs, of a task that has several.
    step: Option<(usize, usize)>,
    /// It holds more than that a step has begun, which is not worth a round trip of its own.
    is_worth_it: bool,
}

impl Notepad {
    /// How far the step is, and what it does now.
    pub(super) fn progress(&self, percent: Option<u8>, message: Option<&str>) {
        let mut page = self.page();
        let message = message.map(|message| line_of(message).chars().take(MESSAGE).collect());
        let percent = percent.map(|percent| percent.min(100));
        page.progress = Some(Progress { at: clock::now(), percent, message, step: page.step });
        self.tell(page);
    }

    /// A line of the handler's own.
    pub(super) fn log(&self, text: &str) {
        self.line(Source::Log, line_of(text), 0);
    }

    /// A line of a program's output; of a long one `beyond` more bytes were not even looked at.
    pub(super) fn output(&self, source: Source, line: &[u8], beyond: u64) {
        self.line(source, line_of(&String::from_utf8_lossy(line)), beyond);
    }

    /// A step begins.
    pub(super) fn step(&self, number: usize, of: usize) {
        let mut page = self.page();
        page.step = Some((number, of));
        page.progress = Some(Progress { at: clock::now(), percent: None, message: None, step: page.step });
        drop(page);
        self.0.news.notify_one();
    }

    /// Waits until something was written.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Whether [`Notepad::take`] would give something.
    pub(crate) fn has_news(&self, end: bool) -> bool {
        self.page().is_to_be_taken(end)
    }

    /// What was written since. At the `end` of the attempt, only if it is worth a round trip.
    pub(crate) fn take(&self, end: bool) -> Option<Page> {
        let mut page = self.page();
        if !page.is_to_be_taken(end) {
            return None;
        }
        let step = page.step;
        Some(std::mem::replace(&mut *page, Page { step, ..Page::default() }))
    }

    fn line(&self, source: Source, mut text: String, beyond: u64) {
        if beyond > 0 {
            text += &format!(" … and {beyond} bytes more");
        }
        let mut page = self.page();
        page.bytes += text.len();
        page.lines.push_back(Line { at: clock::now(), source, text });
        while page.lines.len() > Notes::LINES || page.bytes > 2 * Notes::BYTES {
            let gone = page.lines.pop_front().map_or(0, |line| line.text.len());
            page.bytes -= gone;
            page.left_out += 1;
        }
        self.tell(page);
    }

    fn tell(&self, mut page: MutexGuard<'_, Page>) {
        page.is_worth_it = true;
        drop(page);
        self.0.news.notify_one();
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // A panic while it was locked cannot have left it worse than half a line short.
        self.0.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn is_to_be_taken(&self, end: bool) -> bool {
        (self.progress.is_some() || !self.lines.is_empty()) && (self.is_worth_it || !end)
    }
}

/// A text without what a terminal would obey: colours and other control sequences.
fn line_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.trim_end_matches(['\n', '\r']).chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // Up to the byte that ends the sequence.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\t' => out.push('\t'),
            '\n' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_written_down() {
        assert_eq!(line_of("\u{1b}[31mred\u{1b}[0m\tand\u{7} plain\r\n"), "red\tand plain");
        assert_eq!(line_of("cut off \u{1b}[3"), "cut off ");
    }

    #[test]
    fn however_much_is_said_only_the_last_words_wait() {
        let pad = Notepad::default();
        (0..10_000).for_each(|n| pad.output(Source::Stdout, format!("line {n}").as_bytes(), 0));
        let page = pad.take(false).expect("something");
        assert_eq!((page.lines.len(), page.left_out), (Notes::LINES, 10_000 - Notes::LINES as u64));
        assert_eq!(page.lines.back().map(|line| line.text.as_str()), Some("line 9999"));
        (0..1_000).for_each(|_| pad.output(Source::Stderr, &[b'x'; RAW_LINE], 0));
        assert!(pad.take(true).expect("something").lines.len() <= 2 * Notes::BYTES / RAW_LINE);
        assert!(pad.take(true).is_none());
    }

    #[test]
    fn that_a_step_began_is_told_while_it_runs_and_not_for_its_own_sake() {
        let pad = Notepad::default();
        pad.step(2, 3);
        assert!(pad.take(true).is_none());
        assert_eq!(pad.take(false).and_then(|page| page.progress?.step), Some((2, 3)));
        pad.progress(Some(250), Some("nearly\ndone"));
        let progress = pad.take(true).and_then(|page| page.progress).expect("progress");
        assert_eq!(
            (progress.percent, progress.message.as_deref(), progress.step),
            (Some(100), Some("nearly done"), Some((2, 3)))
        );
    }
}
