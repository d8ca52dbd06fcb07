//! `/proc/PID/maps`, `smaps` and `statm`.

use crate::Thread;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};
use core::ops::Range;
use machine::paging::Access;
use mm::{AddressSpace, AreaFlags, Region, RegionName, Usage};
use vfs::pseudo::Text;

fn space(thread: Option<&Thread>) -> Option<Arc<AddressSpace>> {
    thread?.space.get()
}

/// What the last column of `maps` says about an area, and its object's numbers.
fn describe(region: &Region) -> (String, u64, u32, u32) {
    let plain = |name: &str| (String::from(name), 0, 0, 0);
    match &region.name {
        RegionName::Anonymous => plain(""),
        RegionName::Heap => plain("[heap]"),
        RegionName::Stack => plain("[stack]"),
        RegionName::Object(object) => {
            let d = object.describe();
            (d.path, d.inode, d.major, d.minor)
        }
    }
}

fn line(region: &Region, out: &mut Text) -> fmt::Result {
    let (path, inode, major, minor) = describe(region);
    let bit = |on: bool, c: char| if on { c } else { '-' };
    let at = out.0.len();
    write!(
        out,
        "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {inode} ",
        region.range.start,
        region.range.end,
        bit(region.access.contains(Access::READ), 'r'),
        bit(region.access.contains(Access::WRITE), 'w'),
        bit(region.access.contains(Access::EXEC), 'x'),
        match region.flags.contains(AreaFlags::SHARED) {
            true => 's',
            false => 'p',
        },
        region.offset,
    )?;
    if !path.is_empty() {
        /// The column where names begin.
        const NAMES_AT: usize = 73;
        while out.0.len() - at < NAMES_AT {
            out.write_str(" ")?;
        }
        for c in path.chars() {
            match c {
                '\n' => out.write_str("\\012")?,
                c => out.write_char(c)?,
            }
        }
    }
    out.write_str("\n")
}

pub(super) fn maps(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let Some(space) = space(thread) else {
        return Ok(());
    };
    for region in space.regions() {
        line(&region, out)?;
        machine::thread::cond_resched();
    }
    Ok(())
}

fn usage(size: usize, u: &Usage, locked: usize, out: &mut Text) -> fmt::Result {
    let private = u.private_clean + u.private_dirty;
    let lines = [
        ("Size", size),
        ("KernelPageSize", machine::addr::PAGE_SIZE),
        ("MMUPageSize", machine::addr::PAGE_SIZE),
        ("Rss", u.resident),
        ("Pss", u.proportional),
        ("Shared_Clean", u.shared_clean),
        ("Shared_Dirty", u.shared_dirty),
        ("Private_Clean", u.private_clean),
        ("Private_Dirty", u.private_dirty),
        ("Referenced", u.referenced),
        ("Anonymous", private),
        ("AnonHugePages", u.huge),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", locked),
    ];
    for (name, bytes) in lines {
        writeln!(
            out,
            "{name}:{:>width$} kB",
            bytes / 1024,
            width = 23 - name.len()
        )?;
    }
    Ok(())
}

fn flags(region: &Region, out: &mut Text) -> fmt::Result {
    let known = [
        (region.access.contains(Access::READ), "rd"),
        (region.access.contains(Access::WRITE), "wr"),
        (region.access.contains(Access::EXEC), "ex"),
        (region.flags.contains(AreaFlags::SHARED), "sh"),
        (region.flags.contains(AreaFlags::GROWS_DOWN), "gd"),
        (region.flags.contains(AreaFlags::LOCKED), "lo"),
        (region.flags.contains(AreaFlags::DONT_FORK), "dc"),
        (region.flags.contains(AreaFlags::NO_RESERVE), "nr"),
        (region.flags.contains(AreaFlags::HUGE), "hg"),
    ];
    out.write_str("VmFlags:")?;
    for (_, name) in known.iter().filter(|(on, _)| *on) {
        write!(out, " {name}")?;
    }
    writeln!(out)
}

pub(super) fn smaps(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let Some(space) = space(thread) else {
        return Ok(());
    };
    for region in space.regions() {
        let used = space.usage(region.range.clone());
        let locked = match region.flags.contains(AreaFlags::LOCKED) {
            true => used.resident,
            false => 0,
        };
        line(&region, out)?;
        usage(region.range.len(), &used, locked, out)?;
        flags(&region, out)?;
        machine::thread::cond_resched();
    }
    Ok(())
}

pub(super) fn rollup(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let Some(space) = space(thread) else {
        return Ok(());
    };
    let all = Range {
        start: 0,
        end: machine::addr::USER_END,
    };
    let used = space.usage(all);
    let stats = space.stats();
    let page = machine::addr::PAGE_SIZE;
    usage(stats.mapped * page, &used, stats.locked * page, out)
}

pub(super) fn statm(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let Some(space) = space(thread) else {
        return writeln!(out, "0 0 0 0 0 0 0");
    };
    let s = space.stats();
    writeln!(
        out,
        "{} {} {} {} 0 {} 0",
        s.mapped,
        s.resident,
        space.shared_resident(),
        s.text,
        s.data + s.stack,
    )
}
