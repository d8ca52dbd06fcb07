//! Who has logged in (`/proc/PID/loginuid` and `sessionid`, proc(5)): what pam_loginuid(8)
//! sets, and children inherit.

use crate::Process;
use crate::error::{Error, Result};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use machine::sync::SpinLock;

/// Nobody, and no session.
const UNSET: u32 = u32::MAX;

/// A user and the number of his session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// His number.
    pub uid: u32,
    /// The session's, from 1.
    pub session: u32,
}

impl Default for Login {
    fn default() -> Login {
        Login {
            uid: UNSET,
            session: UNSET,
        }
    }
}

/// The login of a process.
pub(crate) type Kept = SpinLock<Login>;

/// Numbers of sessions of a world.
#[derive(Default)]
pub(crate) struct Sessions(AtomicU32);

impl Sessions {
    fn begin(&self) -> u32 {
        // As on Linux, the number that means none is left out.
        match self.0.fetch_add(1, Relaxed).wrapping_add(1) {
            UNSET => self.begin(),
            n => n,
        }
    }
}

impl Process {
    /// Who has logged in.
    #[must_use]
    pub fn login(&self) -> Login {
        *self.login.lock()
    }

    /// Says who has logged in: a new session begins. `privileged` may change it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if it was said before.
    pub fn log_in(&self, uid: u32, privileged: bool) -> Result<()> {
        let mut login = self.login.lock();
        if login.uid != UNSET && !privileged {
            return Err(Error::NotPermitted);
        }
        let sessions = &self.world().sessions;
        *login = match uid {
            UNSET => Login::default(),
            uid => Login {
                uid,
                session: sessions.begin(),
            },
        };
        Ok(())
    }
}
