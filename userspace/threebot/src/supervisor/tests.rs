//! The supervisor against a simulated kernel in virtual time.

mod scenarios;
mod world;

use proptest::prelude::*;

use super::*;
use world::{Op, World};

/// Three capsules: probed and always restarted, dependent on it, and a job.
pub(super) fn specs() -> Vec<UnitSpec> {
    let probe = |interval, failures| Probe {
        check: Check::Tcp(80),
        interval,
        timeout: 1_000,
        failures,
    };
    let plain = UnitSpec {
        name: "db".to_owned(),
        start_after: Vec::new(),
        restart: RestartPolicy::Always,
        pace: backoff::Pace {
            initial: 10,
            longest: 60_000,
            window: 60_000,
            loop_exits: 5,
        },
        startup: Some(probe(1_000, 30)),
        liveness: Some(probe(5_000, 3)),
        stop_signal: 15,
        stop_grace: 10_000,
    };
    let web = UnitSpec {
        name: "web".to_owned(),
        start_after: vec!["db".to_owned()],
        startup: None,
        liveness: None,
        ..plain.clone()
    };
    let job = UnitSpec {
        name: "job".to_owned(),
        restart: RestartPolicy::OnFailure,
        startup: None,
        liveness: None,
        ..plain.clone()
    };
    vec![plain, web, job]
}

fn op() -> impl Strategy<Value = Op> {
    let unit = 0usize..3;
    prop_oneof![
        4 => (1u64..30_000).prop_map(Op::Wait),
        4 => Just(Op::ToDeadline),
        2 => (unit.clone(), any::<bool>()).prop_map(|(unit, clean)| Op::Crash { unit, clean }),
        6 => any::<u8>().prop_map(|dice| Op::AnswerStart { dice }),
        6 => any::<u8>().prop_map(|dice| Op::AnswerProbe { dice }),
        4 => Just(Op::ObeyStop),
        1 => (unit.clone(), 0u8..3).prop_map(|(unit, what)| Op::Owner { unit, what }),
        1 => Just(Op::Resync),
        1 => Just(Op::AgentDies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, the promises checked in [`World::check`] hold.
    #[test]
    fn promises_hold(ops in proptest::collection::vec(op(), 1..200), seed: u64) {
        let mut world = World::new(specs(), seed);
        for op in ops {
            world.apply(&op);
            world.check();
        }
    }

    /// After any history, once the world behaves, everything that shall run is ready within
    /// the longest wait.
    #[test]
    fn everything_heals(ops in proptest::collection::vec(op(), 1..100), seed: u64) {
        let mut world = World::new(specs(), seed);
        for op in ops {
            world.apply(&op);
        }
        world.behave_for(200_000);
        for unit in world.supervisor.units() {
            let settled = unit.is_ready()
                || matches!(unit.phase, Phase::Held | Phase::Finished | Phase::Refused(_));
            prop_assert!(settled, "{}: {:?}", unit.spec.name, unit.phase);
        }
    }
}
