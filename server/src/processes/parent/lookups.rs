//! Look-ups of names for members: one that has given up its rights asks no resolver itself.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::process::Process;
use crate::processes::figures::Members;
use crate::processes::orders::{self, Down};
use crate::proxy::names::{self, Answer, Missing};

/// The process that has asked, and the number of its question.
type Asker = (u32, [u8; 8]);

/// An answer, and where it goes.
type Told = (Asker, Answer);

/// Look-ups that are under way.
pub(super) struct Lookups {
    tell: Sender<Told>,
    told: Receiver<Told>,
    wake: Members,
}

impl Lookups {
    /// No look-ups. `wake` has the main thread call [`pass_on`](Self::pass_on).
    pub(super) fn new(wake: Members) -> Self {
        let (tell, told) = channel();
        Lookups { tell, told, wake }
    }

    /// Looks up what process `pid` asks, on a thread of its own, because the resolver may take long.
    pub(super) fn begin(&self, pid: u32, question: &[u8]) {
        let Some((number, asked)) = orders::name_asked(question) else {
            return tracing::warn!(pid, "a process asks for a name in words that nobody understands");
        };
        let (tell, wake) = (self.tell.clone(), self.wake.clone());
        let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // The receiver lives for as long as the main thread serves.
            drop(tell.send(((pid, number), names::look_up(&asked))));
            wake.wake();
        });
        if let Err(error) = thread {
            let why = Err(Missing::NoAnswer(format!("no thread can be started: {error}")));
            drop(self.tell.send(((pid, number), why)));
            self.wake.wake();
        }
    }

    /// Sends answers to the members.
    pub(super) fn pass_on(&self, members: &mut [Process]) {
        while let Ok(((pid, number), found)) = self.told.try_recv() {
            // The member may have ended meanwhile.
            if let Some(member) = members.iter_mut().find(|member| member.process.id() == pid) {
                member.tell(Down::Found, &orders::name_found(number, &found), Vec::new());
            }
        }
    }
}
