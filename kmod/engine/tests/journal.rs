//! What the journal says of each thing that may be done to a binding.

use mobconn_engine::*;

const OLD: Address = Address([192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const PEER: Address = Address([198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const NEW: Address = Address([203, 0, 113, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const NEXT: Address = Address([203, 0, 113, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

struct World {
    engine: Engine,
    control: Control,
    seen: u64,
}

impl World {
    fn new(capacity: u32) -> Self {
        let (engine, mut control) = mobconn_engine::new(&Config { capacity, key: [7; 8] }).unwrap();
        let seen = control.watch().unwrap();
        Self { engine, control, seen }
    }

    fn told(&mut self) -> Vec<(What, u64)> {
        let journal = self.control.journal();
        let told =
            (self.seen..journal.next()).map(|number| journal.get(number).unwrap()).map(|e| (e.what, e.at)).collect();
        self.seen = journal.next();
        told
    }

    fn prepare(
        &mut self,
        stack: &Side,
        half: Half,
        new: Address,
        generation: u32,
        take: bool,
    ) -> Result<(), TableError> {
        let prepare = Prepare { half, new, generation, hold: false, take };
        self.control.prepare(&self.engine, stack, &prepare, |_| false, 1)
    }

    fn expire(&mut self, now: u32, alive: bool) {
        let limits = Limits { grace: 60, udp_idle: 0 };
        self.control.expire(&self.engine, now, &limits, (0, 100), |_| alive);
    }
}

fn side(local: Address, local_port: u16) -> Side {
    Side { local, remote: PEER, local_port, remote_port: 80, version: Version::V4, protocol: Protocol::Tcp }
}

#[test]
fn a_move_from_its_beginning_to_the_end_of_the_connection() {
    let mut world = World::new(8);
    let stack = side(OLD, 1000);
    world.control.set_clock(11);
    world.prepare(&stack, Half::Local, NEW, 1, false).unwrap();
    world.control.set_clock(12);
    // Said again: nothing happens.
    world.prepare(&stack, Half::Local, NEW, 1, false).unwrap();
    assert_eq!(world.told(), [(What::Made, 11), (What::Prepared(Half::Local), 11)]);

    world.control.commit(&world.engine, &stack, Half::Local, 1, 2).unwrap();
    world.control.commit(&world.engine, &stack, Half::Local, 1, 2).unwrap();
    assert_eq!(world.told(), [(What::Rebound(Half::Local), 12)]);
    let journal = world.control.journal();
    let binding = journal.get(journal.next() - 1).unwrap().binding;
    assert_eq!((binding.stack, binding.wire.local), (stack, NEW));

    world.expire(70, true);
    assert_eq!(world.told(), [(What::GraceEnded, 12)]);
    world.prepare(&stack, Half::Remote, NEXT, 5, false).unwrap();
    world.control.abort(&world.engine, &stack, Half::Remote, 5).unwrap();
    assert_eq!(world.told(), [(What::Prepared(Half::Remote), 12), (What::Aborted(Half::Remote), 12)]);
    world.expire(71, false);
    assert_eq!(world.told(), [(What::Gone, 12)]);
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let mut world = World::new(8);
    let (one, two) = (side(OLD, 1000), side(NEXT, 1000));
    world.control.add(&world.engine, &one, &side(NEW, 1000), 1).unwrap();
    assert_eq!(world.told(), [(What::Made, 0)]);
    assert_eq!(world.prepare(&two, Half::Local, NEW, 1, false), Err(TableError::Conflict));
    assert_eq!(world.control.commit(&world.engine, &one, Half::Local, 9, 2), Err(TableError::NotFound));
    assert_eq!(world.control.abort(&world.engine, &two, Half::Local, 9), Err(TableError::NotFound));
    assert_eq!(world.told(), []);
}

#[test]
fn who_loses_a_wire_side_is_named() {
    let mut world = World::new(8);
    let (one, two) = (side(OLD, 1000), side(NEXT, 1000));
    world.control.add(&world.engine, &one, &side(NEW, 1000), 1).unwrap();
    world.prepare(&two, Half::Local, NEW, 1, true).unwrap();
    let told = world.told();
    let whats: Vec<What> = told.iter().map(|(what, _)| *what).collect();
    assert_eq!(whats, [What::Made, What::Made, What::Prepared(Half::Local), What::Lost]);
    let journal = world.control.journal();
    let lost = journal.get(journal.next() - 1).unwrap().binding;
    assert_eq!((lost.stack, lost.lost), (one, true));
}

#[test]
fn newcomers_and_a_full_table() {
    let mut world = World::new(2);
    let (stack, wire) = (side(OLD, 1000), side(NEW, 1000));
    world.control.add(&world.engine, &stack, &wire, 1).unwrap();
    world.control.displace(&world.engine, &stack, true, |_| false, 1, 1).unwrap();
    assert_eq!(world.told(), [(What::Made, 0), (What::Displaced, 0)]);
    for port in [2000, 2001] {
        let error = world.control.add(&world.engine, &side(OLD, port), &side(NEW, port), 1);
        assert_eq!(error, Err(TableError::Full));
    }
    assert_eq!(world.told(), [(What::Full, 0)]);
    world.control.flush(&world.engine);
    assert_eq!(world.told(), [(What::Gone, 0), (What::Gone, 0)]);
}
