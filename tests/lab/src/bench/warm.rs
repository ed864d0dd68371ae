//! Memory that is at hand, as on a machine of one's own.
//!
//! The host of a virtual machine may take pages away that have not been touched
//! for a while. The machine does not notice: touching such a page only takes
//! some hundred times longer. That would be most of what a move after an outage
//! seems to take. So while something is measured, the pages of this process and
//! of the programs that it started are touched all the time.

use crate::error::{Doing, Result};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// After so many rounds it is looked anew where pages are.
const ROUNDS: usize = 10;
/// Pages that one system call touches: it holds the lock of the process's memory for so long.
const AT_ONCE: usize = 64;
/// Pages of one piece of memory that are looked at.
const PIECE: usize = 1 << 14;
const PAGE: usize = 4096;

/// Touches pages until it is dropped.
pub(super) struct Warm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Warm {
    pub(super) fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let touch = move || {
            behind_all_others();
            while !stopped.load(Ordering::Relaxed) {
                let places: Vec<_> = family().into_iter().map(|pid| (pid, resident(pid))).collect();
                for _ in 0..ROUNDS {
                    for (pid, pages) in &places {
                        touch(*pid, pages);
                    }
                    thread::sleep(PAUSE);
                }
            }
        };
        let thread = thread::Builder::new().name("warm".to_owned()).spawn(touch).doing("starting a thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Only a processor that has nothing else to do runs this thread from now on.
fn behind_all_others() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the one structure that it is given. Of the calling thread (0), it can only take something
    // away, so it is of no importance whether it works.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// This process and those that it started.
fn family() -> Vec<Pid> {
    let me = Pid::this();
    let child = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent.
        let parent: i32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        (parent == me.as_raw()).then_some(Pid::from_raw(pid))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    std::iter::once(me).chain(entries.filter_map(child)).collect()
}

/// Addresses of the pages that a process has.
fn resident(pid: Pid) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(pagemap) = File::open(format!("/proc/{pid}/pagemap")) else { return Vec::new() };
    maps.lines().filter_map(piece).flat_map(|(begin, end)| present(&pagemap, begin, end)).collect()
}

/// Where a piece of memory that can be read begins and ends.
fn piece(line: &str) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    let (begin, end) = range.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    // The kernel's own, [vvar] and the like, are not memory.
    let ordinary = rest.starts_with('r') && !rest.contains("[v");
    ordinary.then_some((address(begin)?, address(end)?))
}

fn present(pagemap: &File, begin: usize, end: usize) -> Vec<usize> {
    const ENTRY: usize = size_of::<u64>();
    let pages = ((end - begin) / PAGE).min(PIECE);
    let mut entries = vec![0; pages * ENTRY];
    let length = pagemap.read_at(&mut entries, (begin / PAGE * ENTRY) as u64).unwrap_or(0);
    let entries = entries.get(..length).unwrap_or_default().chunks_exact(ENTRY);
    // Bit 63: it is in memory.
    let here = entries.enumerate().filter(|(_, entry)| entry.last().is_some_and(|last| last & 0x80 != 0));
    here.map(|(number, _)| begin + number * PAGE).collect()
}

fn touch(pid: Pid, pages: &[usize]) {
    for pages in pages.chunks(AT_ONCE) {
        let remote: Vec<_> = pages.iter().map(|&base| RemoteIoVec { base, len: 1 }).collect();
        let mut bytes = [0; AT_ONCE];
        let local = bytes.get_mut(..pages.len()).unwrap_or_default();
        // Memory that went, or a process that ended: the next look will tell.
        let _ = process_vm_readv(pid, &mut [IoSliceMut::new(local)], &remote);
    }
}

/// How long it takes to touch a page that nobody touched for a second, and one that was just touched.
pub(super) fn cost_of_a_page() -> [Duration; 2] {
    const PAGES: u32 = 1024;
    let mut memory = vec![0_u8; PAGES as usize * PAGE];
    let mut all = || {
        let began = Instant::now();
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = black_box(*byte).wrapping_add(1));
        began.elapsed() / PAGES
    };
    all();
    thread::sleep(Duration::from_secs(1));
    [all(), all()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_and_touched() {
        let memory = vec![1_u8; 64 * PAGE];
        let pages = resident(Pid::this());
        let begin = memory.as_ptr() as usize;
        let found = pages.iter().filter(|page| (begin..begin + memory.len()).contains(page)).count();
        assert!((63..=64).contains(&found), "{found} of 64 pages");
        touch(Pid::this(), &pages);
        assert_eq!(memory.last(), Some(&1));
    }

    #[test]
    fn pieces_are_read() {
        assert_eq!(piece("7f00-8f00 rw-p 00000000 00:00 0"), Some((0x7f00, 0x8f00)));
        for other in ["7f00-8f00 ---p 0 00:00 0", "7f00-8f00 r--p 0 00:00 0 [vvar]", "nonsense", ""] {
            assert_eq!(piece(other), None, "{other}");
        }
    }

    #[test]
    fn who_was_started_is_of_the_family() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(family().contains(&pid) && family().contains(&Pid::this()));
        drop(child.stdin.take());
        child.wait().expect("its end");
    }
}
