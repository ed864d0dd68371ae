use super::common::Fake;
use super::*;
use std::sync::{Arc, Mutex};

fn side(protocol: u8, local: &str, remote: &str) -> Tuple {
    tuple::side(protocol, local.parse().unwrap(), remote.parse().unwrap()).unwrap()
}

fn tcp(local: &str) -> Tuple {
    side(TCP, local, "203.0.113.9:22")
}

fn established(tuple: Tuple, instance: u64) -> Connection {
    Connection { tuple, instance, phase: Phase::Established }
}

/// A host over a fake kernel, and the connections that it will see.
fn host() -> (Fake, KernelHost, Arc<Mutex<Vec<Connection>>>) {
    let fake = Fake::new();
    let connections = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&connections);
    let device = Device::open(&fake.path).unwrap();
    let host = KernelHost::over(fake.path.clone(), device, Box::new(move || Ok(shared.lock().unwrap().clone())));
    (fake, host, connections)
}

#[test]
fn a_connection_is_gone_when_two_listings_miss_it() {
    let (_fake, mut host, connections) = host();
    let stack = tcp("192.0.2.1:1");
    *connections.lock().unwrap() = vec![established(stack, 7)];
    host.refresh();
    let expected = [(flow(&stack).unwrap(), 7)];
    assert_eq!(host.flows(), (expected.into(), 1));
    connections.lock().unwrap().clear();
    host.refresh();
    assert_eq!(host.flows(), (expected.into(), 1));
    host.refresh();
    assert_eq!(host.flows(), (vec![], 0));
}

#[test]
fn another_instance_is_seen_at_once() {
    let (_fake, mut host, connections) = host();
    let stack = tcp("192.0.2.1:1");
    *connections.lock().unwrap() = vec![established(stack, 7)];
    host.refresh();
    let waiting = Connection { tuple: stack, instance: 7, phase: Phase::Waiting };
    *connections.lock().unwrap() = vec![established(stack, 8), waiting];
    host.refresh();
    assert_eq!(host.instance(&flow(&stack).unwrap()), Some(8));
    *connections.lock().unwrap() = vec![waiting];
    host.refresh();
    assert_eq!(host.instance(&flow(&stack).unwrap()), None);
    assert_eq!(host.flows(), (vec![], 0));
}

#[test]
fn an_unknown_connection_is_looked_for() {
    let (_fake, mut host, connections) = host();
    let stack = tcp("192.0.2.1:1");
    host.refresh();
    host.cost = Duration::ZERO;
    *connections.lock().unwrap() = vec![established(stack, 7)];
    assert_eq!(host.instance(&flow(&stack).unwrap()), Some(7));
    // A listing that took long is not repeated at once for every question.
    host.cost = Duration::from_secs(3600);
    let other = tcp("192.0.2.1:2");
    connections.lock().unwrap().push(established(other, 8));
    assert_eq!(host.instance(&flow(&other).unwrap()), None);
}

#[test]
fn what_cannot_move_is_not_offered() {
    let (_fake, mut host, connections) = host();
    *connections.lock().unwrap() = [
        side(TCP, "127.0.0.1:1", "127.0.0.1:2"),
        side(TCP, "[::1]:1", "[::1]:2"),
        side(TCP, "[fe80::1]:1", "[fe80::2]:2"),
        side(TCP, "169.254.1.1:1", "169.254.1.2:2"),
        side(mobconn_abi::UDP, "192.0.2.1:1", "224.0.0.1:2"),
        side(mobconn_abi::UDP, "192.0.2.1:1", "255.255.255.255:2"),
        side(mobconn_abi::UDP, "[2001:db8::1]:1", "[2001:db8::2]:2"),
        side(TCP, "192.0.2.1:1", "203.0.113.1:22"),
        side(TCP, "192.0.2.1:1", "203.0.113.1:53"),
    ]
    .map(|tuple| established(tuple, 1))
    .into();
    host.refresh();
    host.exclude(&[53], &[]);
    let (flows, movable) = host.flows();
    let remotes: Vec<String> = flows.iter().map(|(flow, _)| flow.remote.to_string()).collect();
    assert_eq!(remotes, ["203.0.113.1:22", "[2001:db8::2]:2"]);
    assert_eq!(movable, 3);
    // Nor can anybody else claim what is excluded here.
    let excluded = flow(&side(TCP, "192.0.2.1:1", "203.0.113.1:53")).unwrap();
    assert_eq!(host.instance(&excluded), None);
    host.exclude(&[], &[]);
    assert_eq!(host.instance(&excluded), Some(1));
    for prefix in ["203.0.113.0/24", "192.0.2.1"] {
        host.exclude(&[], &[prefix.parse().unwrap()]);
        let remotes: Vec<String> = host.flows().0.iter().map(|(flow, _)| flow.remote.to_string()).collect();
        assert_eq!(remotes, ["[2001:db8::2]:2"]);
        assert_eq!(host.instance(&excluded), None);
    }
}

#[test]
fn moves_reach_the_kernel_and_show_in_the_wire_side() {
    let (fake, mut host, _) = host();
    let stack = tcp("192.0.2.1:1");
    let flow = flow(&stack).unwrap();
    let new: IpAddr = "198.51.100.1".parse().unwrap();
    assert_eq!(host.wire(&flow), None);
    assert_eq!(host.prepare(Half::Local, new, true, &[(flow, 4)]), [Ok(())]);
    assert_eq!(host.wire(&flow), Some(flow));
    let prepared = Prepared { flow, half: Half::Local, old: flow.local.ip(), new, generation: 4, hold: true };
    assert_eq!(host.prepared(), [prepared]);
    assert_eq!(host.commit(Half::Local, &[(flow, 5)]), [Err(KernelError::NotFound)]);
    assert_eq!(host.commit(Half::Local, &[(flow, 4)]), [Ok(())]);
    let moved = Flow { local: (new, 1).into(), ..flow };
    assert_eq!(host.wire(&flow), Some(moved));
    // Both wire sides are accepted during the grace time.
    assert_eq!((host.stack(&moved), host.stack(&flow)), (Some(flow), Some(flow)));
    let elsewhere = Flow { local: ([203, 0, 113, 7], 1).into(), ..flow };
    assert_eq!((host.stack(&elsewhere), host.wire(&elsewhere)), (None, None));
    assert_eq!(host.prepared(), []);
    assert_eq!(host.prepare(Half::Local, new, false, &[(flow, 4)]), [Err(KernelError::Stale)]);
    // A flow of two IP versions is none; the results of the others stay in order.
    let absurd = Flow { local: flow.local, remote: "[2001:db8::1]:1".parse().unwrap(), protocol: Protocol::Tcp };
    let results = host.prepare(Half::Remote, new, false, &[(absurd, 1), (flow, 1)]);
    assert_eq!(results, [Err(KernelError::Other(22)), Ok(())]);
    let old = flow.remote.ip();
    assert_eq!(host.prepared(), [Prepared { flow, half: Half::Remote, old, new, generation: 1, hold: false }]);
    assert_eq!(host.abort(Half::Remote, &[(flow, 1)]), [Ok(())]);
    assert_eq!(fake.state().find(&stack).unwrap().wire.remote, stack.remote);
}

#[test]
fn a_displaced_flow_is_found_by_its_wire_side() {
    let (fake, mut host, _) = host();
    let (wire, stack) = (tcp("192.0.2.1:1"), side(TCP, "192.0.2.1:1", "203.0.113.9:50001"));
    fake.state().bind(stack, wire);
    let [wire, stack] = [wire, stack].map(|tuple| flow(&tuple).unwrap());
    assert_eq!((host.stack(&wire), host.wire(&stack)), (Some(stack), Some(wire)));
    assert_eq!((host.stack(&stack), host.wire(&wire)), (None, None));
}

#[test]
fn bindings_without_a_connection_are_removed_in_time() {
    let (fake, mut host, connections) = host();
    let (live, gone, waiting) = (tcp("192.0.2.1:1"), tcp("192.0.2.1:2"), tcp("192.0.2.1:3"));
    let udp = side(mobconn_abi::UDP, "192.0.2.1:1", "203.0.113.9:53");
    for stack in [live, gone, waiting, udp] {
        fake.state().bind(stack, stack);
    }
    *connections.lock().unwrap() =
        vec![established(live, 1), Connection { tuple: waiting, instance: 2, phase: Phase::Waiting }];
    host.refresh();
    let (begin, patience) = (Instant::now(), Duration::from_secs(60));
    host.remove_orphans(patience, begin);
    host.remove_orphans(patience, begin + Duration::from_secs(59));
    assert_eq!(fake.state().table.len(), 4);
    host.remove_orphans(patience, begin + Duration::from_secs(60));
    let left: Vec<Tuple> = fake.state().table.values().map(|record| record.stack).collect();
    assert_eq!(left, [live, waiting, udp], "the kernel itself removes idle UDP");
    // One that is back in time begins anew.
    fake.state().bind(gone, gone);
    host.remove_orphans(patience, begin + Duration::from_secs(100));
    connections.lock().unwrap().push(established(gone, 3));
    host.refresh();
    host.remove_orphans(patience, begin + Duration::from_secs(130));
    connections.lock().unwrap().pop();
    host.refresh();
    host.refresh();
    host.remove_orphans(patience, begin + Duration::from_secs(170));
    assert_eq!(fake.state().table.len(), 4);
    host.expire(5, 7);
    assert_eq!(fake.state().expire, (5, 7));
}

#[test]
fn a_device_that_goes_away_is_opened_again() {
    let (fake, mut host, _) = host();
    let flow = flow(&tcp("192.0.2.1:1")).unwrap();
    fake.state().garbage = Some(vec![]);
    assert_eq!(host.check_device(), None);
    assert!(!host.device_error().is_empty());
    assert_eq!(host.commit(Half::Local, &[(flow, 1)]), [Err(KernelError::Other(6))]);
    assert_eq!(host.wire(&flow), None);
    fake.state().garbage = None;
    assert_eq!(host.check_device().map(|info| info.module), Some(0x0001_0203));
    assert_eq!(host.device_error(), "");
    assert_eq!(host.commit(Half::Local, &[(flow, 1)]), [Err(KernelError::NotFound)]);
}

/// How often the fake kernel was asked for one binding, and for all of them, since the last time.
fn questions(fake: &Fake) -> (usize, usize) {
    let commands = std::mem::take(&mut fake.state().commands);
    let of = |wanted: &[u32]| commands.iter().filter(|(command, _)| wanted.contains(command)).count();
    (of(&[abi::FLOW_GET, abi::FLOW_FIND]), of(&[abi::FLOW_LIST]))
}

#[test]
fn a_move_of_a_few_flows_does_not_read_the_table() {
    let (fake, mut host, _) = host();
    let (stack, wire) = (|port| tcp(&format!("192.0.2.1:{port}")), |port| tcp(&format!("198.51.100.1:{port}")));
    assert_eq!(host.wire(&flow(&stack(1)).unwrap()), None);
    assert_eq!(questions(&fake), (0, 0), "there is nothing in the table");
    (1..=400).for_each(|port| fake.state().bind(stack(port), wire(port)));
    let mut ask = |ports: std::ops::RangeInclusive<u16>| {
        host.bindings = Bindings::default();
        for port in ports {
            assert_eq!(host.wire(&flow(&stack(port)).unwrap()), flow(&wire(port)));
            assert_eq!(host.stack(&flow(&wire(port)).unwrap()), flow(&stack(port)));
            assert_eq!(host.stack(&flow(&stack(port)).unwrap()), None);
        }
    };
    ask(1..=3);
    assert_eq!(questions(&fake), (9, 0));
    ask(1..=400);
    let limit = (QUESTIONS + 400 / LISTING_SHARE) as usize;
    // The fake kernel takes two calls to list everything.
    assert_eq!(questions(&fake), (limit, 2), "then it pays to read it all, once");
}

#[test]
fn the_kernel_gets_ready_once() {
    let (fake, mut host, _) = host();
    host.get_ready();
    host.get_ready();
    assert_eq!(fake.state().commands.iter().filter(|command| **command == (abi::MOVE_PREPARE, 0)).count(), 1);
    host.lose_device("it was unloaded".into());
    assert!(host.check_device().is_some());
    host.get_ready();
    assert_eq!(fake.state().commands.iter().filter(|command| **command == (abi::MOVE_PREPARE, 0)).count(), 2);
    assert_eq!(fake.state().table.len(), 0);
}
