//! Reading and writing the memory of a space that need not be the running one:
//! `execve` fills a new stack, `process_vm_readv` and `/proc/PID/mem` look into
//! other processes.

use super::fault::Before;
use super::{AddressSpace, State};
use crate::FaultError;
use machine::Frame;
use machine::addr::{PAGE_SIZE, USER_END};
use machine::paging::Access;

/// How often an access is tried again: other threads may unmap and share pages as
/// fast as they are brought in.
const TRIES: usize = 64;

impl AddressSpace {
    /// Copies from `addr`; bytes copied before memory ended or refused to be read.
    pub fn read(&self, addr: usize, out: &mut [u8]) -> usize {
        let len = out.len();
        self.walk(addr, len, Access::READ, |frame, offset, done, n| {
            frame.read(offset, &mut out[done..done + n])
        })
    }

    /// Copies to `addr`, under the program's own rights; bytes copied.
    pub fn write(&self, addr: usize, bytes: &[u8]) -> usize {
        let len = bytes.len();
        self.walk(addr, len, Access::WRITE, |frame, offset, done, n| {
            frame.write(offset, &bytes[done..done + n])
        })
    }

    /// As [`AddressSpace::write`], for a debugger: private memory that the program may
    /// not write to gets a page of its own, rights unchanged (break points).
    pub fn write_forced(&self, addr: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(at) = addr.checked_add(done).filter(|a| *a < USER_END) else {
                break;
            };
            let n = (PAGE_SIZE - at % PAGE_SIZE).min(bytes.len() - done);
            let part = &bytes[done..done + n];
            if self.write(at, part) != n && !self.write_denied(at, part) {
                break;
            }
            done += n;
            machine::thread::cond_resched();
        }
        done
    }

    /// Writes within one page that the program may not write to; whether that worked.
    fn write_denied(&self, addr: usize, bytes: &[u8]) -> bool {
        // Alone: a page that another thread drops now would come back as the object's, or
        // as the zeros that everybody shares, and be written to.
        let state = self.state.write();
        let Some(area) = state.areas.find(addr).filter(|a| !a.is_shared()) else {
            return false;
        };
        if self.own_page(area, addr).is_err() {
            return false;
        }
        let page = self.table.query(addr);
        page.is_some_and(|p| p.frame.write(addr % PAGE_SIZE, bytes) == bytes.len())
    }

    /// Fills `addr..addr + len` with zeros; bytes filled.
    pub fn zero(&self, addr: usize, len: usize) -> usize {
        self.walk(addr, len, Access::WRITE, |frame, offset, _, n| {
            frame.zero(offset, offset + n);
            n
        })
    }

    /// Calls `f` with frame, offset in it, bytes done before and bytes to do, page
    /// by page; the sum of what it returns.
    fn walk(
        &self,
        addr: usize,
        len: usize,
        access: Access,
        mut f: impl FnMut(&Frame, usize, usize, usize) -> usize,
    ) -> usize {
        let (mut done, mut tries) = (0, TRIES);
        while done < len {
            let Some(at) = addr.checked_add(done).filter(|a| *a < USER_END) else {
                break;
            };
            let offset = at % PAGE_SIZE;
            let n = (PAGE_SIZE - offset).min(len - done);
            // The lock keeps a fork from sharing the page between the look-up and
            // the copy.
            let state = self.state.read();
            let Ok(frame) = self.page_at(&state, at, access) else {
                drop(state);
                // A stack may have to grow first.
                let fault = machine::thread::PageFault {
                    addr: at,
                    access,
                    from_user: false,
                    present: true,
                };
                tries -= 1;
                if tries == 0 || self.handle_fault(fault).is_err() {
                    break;
                }
                continue;
            };
            if f(&frame, offset, done, n) != n {
                break;
            }
            drop(state);
            done += n;
            machine::thread::cond_resched();
        }
        done
    }

    fn page_at(&self, state: &State, addr: usize, access: Access) -> Result<Frame, FaultError> {
        let area = state.areas.find(addr).ok_or(FaultError::NotMapped)?;
        for _ in 0..TRIES {
            if let Some(page) = self.table.query(addr)
                && page.access.contains(access)
            {
                return Ok(page.frame);
            }
            self.fault_in(area, addr, access, Before::Unknown)?;
        }
        Err(FaultError::Denied)
    }
}
