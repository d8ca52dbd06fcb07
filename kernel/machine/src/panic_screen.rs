//! What a kernel that ends shows on the screen.
//!
//! The machine room has no font: whoever drives the screen leaves a painter here.

use crate::framebuffer::Framebuffer;
use crate::sync::Once;
use core::time::Duration;

/// How long the last screen stays before the machine is reset: long enough for a picture
/// of it, and short for those who wait for the node.
pub const SHOWN: Duration = Duration::from_secs(5);

/// The last words.
#[derive(Clone, Copy, Debug)]
pub struct Panic<'a> {
    /// What people call the record.
    pub id: u32,
    /// The record: message and place in one line, the stack, and the end of the log.
    pub text: &'a [u8],
    /// The CPU that ended.
    pub cpu: usize,
    /// Time since the boot.
    pub up: Duration,
}

/// Paints the last words. Nothing else runs any more: it must not lock, allocate or wait.
pub type Painter = fn(&mut Framebuffer, &Panic<'_>);

static PAINTER: Once<Painter> = Once::new();

/// Has `painter` paint; only the first call counts.
pub fn set_painter(painter: Painter) {
    PAINTER.call_once(|| painter);
}

/// Who paints, if anybody does.
#[cfg(target_os = "none")]
pub(crate) fn painter() -> Option<Painter> {
    PAINTER.get().copied()
}
