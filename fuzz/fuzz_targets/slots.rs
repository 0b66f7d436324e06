//! The table of operations' slots beside its model: any order of submissions, completions, polls, drops and
//! stray keys.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The machine itself, which uses nothing else of the runtime.
#[allow(dead_code)]
#[path = "../../runtime/src/op/slots.rs"]
mod slots;

use slots::model::{Step, check};

fuzz_target!(|bytes: &[u8]| {
    let (steps, _rest) = bytes.as_chunks::<3>();
    check(steps.iter().map(|&[what, pick, result]| {
        let (pick, more, notif) = (usize::from(pick), what & 0x10 != 0, what & 0x20 != 0);
        match what & 0x0f {
            0..=3 => Step::Submit { multi: more },
            4..=9 => Step::Cqe { pick, result: i32::from(result) - 5, more },
            10..=12 => Step::Polled { pick },
            13 | 14 => Step::Drop { pick },
            _ => Step::Stray { pick, more, notif },
        }
    }));
});
