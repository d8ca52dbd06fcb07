//! Signals (signal(7)): what a program wants done ([`Actions`]), what is pending,
//! and how one comes to run a handler.

mod action;
mod deliver;
mod frame;
mod info;
mod number;
mod queue;
mod restart;
mod send;
mod state;
mod stop;

pub use action::{Action, ActionFlags, Actions, Disposition, SIG_DFL, SIG_IGN};
pub use deliver::{attention, sigreturn, wait_for_signal};
pub(crate) use frame::frame_size;
pub use info::{SIGINFO_SIZE, SigInfo, code};
pub use number::{DefaultAction, SIGNALS, STOPS, SigSet, Signal, UNSTOPPABLE};
pub(crate) use queue::Queue;
pub use send::Origin;
pub(crate) use state::Trap;
pub use state::{AltStack, Restart, ThreadSignals};
