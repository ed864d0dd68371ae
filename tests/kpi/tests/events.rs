//! Events: reading, polling, kqueue(2), and what becomes of readers when things go away.

mod common;

use common::moves::*;
use common::{RW, add, delete, flow, loaded, unload};
use mobconn_abi::{Event, EventKind, Half, READERS_MAX, TCP, Tuple};
use mobconn_kpi::{Errno, Failures, File, Kqueue, Machine, Options, Vnet};
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

const SIZE: usize = size_of::<Event>();
const EVFILT_READ: i16 = -1;
const EVFILT_WRITE: i16 = -2;
const POLLIN: i32 = 1;
const POLLOUT: i32 = 4;
const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

fn read(file: &File, count: usize) -> Result<Vec<Event>, Errno> {
    let mut events = vec![Event::default(); count];
    let length = file.read(events.as_mut_bytes(), false)?;
    assert_eq!(length % SIZE, 0, "whole events only");
    events.truncate(length / SIZE);
    Ok(events)
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| EventKind::from_raw(event.kind).expect("a kind")).collect()
}

/// Opens the device and begins to watch.
fn watch(vnet: &Vnet) -> File {
    let file = vnet.open("mobconn", 0, RW).expect("open");
    assert_eq!(read(&file, 1), Err(Errno::EAGAIN), "nothing has happened yet");
    file
}

fn port(n: u16) -> (Tuple, Tuple) {
    flow(false, TCP, n)
}

#[test]
fn what_happens_is_read_in_order() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = port(1000);
    add(&vnet, stack, wire).expect("add");
    let file = watch(&vnet);
    machine.set_uptime(Some(7));
    add(&vnet, port(1001).0, port(1001).1).expect("add");
    delete(&vnet, stack).expect("delete");
    let events = read(&file, 10).expect("read");
    assert_eq!(kinds(&events), [EventKind::Made, EventKind::Gone], "what was before is not told");
    assert_eq!((events[0].sequence + 1, events[0].lost), (events[1].sequence, 0));
    assert_eq!((events[0].time, events[0].half), (7_000_000, 0));
    assert_eq!((events[0].record.stack, events[0].record.wire), port(1001));
    assert_eq!((events[1].record.stack, events[1].record.wire), (stack, wire));
    assert_eq!(read(&file, 1), Err(Errno::EAGAIN));
}

#[test]
fn a_small_buffer_takes_what_fits() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = watch(&vnet);
    for n in 0..5 {
        add(&vnet, port(1000 + n).0, port(1000 + n).1).expect("add");
    }
    assert_eq!(file.read(&mut [0; SIZE - 1], false), Err(Errno::EINVAL));
    assert_eq!(file.read(&mut [], false), Err(Errno::EINVAL));
    let mut bytes = [0; 2 * SIZE + 17];
    assert_eq!(file.read(&mut bytes, false), Ok(2 * SIZE));
    assert_eq!(Event::read_from_bytes(&bytes[SIZE..2 * SIZE]).expect("an event").record.stack, port(1001).0);
    assert_eq!(read(&file, 100).expect("read").len(), 3);
}

#[test]
fn who_is_too_slow_is_told_how_much_was_lost() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (slow, quick) = (watch(&vnet), watch(&vnet));
    let (stack, wire) = port(1000);
    let mut seen = 0;
    for _ in 0..1000 {
        add(&vnet, stack, wire).expect("add");
        delete(&vnet, stack).expect("delete");
        seen += read(&quick, 10).expect("read").iter().map(|event| (event.lost + 1) as usize).sum::<usize>();
    }
    assert_eq!(seen, 2000);
    let events = read(&slow, 3000).expect("read");
    assert_eq!(events.len() as u64 + events[0].lost, 2000);
    assert!(events[0].lost > 0 && events[1..].iter().all(|event| event.lost == 0));
    assert!(events.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence));
}

#[test]
fn poll_and_kqueue_tell_when_there_is_something() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = vnet.open("mobconn", 0, RW).expect("open");
    assert_eq!(file.poll(POLLIN, NOW), Ok(0), "the first poll begins to watch");
    let mut queue = Kqueue::new();
    assert_eq!(queue.add(&file, EVFILT_WRITE), Err(Errno::EINVAL));
    queue.add(&file, EVFILT_READ).expect("EVFILT_READ");
    assert_eq!(queue.wait(NOW), [0_i64; 0]);
    std::thread::scope(|scope| {
        let polled = scope.spawn(|| file.poll(POLLIN | POLLOUT, SOON));
        let told = scope.spawn(|| queue.wait(SOON));
        std::thread::sleep(Duration::from_millis(20));
        add(&vnet, port(1000).0, port(1000).1).expect("add");
        assert_eq!(polled.join().expect("poll"), Ok(POLLIN));
        assert_eq!(told.join().expect("kevent"), [SIZE as i64]);
    });
    delete(&vnet, port(1000).0).expect("delete");
    assert_eq!(queue.wait(NOW), [2 * SIZE as i64]);
    assert_eq!(read(&file, 9).expect("read").len(), 2);
    assert_eq!((file.poll(POLLIN, NOW), queue.wait(NOW)), (Ok(0), vec![]));
    // A filter that comes late finds what is there.
    add(&vnet, port(1000).0, port(1000).1).expect("add");
    let mut late = Kqueue::new();
    late.add(&file, EVFILT_READ).expect("EVFILT_READ");
    assert_eq!(late.wait(NOW), [SIZE as i64]);
}

fn asleep(machine: &Machine, count: usize) {
    while machine.sleepers() < count {
        std::thread::yield_now();
    }
}

#[test]
fn a_read_waits_for_an_event_or_a_signal() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = vnet.open("mobconn", 0, RW).expect("open");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| file.read(&mut [0; 4 * SIZE], true));
        asleep(&machine, 1);
        add(&vnet, port(1000).0, port(1000).1).expect("add");
        assert_eq!(reader.join().expect("read"), Ok(SIZE), "it does not wait for a full buffer");
        let reader = scope.spawn(|| file.read(&mut [0; SIZE], true));
        asleep(&machine, 1);
        assert_eq!(machine.interrupt(), 1);
        assert_eq!(reader.join().expect("read"), Err(Errno::EINTR));
    });
}

#[test]
fn unloading_sends_readers_home() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    add(&vnet, port(1000).0, port(1000).1).expect("add");
    let (sleeping, polling, other) = (watch(&vnet), watch(&vnet), watch(&vnet));
    let mut queue = Kqueue::new();
    queue.add(&other, EVFILT_READ).expect("EVFILT_READ");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| sleeping.read(&mut [0; SIZE], true));
        let poller = scope.spawn(|| polling.poll(POLLIN, SOON));
        asleep(&machine, 1);
        std::thread::sleep(Duration::from_millis(20));
        unload(&machine);
        assert_eq!(reader.join().expect("read"), Err(Errno::ENXIO));
        assert_ne!(poller.join().expect("poll").expect("poll") & POLLIN, 0);
    });
    assert_eq!(other.read(&mut [0; SIZE], true), Err(Errno::ENXIO));
    assert_eq!(queue.wait(NOW), [0_i64; 0]);
}

#[test]
fn only_root_of_the_own_stack_reads() {
    let machine = loaded(Options::default());
    let (host, jail) = (machine.vnet0(), machine.vnet_create());
    let (in_host, in_jail) = (watch(&host), watch(&jail));
    add(&jail, port(1000).0, port(1000).1).expect("add");
    assert_eq!(read(&in_host, 1), Err(Errno::EAGAIN));
    assert_eq!(kinds(&read(&in_jail, 1).expect("read")), [EventKind::Made]);
    let writer = host.open("mobconn", 0, 2).expect("open");
    assert_eq!(writer.read(&mut [0; SIZE], false), Err(Errno::EBADF));
    drop(in_jail);
    jail.destroy();
}

#[test]
fn a_wild_buffer_does_no_harm() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = watch(&vnet);
    add(&vnet, port(1000).0, port(1000).1).expect("add");
    assert_eq!(file.read_into(&mut [0; SIZE / 2], 1 << 20, false), Err(Errno::EFAULT));
    delete(&vnet, port(1000).0).expect("delete");
    assert_eq!(kinds(&read(&file, 9).expect("read")), [EventKind::Gone], "the one before went with the buffer");
}

#[test]
fn there_are_so_many_readers_and_no_more() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let mut files: Vec<File> = (0..READERS_MAX).map(|_| watch(&vnet)).collect();
    let one_more = vnet.open("mobconn", 0, RW).expect("open");
    assert_eq!(one_more.read(&mut [0; SIZE], true), Err(Errno::EMFILE));
    assert_eq!(one_more.poll(POLLIN, NOW), Ok(POLLIN), "the read says why");
    assert_eq!(Kqueue::new().add(&one_more, EVFILT_READ), Err(Errno::EMFILE));
    files.pop();
    assert_eq!(read(&one_more, 1), Err(Errno::EAGAIN));
    add(&vnet, port(1000).0, port(1000).1).expect("add");
    assert!(files.iter().chain([&one_more]).all(|file| read(file, 2).expect("read").len() == 1));
}

#[test]
fn short_memory_is_said_and_passes() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    machine.set_failures(Failures::All);
    assert_eq!(vnet.open("mobconn", 0, RW).map(drop), Err(Errno::ENOMEM));
    machine.set_failures(Failures::None);
    let file = vnet.open("mobconn", 0, RW).expect("open");
    machine.set_failures(Failures::All);
    assert_eq!(file.read(&mut [0; SIZE], false), Err(Errno::ENOMEM));
    machine.set_failures(Failures::None);
    assert_eq!(read(&file, 1), Err(Errno::EAGAIN));
}

#[test]
fn the_kernels_own_questions_are_answered() {
    const FIONBIO: u32 = 0x8004_667e;
    const FIOASYNC: u32 = 0x8004_667d;
    const FIONREAD: u32 = 0x4004_667f;
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = watch(&vnet);
    assert_eq!(file.ioctl(FIONBIO, &mut [1, 0, 0, 0], &mut []), Ok(()));
    assert_eq!(file.ioctl(FIOASYNC, &mut [0; 4], &mut []), Ok(()));
    assert_eq!(file.ioctl(FIOASYNC, &mut [1, 0, 0, 0], &mut []), Err(Errno::ENOTTY));
    add(&vnet, port(1000).0, port(1000).1).expect("add");
    let mut ready = [0; 4];
    file.ioctl(FIONREAD, &mut ready, &mut []).expect("FIONREAD");
    assert_eq!(u32::from_le_bytes(ready) as usize, SIZE);
}

#[test]
fn readers_beside_writers_miss_nothing() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = watch(&vnet);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for _ in 0..200 {
                    let (stack, wire) = port(1000 + thread);
                    add(&vnet, stack, wire).expect("add");
                    delete(&vnet, stack).expect("delete");
                }
            });
        }
        let mut seen = 0;
        while seen < 800 {
            assert_ne!(file.poll(POLLIN, SOON), Ok(0), "{seen} seen");
            seen += read(&file, 7).expect("read").iter().map(|event| event.lost + 1).sum::<u64>();
        }
        assert_eq!(seen, 800);
    });
}

#[test]
fn a_move_is_told() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let file = watch(&vnet);
    let (stack, to) = (at_mover(false, TCP, 1), place(false, 2));
    let step = Step { half: Half::Local, to, generation: 1, hold: true, take: false };
    prepare(&vnet, stack, step).expect("prepare");
    commit(&vnet, stack, Half::Local, 1).expect("commit");
    let events = read(&file, 9).expect("read");
    assert_eq!(kinds(&events), [EventKind::Made, EventKind::Prepared, EventKind::Rebound]);
    assert_eq!([events[0].half, events[1].half, events[2].half], [0, 1, 1]);
    assert_eq!(events[2].record.wire, at_mover(false, TCP, 2));
}
