//! The vDSO: the machine room's code for user mode as an ELF image, and its place
//! in every program (vdso(7)).

use super::vdso_image;
use crate::Result;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::paging::Access;
use machine::sync::Once;
use machine::{Account, Frame, vdso};
use mm::{AddressSpace, AreaFlags, Backing, BackingError, Description, MapRequest, Placement};

/// Pages that never change.
struct Pages {
    frames: Vec<Frame>,
    name: &'static str,
}

impl Backing for Pages {
    fn page(&self, index: u64, _write: bool) -> core::result::Result<Frame, BackingError> {
        usize::try_from(index)
            .ok()
            .and_then(|i| self.frames.get(i))
            .cloned()
            .ok_or(BackingError::PastEnd)
    }

    fn identity(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    fn describe(&self) -> Description {
        Description {
            path: String::from(self.name),
            ..Description::default()
        }
    }
}

struct Vdso {
    data: Arc<Pages>,
    image: Arc<Pages>,
}

/// Builds both objects, once for all programs; `None` without memory.
fn objects() -> Option<&'static Vdso> {
    static VDSO: Once<Option<Vdso>> = Once::new();
    VDSO.call_once(build).as_ref()
}

fn build() -> Option<Vdso> {
    let bytes = vdso_image::compose(vdso::code(), &vdso::functions())?;
    let mut frames = Vec::new();
    for page in bytes.chunks(PAGE_SIZE) {
        let frame = Frame::zeroed(Account::kernel()).ok()?;
        frame.write(0, page);
        frames.push(frame);
    }
    Some(Vdso {
        data: Arc::new(Pages {
            frames: alloc::vec![vdso::data()?],
            name: "[vvar]",
        }),
        image: Arc::new(Pages {
            frames,
            name: "[vdso]",
        }),
    })
}

/// Maps the vDSO into `space`: the address of its ELF header
/// (`AT_SYSINFO_EHDR`), or `None` where there is no memory for it. Programs do
/// without, then.
///
/// # Errors
/// Memory and limits.
pub fn map(space: &AddressSpace) -> Result<Option<usize>> {
    let Some(vdso) = objects() else {
        return Ok(None);
    };
    let len = vdso.image.frames.len() * PAGE_SIZE;
    let room = space.map(MapRequest::anonymous(len + PAGE_SIZE, Access::empty()))?;
    let read = Access::READ;
    let mut data = MapRequest::object(vdso.data.clone(), 0, PAGE_SIZE, read)
        .at(Placement::Fixed(room))
        .with(AreaFlags::SPECIAL | AreaFlags::DONT_DUMP);
    data.max_access = read;
    space.map(data)?;
    let image = room + PAGE_SIZE;
    // Shared with all programs, so it may not become writable in this one.
    let run = Access::READ | Access::EXEC;
    let mut code = MapRequest::object(vdso.image.clone(), 0, len, run)
        .at(Placement::Fixed(image))
        .with(AreaFlags::SPECIAL);
    code.max_access = run;
    space.map(code)?;
    Ok(Some(image))
}
