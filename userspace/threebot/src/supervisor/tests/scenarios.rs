//! Single stories with exact times.

use super::*;

fn only(name: &str) -> World {
    let specs = specs()
        .into_iter()
        .filter(|spec| spec.name == name)
        .collect();
    World::new(specs, 7)
}

fn starts(world: &World) -> Vec<Millis> {
    let starts = world
        .log
        .iter()
        .filter(|(_, action)| matches!(action, Action::Start { .. }));
    starts.map(|(at, _)| *at).collect()
}

fn records(world: &World, wanted: RecordKind) -> usize {
    let is_wanted =
        |action: &Action| matches!(action, Action::Record { kind, .. } if *kind == wanted);
    world
        .log
        .iter()
        .filter(|(_, action)| is_wanted(action))
        .count()
}

fn phase<'w>(world: &'w World, name: &str) -> &'w Phase {
    &world.supervisor.unit(name).expect("exists").phase
}

#[test]
fn first_restart_is_in_the_same_step() {
    let mut world = only("db");
    world.behave_for(20_000);
    let before = starts(&world).len();
    world.end("db", false);
    assert_eq!(starts(&world).len(), before + 1);
    assert_eq!(*starts(&world).last().expect("restarted"), world.now);
}

#[test]
fn without_probes_nothing_ticks() {
    let mut world = only("web");
    world.answer_start(0);
    assert!(world.supervisor.unit("web").expect("exists").is_ready());
    assert_eq!(world.supervisor.deadline(), None);
}

#[test]
fn successors_wait_for_readiness() {
    let mut world = World::new(specs(), 1);
    assert_eq!(*phase(&world, "web"), Phase::Waiting);
    world.answer_start(0); // db, ordered by name
    world.answer_start(0); // job
    assert_eq!(*phase(&world, "web"), Phase::Waiting);
    world.wait(20);
    world.answer_probe(0);
    assert_eq!(*phase(&world, "web"), Phase::Starting { then: None });
    world.answer_start(0);
    // Only the first start is ordered: db is down, web comes back.
    world.end("db", false);
    world.end("web", false);
    assert_eq!(*phase(&world, "web"), Phase::Starting { then: None });
}

#[test]
fn hang_is_killed_within_eight_seconds_and_healed() {
    let mut world = only("db");
    world.behave_for(20_000);
    let begin = world.now;
    while records(&world, RecordKind::Hung) == 0 {
        let deadline = world.supervisor.deadline().expect("probes go on");
        world.wait(deadline - world.now);
        world.answer_probe(200);
    }
    assert!(world.now - begin <= 8_000, "{} ms", world.now - begin);
    let killed = Action::Kill {
        name: "db".to_owned(),
        instance: 1,
    };
    assert!(world.log.iter().any(|(_, action)| *action == killed));
    world.behave_for(1_000);
    assert!(world.supervisor.unit("db").expect("exists").is_ready());
}

#[test]
fn crash_loop_backs_off_is_reported_once_and_settles() {
    let mut world = only("web");
    for _ in 0..20 {
        world.answer_start(0);
        world.end("web", false);
        let wait = world.supervisor.deadline().map_or(0, |at| at - world.now);
        world.wait(wait);
    }
    assert_eq!(records(&world, RecordKind::CrashLoop), 1);
    let times = starts(&world);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[0], 0, "the first restart is immediate");
    assert!(gaps[18] >= 45_000 && gaps[18] <= 60_000, "{gaps:?}");
    world.behave_for(61_000);
    assert_eq!(records(&world, RecordKind::Settled), 1);
    assert_eq!(world.supervisor.deadline(), None);
}

#[test]
fn stubborn_stop_is_followed_by_kill_again_and_again() {
    let mut world = only("web");
    world.answer_start(0);
    world.command("web", Command::Stop);
    world.wait(60_000);
    let kills = world
        .log
        .iter()
        .filter(|(_, action)| matches!(action, Action::Kill { .. }));
    assert!(kills.count() >= 5);
    world.end("web", false);
    assert_eq!(*phase(&world, "web"), Phase::Held);
}

#[test]
fn owners_stop_survives_the_3bot() {
    let mut world = only("web");
    world.answer_start(0);
    world.command("web", Command::Stop);
    world.agent_dies(); // between the stop and the end of the capsule
    world.behave_for(100_000);
    assert_eq!(*phase(&world, "web"), Phase::Held);
    world.command("web", Command::Start);
    world.behave_for(1_000);
    assert!(world.supervisor.unit("web").expect("exists").is_ready());
}

#[test]
fn running_capsules_are_adopted_untouched() {
    let mut world = World::new(specs(), 3);
    world.behave_for(10_000);
    world.log.clear();
    world.agent_dies();
    assert_eq!(records(&world, RecordKind::Adopted), 3);
    world.behave_for(30_000);
    let touched = world.log.iter().any(|(_, action)| {
        matches!(
            action,
            Action::Start { .. } | Action::Stop { .. } | Action::Kill { .. }
        )
    });
    assert!(!touched);
}

#[test]
fn an_exit_while_the_3bot_was_away_is_healed_at_once() {
    let mut world = only("web");
    world.answer_start(0);
    world.wait(20_000);
    let mut memories = world.supervisor.memories();
    world.end("web", false);
    memories[0].ended_instance = 0; // as remembered before the exit
    let exited = world.supervisor.memories()[0].last_exit.clone();
    let mut fresh = Supervisor::new(specs(), 1);
    fresh.restore(memories);
    let observed = Observed {
        name: "web".to_owned(),
        instance: 1,
        started: 1_000,
        exit: exited,
    };
    let mut out = Vec::new();
    fresh.begin(world.now, &[observed], &mut out);
    assert!(out.contains(&Action::Start {
        name: "web".to_owned()
    }));
    assert_eq!(fresh.memories()[2].restarts, 1);
}

#[test]
fn circles_are_cut_and_named() {
    let mut circle = specs();
    circle[0].start_after = vec!["web".to_owned()];
    let mut world = World::new(circle, 5);
    assert_eq!(records(&world, RecordKind::Warning), 1);
    world.behave_for(5_000);
    assert!(world.supervisor.units().all(Unit::is_ready));
}

#[test]
fn policies_are_kept() {
    let mut world = only("job");
    world.answer_start(0);
    world.end("job", false);
    world.answer_start(0);
    world.end("job", true);
    assert_eq!(*phase(&world, "job"), Phase::Finished);
    world.agent_dies();
    world.behave_for(100_000);
    assert_eq!(starts(&world).len(), 2);
}
