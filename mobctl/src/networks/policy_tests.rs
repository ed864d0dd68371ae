use super::*;
use crate::networks::{Gateway, Interface};
use proptest::prelude::*;

/// Wishes with a hold-down of five seconds.
pub(crate) fn preference(prefer: &[&str]) -> Preference {
    Preference {
        prefer: prefer.iter().map(|name| (*name).to_owned()).collect(),
        hold_down: Duration::from_secs(5),
        ..Preference::default()
    }
}

/// A host by its addresses: `INTERFACE ADDRESS/LENGTH [ROUTER] [FLAG...]`. Interfaces are numbered as they come, and
/// the system prefers routers in that order. Flags: down, nolink, tentative, duplicated, detached, deprecated, temporary.
pub(crate) fn host(lines: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (rank, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let known = snapshot.interfaces.iter().position(|interface| interface.name == name);
        let at = known.unwrap_or_else(|| {
            let index = snapshot.interfaces.len() as u32 + 1;
            let loopback = name == "lo0";
            snapshot.interfaces.push(Interface { index, name: name.into(), up: true, running: true, loopback });
            snapshot.interfaces.len() - 1
        });
        let interface = &mut snapshot.interfaces[at];
        let (ip, length) = words.next().unwrap().split_once('/').unwrap();
        let mut address = Address::new(ip.parse().unwrap(), length.parse().unwrap(), interface.index);
        for word in words {
            match word {
                "down" => interface.up = false,
                "nolink" => interface.running = false,
                "tentative" => address.tentative = true,
                "duplicated" => address.duplicated = true,
                "detached" => address.detached = true,
                "deprecated" => address.deprecated = true,
                "temporary" => address.temporary = true,
                router => {
                    let gateway =
                        Gateway { interface: interface.index, address: router.parse().unwrap(), rank: rank as u32 };
                    snapshot.gateways.push(gateway);
                }
            }
        }
        snapshot.addresses.push(address);
    }
    snapshot
}

const WLAN: &str = "wlan0 192.0.2.9/24 192.0.2.1";
const CELL: &str = "ue0 198.51.100.9/24 198.51.100.1";
const HOME: &str = "em0 203.0.113.9/24 203.0.113.1";

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// A policy and what it decided, as text.
struct Case(Policy);

impl Case {
    fn new(prefer: &[&str], lines: &[&str]) -> Self {
        let mut case = Self(Policy::new(preference(prefer)));
        let moved = case.see(0, lines);
        assert!(!prefer.is_empty() || moved.is_empty(), "nothing moves at the beginning: {moved:?}");
        case
    }

    fn see(&mut self, seconds: u64, lines: &[&str]) -> Vec<String> {
        text(self.0.observe(at(seconds), host(lines), []))
    }

    fn due(&mut self, seconds: u64) -> Vec<String> {
        text(self.0.due(at(seconds)))
    }

    fn chosen(&self) -> Option<String> {
        self.0.chosen([0; 4].into()).map(|ip| ip.to_string())
    }
}

fn text(decisions: Vec<Decision>) -> Vec<String> {
    let one = |d: Decision| format!("{} > {}{}", d.old, d.new, if d.old_usable { " before break" } else { "" });
    decisions.into_iter().map(one).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_lost_address_moves_at_once() {
    let mut case = Case::new(&[], &[WLAN, CELL]);
    assert_eq!(case.see(1, &[CELL]), ["192.0.2.9 > 198.51.100.9"]);
    assert_eq!(case.see(2, &[CELL]), NOTHING, "once");
}

#[test]
fn a_lost_link_moves_at_once_and_back_after_the_hold_down() {
    let mut case = Case::new(&[], &[WLAN, CELL]);
    assert_eq!(case.see(1, &["wlan0 192.0.2.9/24 192.0.2.1 nolink", CELL]), ["192.0.2.9 > 198.51.100.9"]);
    assert_eq!(case.see(2, &[WLAN, CELL]), NOTHING);
    assert_eq!(case.0.deadline(), Some(at(7)));
    assert_eq!(case.due(6), NOTHING);
    assert_eq!(case.due(7), ["198.51.100.9 > 192.0.2.9 before break"]);
    assert_eq!(case.0.deadline(), None);
}

#[test]
fn flapping_does_not_move_again_and_again() {
    let mut case = Case::new(&[], &[WLAN, CELL]);
    assert_eq!(case.see(1, &[CELL]), ["192.0.2.9 > 198.51.100.9"]);
    for second in (2..60).step_by(4) {
        assert_eq!(case.see(second, &[WLAN, CELL]), NOTHING);
        assert_eq!(case.due(second + 3), NOTHING);
        assert_eq!(case.see(second + 3, &[CELL]), NOTHING, "who has left has left");
    }
    assert_eq!(case.see(100, &[WLAN, CELL]), NOTHING);
    assert_eq!(case.due(105), ["198.51.100.9 > 192.0.2.9 before break"]);
}

#[test]
fn delete_before_add() {
    // As dhclient does it.
    let mut case = Case::new(&[], &[WLAN]);
    assert_eq!(case.see(1, &[]), NOTHING);
    assert_eq!(case.chosen(), None);
    assert_eq!(case.see(9, &["wlan0 198.51.100.9/24 tentative"]), NOTHING);
    assert_eq!(case.see(9, &["wlan0 198.51.100.9/24"]), NOTHING, "no route yet");
    assert_eq!(case.see(9, &["wlan0 198.51.100.9/24 192.0.2.1"]), NOTHING, "the route of before is still there");
    assert_eq!(case.see(9, &["wlan0 198.51.100.9/24 198.51.100.1"]), ["192.0.2.9 > 198.51.100.9"]);
}

#[test]
fn the_same_address_again_is_no_move() {
    let mut case = Case::new(&[], &[WLAN]);
    assert_eq!(case.see(1, &[]), NOTHING);
    assert_eq!(case.see(2, &[WLAN]), NOTHING);
    assert_eq!(case.chosen().as_deref(), Some("192.0.2.9"));
}

#[test]
fn add_before_delete_on_one_interface() {
    let mut case = Case::new(&[], &[WLAN]);
    let second = "wlan0 192.0.2.77/24";
    assert_eq!(case.see(1, &[WLAN, second]), NOTHING, "no better than the first");
    assert_eq!(case.see(2, &[second, "wlan0 0.0.0.0/0 192.0.2.1"]), ["192.0.2.9 > 192.0.2.77"]);
    assert_eq!(
        case.see(3, &["wlan0 192.0.2.77/24 192.0.2.1 deprecated", "wlan0 192.0.2.78/24"]),
        ["192.0.2.9 > 192.0.2.78", "192.0.2.77 > 192.0.2.78 before break"]
    );
}

#[test]
fn a_new_default_route_is_a_better_network() {
    let mut case = Case::new(&[], &[WLAN, CELL]);
    assert_eq!(case.see(10, &[CELL, WLAN]), NOTHING);
    assert_eq!(case.due(15), ["192.0.2.9 > 198.51.100.9 before break"]);
    // The old one may go now, or later, and then nobody waits for it.
    assert_eq!(case.see(16, &[CELL]), ["192.0.2.9 > 198.51.100.9"]);
}

#[test]
fn wishes_come_before_routes() {
    let mut case = Case::new(&["em0", "wlan0"], &[CELL, WLAN]);
    assert_eq!(case.chosen().as_deref(), Some("192.0.2.9"));
    assert_eq!(case.see(10, &[CELL, WLAN, HOME]), NOTHING);
    let moved = case.due(15);
    // Who was wanted at the second best before goes on to the best.
    assert!(moved.contains(&"192.0.2.9 > 203.0.113.9 before break".to_owned()), "{moved:?}");
    // The other one too: whoever is there is wanted at home.
    assert!(moved.contains(&"198.51.100.9 > 203.0.113.9 before break".to_owned()), "{moved:?}");
}

#[test]
fn without_wishes_other_homes_stay() {
    let mut case = Case::new(&[], &[WLAN, CELL, HOME]);
    assert_eq!(case.see(10, &[HOME, WLAN, CELL]), NOTHING);
    assert_eq!(case.due(15), ["192.0.2.9 > 203.0.113.9 before break"]);
}

#[test]
fn wishes_at_run_time_are_followed_at_once() {
    let mut case = Case::new(&[], &[WLAN, CELL]);
    let moved = text(case.0.prefer(at(1), preference(&["ue0"])));
    assert_eq!(moved, ["192.0.2.9 > 198.51.100.9 before break"]);
    let moved = text(case.0.prefer(at(2), preference(&[])));
    assert_eq!(moved, ["198.51.100.9 > 192.0.2.9 before break"]);
    let ignoring = Preference { ignore: vec!["wlan0".into()], ..preference(&[]) };
    assert_eq!(text(case.0.prefer(at(3), ignoring)), ["192.0.2.9 > 198.51.100.9 before break"]);
}

#[test]
fn a_third_network_before_the_second_was_finished() {
    let mut case = Case::new(&[], &[WLAN]);
    assert_eq!(case.see(1, &[CELL]), ["192.0.2.9 > 198.51.100.9"]);
    // Those who never got there go on to the third, too.
    assert_eq!(case.see(2, &[HOME]), ["192.0.2.9 > 203.0.113.9", "198.51.100.9 > 203.0.113.9"]);
    assert_eq!(case.see(3, &[WLAN]), ["198.51.100.9 > 192.0.2.9", "203.0.113.9 > 192.0.2.9"]);
}

#[test]
fn the_old_network_goes_before_the_move_to_the_better_one_is_through() {
    let mut case = Case::new(&["ue0"], &[WLAN]);
    assert_eq!(case.see(1, &[WLAN, CELL]), NOTHING);
    assert_eq!(case.due(6), ["192.0.2.9 > 198.51.100.9 before break"]);
    assert_eq!(case.see(6, &[CELL]), ["192.0.2.9 > 198.51.100.9"], "again, and now it is urgent");
}

#[test]
fn by_hand_stays_until_it_cannot() {
    let mut case = Case::new(&["wlan0"], &[WLAN, CELL]);
    case.0.moved_by_hand("192.0.2.9".parse().unwrap(), "198.51.100.9".parse().unwrap());
    assert_eq!(case.see(100, &[WLAN, CELL]), NOTHING);
    assert_eq!(case.0.deadline(), None);
    assert_eq!(case.see(101, &[WLAN, "ue0 198.51.100.9/24"]), NOTHING, "who moves by hand knows a route");
    assert_eq!(case.see(102, &[WLAN]), ["198.51.100.9 > 192.0.2.9"]);
    assert!(!case.0.is_by_hand([0; 4].into()));
}

#[test]
fn what_cannot_be_used_is_not() {
    for line in [
        "em0 203.0.113.9/24 203.0.113.1 down",
        "em0 203.0.113.9/24 203.0.113.1 nolink",
        "em0 203.0.113.9/24 203.0.113.1 tentative",
        "em0 203.0.113.9/24 203.0.113.1 duplicated",
        "em0 203.0.113.9/24 203.0.113.1 detached",
        "em0 203.0.113.9/24",
        "em0 169.254.3.4/16 203.0.113.1",
        "lo0 203.0.113.9/32 203.0.113.1",
        "em0 127.0.0.1/8 203.0.113.1",
    ] {
        let mut case = Case::new(&["em0"], &[WLAN]);
        assert_eq!(case.see(1, &[line]), NOTHING, "{line}");
        assert_eq!(case.see(2, &[line, WLAN]), NOTHING, "{line}");
        assert_eq!(case.due(100), NOTHING, "{line}");
    }
}

#[test]
fn peers_on_the_link_need_no_router() {
    let targets = vec!["203.0.113.128/25".parse().unwrap()];
    let mut policy = Policy::new(Preference { targets, ..preference(&[]) });
    assert_eq!(policy.observe(at(0), host(&[WLAN]), []), []);
    let decisions = policy.observe(at(1), host(&["em0 203.0.113.9/24"]), []);
    assert_eq!(text(decisions), ["192.0.2.9 > 203.0.113.9"]);
}

#[test]
fn temporary_and_link_local_addresses() {
    let [stable, old] = ["em0 2001:db8::9/64 fe80::1", "em0 2001:db8::aaaa/64 temporary"];
    let mut policy = Policy::new(preference(&[]));
    let first = host(&["em0 fe80::9/64", old, stable]);
    assert_eq!(policy.observe(at(0), first, []), []);
    // Flows that began at the temporary address.
    let temporary: IpAddr = "2001:db8::aaaa".parse().unwrap();
    policy.moved_by_hand("2001:db8::9".parse().unwrap(), temporary);
    let new = "em0 2001:db8::bbbb/64 temporary";
    let deprecated = "em0 2001:db8::aaaa/64 temporary deprecated";
    assert_eq!(policy.observe(at(1), host(&["em0 fe80::9/64", stable, deprecated, new]), []), []);
    let decisions = text(policy.observe(at(2), host(&["em0 fe80::9/64", stable, new]), []));
    assert!(!decisions.is_empty() && decisions.iter().all(|d| !d.contains("fe80")), "{decisions:?}");
    assert_eq!(policy.chosen(temporary), Some("2001:db8::9".parse().unwrap()), "its own kind is no better elsewhere");
}

#[test]
fn a_deprecated_address_gives_way_to_its_own_kind() {
    let mut policy = Policy::new(preference(&[]));
    let first = ["em0 2001:db8::aaaa/64 fe80::1 temporary"];
    assert_eq!(policy.observe(at(0), host(&first), []), []);
    let then =
        ["em0 2001:db8::aaaa/64 fe80::1 temporary deprecated", "em0 2001:db8::9/64", "em0 2001:db8::bbbb/64 temporary"];
    let decisions = policy.observe(at(1), host(&then), []);
    assert_eq!(text(decisions), ["2001:db8::aaaa > 2001:db8::bbbb before break"]);
}

#[test]
fn flows_at_an_address_that_went_before_the_daemon_began() {
    let mut policy = Policy::new(preference(&[]));
    let left = "198.51.100.9".parse().unwrap();
    assert_eq!(text(policy.observe(at(0), host(&[WLAN]), [left])), ["198.51.100.9 > 192.0.2.9"]);
    assert_eq!(policy.observe(at(1), host(&[WLAN]), [left]), []);
}

#[test]
fn both_versions_move_each_for_itself() {
    let mut case = Case::new(&[], &[WLAN, "wlan0 2001:db8:a::9/64 fe80::1", CELL]);
    assert_eq!(case.see(1, &[CELL]), ["192.0.2.9 > 198.51.100.9"]);
    assert_eq!(case.see(2, &[CELL, "ue0 2001:db8:b::9/64 fe80::2"]), ["2001:db8:a::9 > 2001:db8:b::9"]);
}

/// Where flows are that begin at one address and follow every decision, one after the other.
fn follow(place: IpAddr, decisions: &[Decision]) -> IpAddr {
    decisions.iter().fold(place, |at, decision| if decision.old == at { decision.new } else { at })
}

proptest! {
    /// Whatever happens: flows end up at a usable address when there is one; nobody is moved to an address that is not;
    /// an address that is usable is left only for another that is, and not more often than the hold-down allows.
    #[test]
    fn flows_find_a_usable_address(
        states in proptest::collection::vec((0_u64..4, 0_u8..3, 0_u8..3, 0_u8..3, any::<bool>()), 1..40),
        prefer in proptest::sample::select(vec![vec![], vec!["em0"], vec!["ue0", "em0"], vec!["wlan0", "ue0", "em0"]]),
    ) {
        let mut policy = Policy::new(preference(&prefer));
        let mut place: Option<IpAddr> = None;
        let (mut now, mut last) = (at(1000), None::<Instant>);
        for (pause, wlan, cell, home, turned) in states {
            now = now.after(Duration::from_secs(pause));
            let state = |line: &str, state| match state {
                0 => None,
                1 => Some(format!("{line} nolink")),
                _ => Some(line.to_owned()),
            };
            let mut lines: Vec<String> =
                [state(WLAN, wlan), state(CELL, cell), state(HOME, home)].into_iter().flatten().collect();
            if turned {
                lines.reverse();
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut decisions = policy.due(now);
            for decision in &decisions {
                prop_assert!(policy.is_usable(decision.new));
            }
            decisions.extend(policy.observe(now, host(&lines), place));
            for decision in &decisions {
                prop_assert!(decision.old != decision.new && decision.old.is_ipv4() == decision.new.is_ipv4());
            }
            let usable: Vec<IpAddr> =
                policy.snapshot.addresses.iter().map(|a| a.ip).filter(|ip| policy.is_usable(*ip)).collect();
            if let Some(here) = place {
                let there = follow(here, &decisions);
                if decisions.iter().any(|decision| decision.old == here && decision.old_usable) {
                    prop_assert!(last.is_none_or(|last| now.since(last) >= Duration::from_secs(5)), "too soon");
                    last = Some(now);
                }
                place = Some(there);
                prop_assert!(usable.is_empty() || usable.contains(&there), "{there} of {usable:?}");
            } else {
                place = policy.chosen([0; 4].into());
            }
            let deadline = policy.deadline();
            prop_assert!(deadline.is_none_or(|deadline| deadline > now));
            prop_assert_eq!(policy.due(now), vec![]);
        }
    }
}
