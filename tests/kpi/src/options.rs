//! What kind of machine to boot, and how unkind it is.

/// How packets are laid out in mbufs before a hook sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// As the stack and most drivers make them: one mbuf, internal or with a cluster.
    Whole,
    /// The first mbuf holds this many bytes (but never less than the IP header), the rest follows.
    After(usize),
    /// Cut at arbitrary places by the machine's seed: empty and one-byte mbufs, internal, clusters at odd offsets,
    /// some of them shared or read-only so that `M_WRITABLE` is false. The IP header stays contiguous, no more.
    Arbitrary,
}

/// Which allocations that may fail do fail: `M_NOWAIT` malloc(9), mbufs, counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// None.
    None,
    /// The one after this many, once.
    After(u64),
    /// Every one from now on.
    All,
    /// So many in a million, by the machine's seed.
    PerMillion(u32),
}

/// A mistake that the machine makes on purpose, to show that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// None.
    Nothing,
    /// malloc(9) gives eight bytes less than it was asked for, where that is more than eight.
    ShortMemory,
    /// sx(9) locks let everybody in.
    NoLocks,
}

/// Options of [`Machine::boot`](crate::Machine::boot).
#[derive(Clone, Debug)]
pub struct Options {
    /// Most threads that may be inside the machine at once; each is a CPU of its own (`mp_ncpus`). 1 to 256.
    pub cpus: u16,
    /// Seed of every choice the machine makes.
    pub seed: u64,
    /// Layout of packets.
    pub split: Split,
    /// Allocations that fail.
    pub failures: Failures,
    /// `osreldate`, what `__FreeBSD_version` of the running kernel is.
    pub osreldate: i32,
    /// Bytes of memory that the machine says it has (`physmem`).
    pub memory: u64,
    /// Whether console output of the module (printf, log) is repeated on standard error.
    pub verbose: bool,
    /// A mistake of the machine's.
    pub planted: Planted,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cpus: 32,
            seed: 1,
            split: Split::Whole,
            failures: Failures::None,
            osreldate: 1_400_507,
            memory: 16 << 30,
            verbose: false,
            planted: Planted::Nothing,
        }
    }
}
