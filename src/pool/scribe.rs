//! Carries what a running job says of itself to Redis: gathered, bounded, without the job's secrets.
//!
//! However chatty a job is, it costs a round trip every half a second at most, and less often the more there is to carry;
//! the last words are carried before the attempt is settled. A quiet job costs none.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Broker, Speaker};
use crate::config::{Config, JobSecrets};
use crate::handler::Notepad;
use crate::job::{Job, Line, Notes, Progress};

/// From the first word to its writing: others follow closely.
const FIRST: Duration = Duration::from_millis(100);
/// Between two writings.
const PACE: Duration = Duration::from_millis(500);
/// Bytes a second of one job.
const RATE: usize = 32 * 1024;

/// The writer of one attempt.
#[derive(Debug)]
pub(super) struct Scribe {
    broker: Arc<Broker>,
    config: Arc<Config>,
    speaker: Speaker,
    job: Arc<Job>,
    attempt: u32,
    notepad: Notepad,
    /// What the attempts before have said and this one so far; read when this one says its first word.
    notes: Option<Notes>,
    secrets: Option<JobSecrets>,
    /// There is something in `notes` that Redis does not have.
    unwritten: bool,
    /// Somebody else has the job: nothing more is written in its name.
    lost: bool,
}

impl Scribe {
    pub(super) fn new(
        broker: Arc<Broker>,
        config: Arc<Config>,
        speaker: Speaker,
        job: Arc<Job>,
        attempt: u32,
        notepad: Notepad,
    ) -> Self {
        let (notes, secrets) = (None, None);
        Self { broker, config, speaker, job, attempt, notepad, notes, secrets, unwritten: false, lost: false }
    }

    /// Writes as long as the attempt runs. May be dropped at any time: what it had taken is written by `finish`.
    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            self.notepad.news().await;
            tokio::time::sleep(if self.notes.is_none() { FIRST } else { Duration::ZERO }).await;
            let began = Instant::now();
            // On the heap, and only when there is something: the future of an attempt stays small.
            let size = Box::pin(self.write(false)).await;
            let carried = Duration::from_secs_f64(size as f64 / RATE as f64);
            tokio::time::sleep_until(began + PACE.max(carried)).await;
        }
    }

    /// The attempt is over: writes its last words. That they may not get through costs nothing else.
    pub(super) async fn finish(&mut self) {
        if self.unwritten || self.notepad.has_news(true) {
            Box::pin(self.write(true)).await;
        }
    }

    /// Returns how many bytes were carried.
    async fn write(&mut self, end: bool) -> usize {
        self.gather(end).await;
        let Some(notes) = self.notes.as_ref().filter(|_| self.unwritten && !self.lost) else { return 0 };
        match self.broker.note(&self.speaker, notes).await {
            Ok(written) => {
                self.unwritten = false;
                self.lost = !written;
            }
            Err(error) => tracing::debug!(job = %self.job.id, "writing down what the job says failed: {error}"),
        }
        notes.bytes()
    }

    /// Takes what is on the notepad over into the notes.
    async fn gather(&mut self, end: bool) {
        if self.notes.is_none() && !self.notepad.has_news(end) {
            return;
        }
        if self.notes.is_none() {
            // If they cannot be read now, what was said before is lost: it is a log, and Redis is in trouble.
            let before = self.broker.store.notes(&self.speaker.queue, &self.speaker.id).await;
            let mut notes = before.unwrap_or_default();
            notes.begin(self.attempt, self.broker.node.clone(), self.speaker.started);
            self.notes = Some(notes);
        }
        let (Some(notes), Some(page)) = (&mut self.notes, self.notepad.take(end)) else { return };
        let secrets = self.secrets.get_or_insert_with(|| {
            JobSecrets::of(self.config.tasks.get(&self.job.task).map(AsRef::as_ref), &self.job.args)
        });
        let masked = |line: Line| Line { text: secrets.text(&line.text), ..line };
        notes.add(page.left_out, page.lines.into_iter().map(masked));
        if let (Some(section), Some(progress)) = (notes.latest_mut(), page.progress) {
            let message = progress.message.map(|message| secrets.text(&message));
            section.progress = Some(Progress { message, ..progress });
        }
        self.unwritten = true;
    }
}
