//! What a member does for the parent while it serves: goes over to another configuration, answers questions.

use std::sync::{Arc, Mutex, PoisonError};

use annulus::Handle;

use super::super::figures;
use super::super::line::Frame;
use super::super::orders::{Up, understood};
use super::{Change, Member};
use crate::exit::Failure;
use crate::service::generation::Generation;
use crate::service::on_core;
use crate::service::on_cores::on_all;
use crate::service::times::Times;

/// What a member does while it serves.
pub(crate) struct OfMember {
    member: Arc<Member>,
    cores: Handle,
    times: Arc<Times>,
    /// What the cores have been made ready for.
    prepared: Mutex<Option<Arc<Generation>>>,
}

impl OfMember {
    /// For the runtime behind `cores`.
    pub(crate) fn new(member: Arc<Member>, cores: Handle, times: Arc<Times>) -> Arc<Self> {
        Arc::new(OfMember { member, cores, times, prepared: Mutex::new(None) })
    }

    /// Does it on a thread of its own, and tells the parent what came of it. The parent waits for that
    /// before it wants the next change.
    pub(crate) fn begin(self: &Arc<Self>, change: Change) {
        let this = Arc::clone(self);
        // Who asks waits for an answer, and a change that is under way is not refused with it.
        let number =
            if let Change::Ask(question) = &change { question.first_chunk::<8>().copied() } else { None };
        let thread = std::thread::Builder::new().name("change".to_owned());
        if let Err(error) = thread.spawn(move || this.run(change)) {
            match number {
                Some(number) => self.member.answer(Up::Answer, &number),
                None => {
                    self.member.answer(Up::Refused, format!("no thread can be started: {error}").as_bytes())
                }
            }
        }
    }

    fn run(&self, change: Change) {
        match change {
            Change::Prepare(frame) => match self.prepare(frame) {
                Ok(()) => self.member.answer(Up::Prepared, &[]),
                Err(why) => self.member.answer(Up::Refused, why.as_bytes()),
            },
            Change::Commit => {
                let committed = on_all(&self.cores, || async move || on_core::commit());
                if let Some(generation) = self.prepared().take() {
                    self.times.set(&generation.config.program);
                }
                let said = committed.err().map_or_else(String::new, |failure| failure.to_string());
                self.member.answer(Up::Committed, said.as_bytes());
            }
            Change::Abandon => self.abandon(),
            Change::Ask(question) => {
                // Before the question stands its number, and so it does before the answer.
                let (number, question) = question.split_at(question.len().min(8));
                let answer = [number, &figures::answer(question)].concat();
                self.member.answer(Up::Answer, &answer);
            }
        }
    }

    fn prepare(&self, frame: Frame) -> Result<(), String> {
        let (generation, _) = understood(frame)?;
        let generation = Arc::new(generation);
        let prepared = on_all(&self.cores, || {
            let generation = Arc::clone(&generation);
            async move || on_core::prepare(generation).await
        });
        prepared.map_err(|failure: Failure| {
            self.abandon();
            failure.to_string()
        })?;
        *self.prepared() = Some(generation);
        Ok(())
    }

    fn abandon(&self) {
        let abandoned = on_all(&self.cores, || {
            async move || {
                on_core::abandon();
                Ok(())
            }
        });
        if let Err(failure) = abandoned {
            tracing::debug!(%failure, "a core has nothing to forget any more");
        }
        *self.prepared() = None;
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, Option<Arc<Generation>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
