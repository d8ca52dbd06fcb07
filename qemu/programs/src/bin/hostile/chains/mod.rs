//! Chains: calls in an order that matters, each on what the one before has made.
//!
//! They go where calls in any order seldom come: into the middle of a trace, to a page
//! whose file has shrunk, to a descriptor that is on its way through a socket.

mod files;
mod ipc;
mod memory;
mod processes;
mod sockets;
mod trace;

use crate::{random::Random, scratch::Scratch, shared::Shared};

/// What a chain works with.
pub(crate) struct Chain<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) random: &'a mut Random,
}

const ALL: [fn(&mut Chain<'_>); 22] = [
    memory::shrunk_file,
    memory::shared_and_forked,
    memory::remapped,
    memory::advised_by_two,
    trace::traced_child,
    trace::traced_fork,
    trace::attached,
    trace::memory_of_a_child,
    files::moved_folders,
    files::locks_of_two,
    files::watched,
    files::program_with_faults,
    sockets::passed_descriptors,
    sockets::nested_epoll,
    sockets::connection,
    sockets::through_pipes,
    sockets::terminal,
    processes::jobs,
    processes::threads_that_execute,
    processes::timers,
    ipc::semaphores,
    ipc::locks_in_memory,
];

/// Any of the chains.
pub(crate) fn any(shared: &Shared, scratch: &mut Scratch, random: &mut Random) {
    let chain = random.of(&ALL);
    chain(&mut Chain {
        shared,
        scratch,
        random,
    });
}
