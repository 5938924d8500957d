//! Ctrl-C and SIGTERM: the first asks the run to stop, the second ends the process.

use std::io::Write as _;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cancel::Cancel;

/// Listens on a thread of its own, so that a signal is heard whatever the program is busy with.
pub(super) fn listen(cancel: &Cancel) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
        // The signals then do what they do by default: end the process. The index survives that.
        return;
    };
    let cancel = cancel.clone();
    let heard = move || {
        for _ in signals.forever() {
            if cancel.is_requested() {
                exit_at_once();
            }
            cancel.request();
            let _ = writeln!(std::io::stderr(), "\ndupfind: stopping; once more to stop at once");
        }
    };
    // Without the thread the first signal goes unheard, and a second cannot come: only then.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(heard);
}

#[expect(clippy::exit, reason = "the user asked twice; what was committed is safe, and nothing else is")]
fn exit_at_once() -> ! {
    std::process::exit(130)
}
