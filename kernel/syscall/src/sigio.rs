//! `SIGIO`: readiness told by a signal (`O_ASYNC`, `FIOASYNC`).

use crate::ctx::Ctx;
use crate::errno::Errno;
use alloc::sync::{Arc, Weak};
use process::World;
use process::signal::Signal;
use vfs::sigio::Recipient;
use vfs::{Events, Observer, OpenFile};

/// Sends the signal to whoever owns the description.
struct Announcer {
    world: Weak<World>,
    to: Arc<Recipient>,
}

impl Observer for Announcer {
    fn notify(&self, _: Events) -> bool {
        let to = self.to.get();
        let Some(world) = self.world.upgrade().filter(|_| to != 0) else {
            return false;
        };
        if to < 0 {
            world.signal_group(to.unsigned_abs(), Signal::IO);
        } else if let Some(process) = world.process(to.unsigned_abs()) {
            process.raise(Signal::IO);
        }
        true
    }
}

/// Switches signals about the readiness of `file` on or off.
pub(crate) fn set(ctx: &Ctx<'_>, file: &OpenFile, on: bool) -> Result<(), Errno> {
    if !on {
        file.stop_async();
        return Ok(());
    }
    let world = Arc::downgrade(ctx.world());
    Ok(file.start_async(|to| Arc::new(Announcer { world, to }))?)
}
