//! `/proc/sysvipc`.

use super::Ipc;
use crate::World;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::{Error, Result, Write};
use vfs::pseudo::{Content, Text};

type Writer = fn(&Ipc, &mut Text) -> Result;

/// The files of `/proc/sysvipc`, by their path below `/proc`.
#[must_use]
pub fn files(world: &Arc<World>) -> Vec<(&'static str, Arc<dyn Content>)> {
    let writers: [(&str, Writer); 3] = [
        ("sysvipc/shm", segments),
        ("sysvipc/sem", sets),
        ("sysvipc/msg", queues),
    ];
    let file = |(path, writer): (&'static str, Writer)| {
        let world: Weak<World> = Arc::downgrade(world);
        let content = move |out: &mut Text| match world.upgrade() {
            Some(world) => writer(world.ipc(), out),
            None => Ok(()),
        };
        (path, Arc::new(content) as Arc<dyn Content>)
    };
    writers.map(file).into()
}

fn segments(ipc: &Ipc, out: &mut Text) -> Result {
    out.write_str(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  \
         cgid      atime      dtime      ctime                   rss                  swap\n",
    )?;
    let all = ipc.shm.lock().all();
    for e in all.map_err(|_| Error)? {
        let (p, s) = (e.perm, e.object.status());
        writeln!(
            out,
            "{:>10} {:>10}  {:>4o} {:>21} {:>5} {:>5}  {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} \
             {:>10} {:>10} {:>21} {:>21}",
            p.key,
            e.id,
            p.mode,
            s.bytes,
            s.maker,
            s.last,
            s.attachments,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.attached,
            s.detached,
            e.changed,
            s.resident * 4096,
            0
        )?;
    }
    Ok(())
}

fn sets(ipc: &Ipc, out: &mut Text) -> Result {
    out.write_str(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    )?;
    let all = ipc.sem.lock().all();
    for e in all.map_err(|_| Error)? {
        let p = e.perm;
        writeln!(
            out,
            "{:>10} {:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10}",
            p.key,
            e.id,
            p.mode,
            e.object.count(),
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            e.object.operated(),
            e.changed
        )?;
    }
    Ok(())
}

fn queues(ipc: &Ipc, out: &mut Text) -> Result {
    out.write_str(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid \
         \u{20}    stime      rtime      ctime\n",
    )?;
    let all = ipc.msg.lock().all();
    for e in all.map_err(|_| Error)? {
        let (p, s) = (e.perm, e.object.status());
        writeln!(
            out,
            "{:>10} {:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} \
             {:>10} {:>10}",
            p.key,
            e.id,
            p.mode,
            s.bytes,
            s.messages,
            s.sender,
            s.receiver,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.sent,
            s.received,
            e.changed
        )?;
    }
    Ok(())
}
