use super::*;
use proptest::prelude::*;

type Tree = Family<Pid, Pid>;

fn child(t: &mut Tree, parent: Pid) -> Pid {
    let pid = t.free_number().unwrap();
    let place = match parent {
        0 => Place {
            parent: 0,
            group: pid,
            session: pid,
        },
        p => Place {
            parent: p,
            group: t.group(p).unwrap(),
            session: t.session(p).unwrap(),
        },
    };
    t.add_process(pid, pid, place).unwrap();
    t.add_thread(pid, pid).unwrap();
    pid
}

fn end(t: &mut Tree, pid: Pid) {
    t.remove_thread(pid);
    t.bury(pid);
}

#[test]
fn the_first_process_is_number_one() {
    let mut t = Tree::new();
    assert_eq!(child(&mut t, 0), INIT);
    assert_eq!(child(&mut t, INIT), 2);
    assert_eq!(t.children(INIT), [2]);
    assert_eq!((t.processes(), t.threads()), (2, 2));
}

#[test]
fn a_process_counts_from_its_first_thread_to_its_reaping() {
    let mut t = Tree::new();
    let init = child(&mut t, 0);
    let pid = child(&mut t, init);
    assert_eq!(t.tasks(), 2);
    t.remove_thread(pid);
    t.count(pid);
    assert_eq!((t.threads(), t.tasks(), t.is_zombie(pid)), (1, 2, false));
    t.bury(pid);
    assert_eq!((t.tasks(), t.is_zombie(pid)), (2, true));
    t.reap(pid);
    assert_eq!(t.tasks(), 1);
}

#[test]
fn orphans_go_to_the_nearest_subreaper() {
    let mut t = Tree::new();
    let init = child(&mut t, 0);
    let reaper = child(&mut t, init);
    t.set_subreaper(reaper, true);
    let middle = child(&mut t, reaper);
    let leaf = child(&mut t, middle);
    assert_eq!(t.bury(middle), (reaper, [leaf].to_vec()));
    assert_eq!(t.parent(leaf), reaper);
    t.reap(middle);
    end(&mut t, reaper);
    assert_eq!(t.parent(leaf), init);
}

#[test]
fn a_number_in_use_as_a_group_is_not_handed_out() {
    let mut t = Tree::new();
    let init = child(&mut t, 0);
    let leader = child(&mut t, init);
    t.set_group(leader, leader, leader).unwrap();
    let member = child(&mut t, leader);
    end(&mut t, leader);
    t.reap(leader);
    assert_eq!(t.group(member), Ok(leader));
    t.next = leader;
    assert_ne!(t.free_number(), Ok(leader));
    end(&mut t, member);
    t.reap(member);
    t.next = leader;
    assert_eq!(t.free_number(), Ok(leader));
}

#[test]
fn setpgid_follows_its_rules() {
    let mut t = Tree::new();
    let init = child(&mut t, 0);
    let shell = child(&mut t, init);
    t.new_session(shell).unwrap();
    assert_eq!(t.new_session(shell), Err(Error::NotPermitted));
    let job = child(&mut t, shell);
    assert_eq!(t.set_group(shell, job, job), Ok(()));
    assert_eq!(t.set_group(shell, job, 999), Err(Error::NotPermitted));
    assert_eq!(t.set_group(shell, job, init), Err(Error::NotPermitted));
    assert_eq!(t.set_group(shell, shell, job), Err(Error::NotPermitted));
    assert_eq!(t.set_group(init, job, job), Err(Error::NoProcess));
    t.set_executed(job);
    assert_eq!(t.set_group(shell, job, shell), Err(Error::Denied));
    assert_eq!(t.set_group(job, job, shell), Ok(()));
}

#[test]
fn a_job_is_orphaned_when_its_shell_ends() {
    let mut t = Tree::new();
    let init = child(&mut t, 0);
    let shell = child(&mut t, init);
    t.new_session(shell).unwrap();
    let job = child(&mut t, shell);
    t.set_group(shell, job, job).unwrap();
    assert!(!t.is_orphaned(job, None));
    assert!(t.is_orphaned(job, Some(shell)));
    end(&mut t, shell);
    assert!(t.is_orphaned(job, None));
}

#[derive(Clone, Debug)]
enum Op {
    Fork(usize),
    End(usize),
    Reap(usize),
    Session(usize),
    Group(usize, usize),
    Subreaper(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..20usize).prop_map(Op::Fork),
        2 => (0..20usize).prop_map(Op::End),
        2 => (0..20usize).prop_map(Op::Reap),
        1 => (0..20usize).prop_map(Op::Session),
        2 => (0..20usize, 0..20usize).prop_map(|(a, b)| Op::Group(a, b)),
        1 => (0..20usize).prop_map(Op::Subreaper),
    ]
}

proptest! {
    #[test]
    fn the_tree_stays_a_tree(ops in prop::collection::vec(op(), 1..120)) {
        let mut t = Tree::new();
        let init = child(&mut t, 0);
        let mut all = [init].to_vec();
        for op in ops {
            let at = |i: usize| all[i % all.len()];
            match op {
                Op::Fork(i) => {
                    let p = at(i);
                    if !t.is_zombie(p) {
                        let c = child(&mut t, p);
                        all.push(c);
                    }
                }
                Op::End(i) if at(i) != init && !t.is_zombie(at(i)) => end(&mut t, at(i)),
                Op::Reap(i) if t.is_zombie(at(i)) => {
                    let p = at(i);
                    t.reap(p);
                    all.retain(|x| *x != p);
                }
                Op::Session(i) if !t.is_zombie(at(i)) => drop(t.new_session(at(i))),
                Op::Group(i, j) => drop(t.set_group(at(i), at(i), at(j))),
                Op::Subreaper(i) => t.set_subreaper(at(i), true),
                _ => {}
            }
            prop_assert_eq!(t.processes(), all.len());
            // Here every living process has one thread.
            prop_assert_eq!(t.tasks(), all.len());
            for p in &all {
                let parent = t.parent(*p);
                prop_assert!(*p == init || t.children(parent).contains(p));
                prop_assert!(*p == init || !t.is_zombie(parent));
                let (g, s) = (t.group(*p).unwrap(), t.session(*p).unwrap());
                prop_assert!(t.group_members(g).contains(p));
                prop_assert_eq!(t.session(t.group_members(g)[0]).unwrap(), s);
            }
            let listed: usize = t.slots.values().map(|s| s.group.len()).sum();
            prop_assert_eq!(listed, all.len());
            let sessions: usize = t.slots.values().map(|s| s.session).sum();
            prop_assert_eq!(sessions, all.len());
        }
    }
}
