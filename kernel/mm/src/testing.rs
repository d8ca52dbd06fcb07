//! What the tests of this room share: a space of the test's thread, and an object
//! to map.

use crate::{AddressSpace, Backing, BackingError, Description, Error, MappingList, PageCache};
use alloc::string::String;
use alloc::sync::Arc;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use machine::thread::{Exception, Hooks, PageFault, UserRegs, set_hooks};
use machine::{Account, Frame};

std::thread_local! {
    static SPACE: RefCell<Option<Arc<AddressSpace>>> = const { RefCell::new(None) };
}

struct TestHooks;

impl Hooks for TestHooks {
    fn exception(&self, _: &mut UserRegs, _: Exception) {}
    fn attention(&self, _: &mut UserRegs) {}
    fn switched(&self, _: &mut UserRegs) {}
    fn page_fault(&self, fault: PageFault) -> bool {
        let space = SPACE.with_borrow(Clone::clone);
        space.is_some_and(|s| s.handle_fault(fault).is_ok())
    }
}

/// Nothing here makes system calls.
extern "C" fn no_calls(_: &mut UserRegs) {}

/// Makes `space` that of the calling thread.
pub(crate) fn enter(space: &Arc<AddressSpace>) {
    set_hooks(&TestHooks, no_calls);
    SPACE.set(Some(space.clone()));
    machine::host::enter_space(space.page_table().clone());
}

/// Lets the calling thread's space go.
pub(crate) fn leave() {
    SPACE.set(None);
    let nothing = machine::paging::PageTable::new().expect("the host has memory");
    machine::host::enter_space(nothing);
}

pub(crate) fn account(pages: usize) -> Arc<Account> {
    Arc::new(Account::new(pages).expect("fewer accounts than tests"))
}

/// An object whose length can change.
pub(crate) struct TestObject {
    pub(crate) pages: PageCache,
    pub(crate) len: AtomicU64,
    pub(crate) list: MappingList,
    pub(crate) account: Arc<Account>,
    pub(crate) announced: AtomicUsize,
    pub(crate) tracks: core::sync::atomic::AtomicBool,
}

impl TestObject {
    pub(crate) fn new(account: &Arc<Account>, len: u64) -> Arc<TestObject> {
        Arc::new(TestObject {
            pages: PageCache::new(account.clone()),
            len: AtomicU64::new(len),
            list: MappingList::new(),
            account: account.clone(),
            announced: AtomicUsize::new(0),
            tracks: false.into(),
        })
    }

    pub(crate) fn truncate(&self, len: u64) {
        self.len.store(len, SeqCst);
        self.pages.truncate(len);
        self.list.unmap(len..u64::MAX);
    }
}

impl Backing for TestObject {
    fn page(&self, index: u64, write: bool) -> Result<Frame, BackingError> {
        if index >= self.len.load(SeqCst) {
            return Err(BackingError::PastEnd);
        }
        self.announced.fetch_add(usize::from(write), SeqCst);
        self.pages
            .get_or_try_insert_with(index, || Frame::zeroed(&self.account).map_err(Error::from))
            .map_err(|_| BackingError::OutOfMemory)
    }

    fn cached(&self, first: u64, out: &mut [Option<Frame>]) {
        self.pages.get_run(first, out);
    }

    fn identity(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    fn describe(&self) -> Description {
        Description {
            path: String::from("/test"),
            inode: 7,
            major: 8,
            minor: 1,
        }
    }

    fn mappings(&self) -> Option<&MappingList> {
        Some(&self.list)
    }

    fn tracks_writes(&self) -> bool {
        self.tracks.load(SeqCst)
    }
}
