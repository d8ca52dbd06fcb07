//! Spaces against a naive model: one value for each page, copied whole on fork.

use super::{AddressSpace, Advice, MapRequest, OldRange, Placement, RemapRequest, RemapTarget};
use crate::AreaFlags;
use crate::testing::{TestObject, account, enter, leave};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::paging::Access;
use machine::user;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;

/// Pages of the window in which fixed mappings lie.
const WINDOW: usize = 40;
const BASE: usize = 0x10_0000_0000 / PAGE_SIZE;
const OBJECTS: usize = 2;
const SPACES_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Its value; `None` for an untouched page, which reads as 0.
    Own(u8),
    /// The page of an object, shared.
    Shared(usize, u64),
    /// The page of an object, or the private copy of it.
    Private(usize, u64, Option<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    access: Access,
    kind: Kind,
}

type Space = BTreeMap<usize, Page>;

#[derive(Clone, Debug)]
enum Step {
    Map {
        at: Option<usize>,
        n: usize,
        access: Access,
        object: Option<(usize, u64)>,
        shared: bool,
    },
    Unmap(usize, usize),
    Protect(usize, usize, Access),
    Write(usize, u8),
    Read(usize),
    DontNeed(usize, usize),
    Remap(usize, usize, usize, Option<usize>),
    Fork,
    Leave,
    Switch(usize),
    Truncate(usize, u64),
    CheckAll,
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        5 => Just(Access::READ | Access::WRITE),
        2 => Just(Access::READ),
        1 => Just(Access::empty()),
        1 => Just(Access::READ | Access::EXEC),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..WINDOW;
    let n = 1usize..8;
    let object = proptest::option::of((0..OBJECTS, 0u64..6));
    let place = proptest::option::weighted(0.9, at.clone());
    prop_oneof![
        6 => (place, n.clone(), access(), object, any::<bool>()).prop_map(
            |(at, n, access, object, shared)| {
                // Shared anonymous memory is an object of its own, tested elsewhere.
                let shared = shared && object.is_some();
                Step::Map { at, n, access, object, shared }
            }
        ),
        3 => (at.clone(), n.clone()).prop_map(|(a, n)| Step::Unmap(a, n)),
        3 => (at.clone(), n.clone(), access()).prop_map(|(a, n, p)| Step::Protect(a, n, p)),
        12 => (at.clone(), any::<u8>()).prop_map(|(a, v)| Step::Write(a, v)),
        8 => at.clone().prop_map(Step::Read),
        2 => (at.clone(), n.clone()).prop_map(|(a, n)| Step::DontNeed(a, n)),
        3 => (at.clone(), n.clone(), n, proptest::option::of(at.clone()))
            .prop_map(|(a, n, m, t)| Step::Remap(a, n, m, t)),
        2 => Just(Step::Fork),
        1 => Just(Step::Leave),
        2 => (0..SPACES_MAX).prop_map(Step::Switch),
        1 => (0..OBJECTS, 0u64..10).prop_map(|(o, n)| Step::Truncate(o, n)),
        1 => Just(Step::CheckAll),
    ]
}

struct World {
    objects: Vec<Arc<TestObject>>,
    /// The value of each page of each object.
    contents: Vec<Vec<u8>>,
    spaces: Vec<(Arc<AddressSpace>, Space)>,
    now: usize,
}

impl World {
    fn model(&mut self) -> &mut Space {
        &mut self.spaces[self.now].1
    }

    fn space(&self) -> Arc<AddressSpace> {
        self.spaces[self.now].0.clone()
    }

    fn expected(&self, page: usize) -> Option<u8> {
        let p = self.spaces[self.now].1.get(&page)?;
        if p.access.is_empty() {
            return None;
        }
        match p.kind {
            Kind::Own(v) | Kind::Private(_, _, Some(v)) => Some(v),
            Kind::Shared(o, i) | Kind::Private(o, i, None) => {
                self.contents[o].get(i as usize).copied()
            }
        }
    }

    fn addr(page: usize) -> usize {
        page * PAGE_SIZE + 1234
    }

    fn check(&self, page: usize) -> Result<(), TestCaseError> {
        let got = user::read_value::<u8>(Self::addr(page)).ok();
        prop_assert_eq!(got, self.expected(page), "page {:#x}", page);
        Ok(())
    }

    fn write(&mut self, page: usize, value: u8) -> Result<(), TestCaseError> {
        let can = self.expected(page).is_some()
            && self.spaces[self.now].1[&page]
                .access
                .contains(Access::WRITE);
        let done = user::write_value(Self::addr(page), &value).is_ok();
        prop_assert_eq!(done, can, "page {:#x}", page);
        if !can {
            return Ok(());
        }
        let kind = &mut self.spaces[self.now].1.get_mut(&page).unwrap().kind;
        match kind {
            Kind::Own(v) => *v = value,
            Kind::Private(_, _, v) => *v = Some(value),
            Kind::Shared(o, i) => self.contents[*o][*i as usize] = value,
        }
        Ok(())
    }

    fn map(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let Step::Map {
            at,
            n,
            access,
            object,
            shared,
        } = step
        else {
            unreachable!()
        };
        let mut request = match object {
            Some((o, first)) => MapRequest::object(
                self.objects[*o].clone(),
                first * PAGE_SIZE as u64,
                n * PAGE_SIZE,
                *access,
            ),
            None => MapRequest::anonymous(n * PAGE_SIZE, *access),
        };
        if *shared {
            request = request.with(AreaFlags::SHARED);
        }
        if let Some(at) = at {
            request = request.at(Placement::Fixed((BASE + at) * PAGE_SIZE));
        }
        let addr = self.space().map(request).unwrap() / PAGE_SIZE;
        for i in 0..*n {
            let page = addr + i;
            let kind = match object {
                None => Kind::Own(0),
                Some((o, first)) if *shared => Kind::Shared(*o, first + i as u64),
                Some((o, first)) => Kind::Private(*o, first + i as u64, None),
            };
            let old = self.model().insert(
                page,
                Page {
                    access: *access,
                    kind,
                },
            );
            prop_assert!(old.is_none() || at.is_some(), "placed over something");
        }
        Ok(())
    }

    fn protect(&mut self, at: usize, n: usize, access: Access) -> Result<(), TestCaseError> {
        let got = self
            .space()
            .protect((BASE + at) * PAGE_SIZE, n * PAGE_SIZE, access);
        let mut whole = true;
        for page in BASE + at..BASE + at + n {
            match self.model().get_mut(&page) {
                Some(p) => p.access = access,
                None => {
                    whole = false;
                    break;
                }
            }
        }
        prop_assert_eq!(got.is_ok(), whole);
        Ok(())
    }

    fn remap(
        &mut self,
        at: usize,
        n: usize,
        new: usize,
        to: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let request = RemapRequest {
            addr: (BASE + at) * PAGE_SIZE,
            old_len: n * PAGE_SIZE,
            new_len: new * PAGE_SIZE,
            target: to.map_or(RemapTarget::Anywhere, |t| {
                RemapTarget::Fixed((BASE + t) * PAGE_SIZE)
            }),
            old_range: OldRange::Unmap,
        };
        let old: Vec<_> = (BASE + at..BASE + at + n)
            .map(|p| self.model().get(&p).copied())
            .collect();
        let result = self.space().remap(request);
        let overlap = to.is_some_and(|t| t < at + n && at < t + new);
        if overlap || old[0].is_none() {
            prop_assert!(result.is_err());
            return Ok(());
        }
        if new <= n && to.is_none() {
            prop_assert!(result.is_ok());
        }
        // A request over several areas is refused, but what it cuts off and what
        // lies in its way may be gone by then, as on Linux.
        for page in BASE + at + new..BASE + at + n {
            self.model().remove(&page);
        }
        let Ok(addr) = result else {
            let regions: Vec<_> = self.space().regions().map(|r| r.range).collect();
            let there = |p: &usize| regions.iter().any(|r| r.contains(&(p * PAGE_SIZE)));
            self.model().retain(|p, _| there(p));
            return Ok(());
        };
        let target = addr / PAGE_SIZE;
        if new <= n && to.is_none() {
            prop_assert_eq!(target, BASE + at);
            return Ok(());
        }
        if target != BASE + at {
            for page in BASE + at..BASE + at + n {
                self.model().remove(&page);
            }
        }
        let first = old[0].unwrap();
        for i in 0..new {
            let grown = || Page {
                kind: match first.kind {
                    Kind::Own(_) => Kind::Own(0),
                    Kind::Shared(o, k) => Kind::Shared(o, k + i as u64),
                    Kind::Private(o, k, _) => Kind::Private(o, k + i as u64, None),
                },
                ..first
            };
            let page = old.get(i).copied().flatten().unwrap_or_else(grown);
            self.model().insert(target + i, page);
        }
        Ok(())
    }

    fn truncate(&mut self, o: usize, len: u64) {
        self.objects[o].truncate(len);
        self.contents[o].resize(len as usize, 0);
        for (_, model) in &mut self.spaces {
            for p in model.values_mut() {
                if let Kind::Private(object, i, v) = &mut p.kind
                    && (*object, *i >= len) == (o, true)
                {
                    *v = None;
                }
            }
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Map { .. } => self.map(step)?,
            Step::Unmap(at, n) => {
                self.space()
                    .unmap((BASE + at) * PAGE_SIZE, n * PAGE_SIZE)
                    .unwrap();
                self.model()
                    .retain(|p, _| !(BASE + at..BASE + at + n).contains(p));
            }
            Step::Protect(at, n, access) => self.protect(at, n, access)?,
            Step::Write(at, v) => self.write(BASE + at, v)?,
            Step::Read(at) => self.check(BASE + at)?,
            Step::DontNeed(at, n) => {
                let _ =
                    self.space()
                        .advise((BASE + at) * PAGE_SIZE, n * PAGE_SIZE, Advice::DontNeed);
                for (_, p) in self.model().range_mut(BASE + at..BASE + at + n) {
                    match &mut p.kind {
                        Kind::Own(v) => *v = 0,
                        Kind::Private(_, _, v) => *v = None,
                        Kind::Shared(..) => {}
                    }
                }
            }
            Step::Remap(at, n, new, to) => self.remap(at, n, new, to)?,
            Step::Fork if self.spaces.len() < SPACES_MAX => {
                let twin = (self.space().fork().unwrap(), self.model().clone());
                self.spaces.push(twin);
            }
            Step::Leave if self.spaces.len() > 1 => {
                leave();
                self.spaces.remove(self.now);
                self.now = 0;
                enter(&self.space());
            }
            Step::Switch(to) => {
                self.now = to % self.spaces.len();
                enter(&self.space());
            }
            Step::Truncate(o, len) => self.truncate(o, len),
            Step::CheckAll => {
                let all: Vec<_> = self.model().keys().copied().collect();
                for p in (BASE..BASE + WINDOW + 8).chain(all) {
                    self.check(p)?;
                }
            }
            Step::Fork | Step::Leave => {}
        }
        Ok(())
    }

    /// The list of areas says what the model says.
    fn check_regions(&mut self) -> Result<(), TestCaseError> {
        let mut listed = BTreeMap::new();
        for r in self.space().regions() {
            for p in r.range.step_by(PAGE_SIZE) {
                prop_assert!(listed.insert(p / PAGE_SIZE, r.access).is_none());
            }
        }
        let want: BTreeMap<_, _> = self.model().iter().map(|(p, v)| (*p, v.access)).collect();
        prop_assert_eq!(listed, want);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn memory_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..120)) {
        let payer = account(4000);
        let first = AddressSpace::new(payer.clone()).unwrap();
        enter(&first);
        let mut world = World {
            objects: (0..OBJECTS).map(|_| TestObject::new(&payer, 6)).collect(),
            contents: alloc::vec![alloc::vec![0; 6]; OBJECTS],
            spaces: alloc::vec![(first, Space::new())],
            now: 0,
        };
        for s in &steps {
            world.run(s)?;
            world.check_regions()?;
        }
        for i in 0..world.spaces.len() {
            world.run(&Step::Switch(i))?;
            world.run(&Step::CheckAll)?;
        }
        leave();
        world.spaces.clear();
        prop_assert!(world.objects.iter().all(|o| o.list.is_empty()));
        drop(world);
        prop_assert_eq!(payer.used(), 0);
    }
}
