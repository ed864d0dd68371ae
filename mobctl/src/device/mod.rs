//! The control device: one typed method for each command of mobconn(4).

mod socket;

pub use socket::{READ, SocketChannel};

use crate::errno::Errno;
use crate::exit::{Exit, Failure};
use crate::tuple;
use mobconn_abi::{
    self as abi, Counter, Egress, Event, Expire, FlowAdd, FlowDelete, FlowGet, FlowList, Half, Info, MoveBatch,
    MoveEntry, Record, Stats, Tuple,
};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use zerocopy::IntoBytes;

/// What one command carries.
///
/// Only the variants say where user memory is, so that a channel alone writes
/// addresses into an argument.
#[derive(Debug)]
pub enum Argument<'a> {
    /// Nothing.
    None,
    /// A structure without user addresses.
    Plain(&'a mut [u8]),
    /// A listing and the array that it fills.
    List(&'a mut FlowList, &'a mut [Record]),
    /// A move and its flows.
    Batch(&'a mut MoveBatch, &'a mut [MoveEntry]),
}

/// A way to the module. One command at a time.
pub trait Channel: fmt::Debug {
    /// Issues `command`. The channel fills in the address and the length of the array of a list or batch.
    ///
    /// # Errors
    /// [`ChannelError`]; the argument then holds nothing of use.
    fn call(&mut self, command: u32, argument: Argument<'_>) -> Result<(), ChannelError>;

    /// Waits at most so long for events, and reads as many as there are and fit; how many. The first call begins to
    /// watch.
    ///
    /// # Errors
    /// [`ChannelError`].
    fn events(&mut self, wait: Duration, into: &mut [Event]) -> Result<usize, ChannelError>;
}

/// Why a command did not come about.
#[derive(Debug)]
pub enum ChannelError {
    /// The module refused.
    Errno(Errno),
    /// The way to the module is broken.
    Io(io::Error),
    /// The other end does not speak the protocol.
    Protocol(&'static str),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Protocol(what) => f.write_str(what),
        }
    }
}

impl ChannelError {
    /// The nearest errno, for callers that report errors flow by flow.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Errno(errno) => *errno,
            Self::Io(_) | Self::Protocol(_) => Errno::EIO,
        }
    }
}

impl From<ChannelError> for Failure {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Errno(errno) => {
                let exit = match errno {
                    Errno::EINVAL => Exit::Data,
                    Errno::ENOENT => Exit::NoInput,
                    Errno::EEXIST | Errno::EADDRINUSE => Exit::CannotCreate,
                    Errno::ENOSPC | Errno::ENOMEM | Errno::EBUSY => Exit::Temporary,
                    Errno::EPERM | Errno::EACCES => Exit::NoPermission,
                    Errno::ENOTTY => Exit::Protocol,
                    _ => Exit::System,
                };
                Failure::new(exit, format!("the module refused: {errno}"))
            }
            ChannelError::Io(error) => Failure::new(Exit::Io, format!("the control device failed: {error}")),
            ChannelError::Protocol(what) => {
                Failure::new(Exit::Protocol, format!("the control device answered nonsense: {what}"))
            }
        }
    }
}

/// The module, by way of its control device.
#[derive(Debug)]
pub struct Device {
    channel: Box<dyn Channel>,
}

/// Records asked for at once: small enough to copy cheaply, large enough that a full table takes few calls.
const LIST_CHUNK: usize = 1024;

/// Events that are read at once.
const EVENTS_CHUNK: usize = 64;

impl Device {
    /// Opens the device at `path` and makes sure that the module speaks this version of the interface.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let channel = crate::system::open_channel(path).map_err(|error| open_failure(path, &error))?;
        Self::over(channel)
    }

    /// A device over any channel; the version of the interface is checked.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn over(channel: Box<dyn Channel>) -> Result<Self, Failure> {
        let mut device = Self { channel };
        let info = device.info()?;
        if info.version == abi::ABI_VERSION {
            return Ok(device);
        }
        Err(Failure::new(
            Exit::Protocol,
            format!(
                "the loaded module speaks interface version {}, this mobctl version {}",
                info.version,
                abi::ABI_VERSION
            ),
        )
        .advise("Install module and mobctl of the same release, then: kldunload mobconn; kldload mobconn"))
    }

    /// Versions, number of bindings, capacity.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn info(&mut self) -> Result<Info, ChannelError> {
        let mut info = Info::default();
        self.channel.call(abi::INFO, Argument::Plain(info.as_mut_bytes()))?;
        Ok(info)
    }

    /// Makes a binding by hand.
    ///
    /// # Errors
    /// [`ChannelError`]; the errnos of [`abi::FLOW_ADD`].
    pub fn add_flow(&mut self, stack: Tuple, wire: Tuple) -> Result<(), ChannelError> {
        let mut argument = FlowAdd { stack, wire, flags: 0, reserved: 0 };
        self.channel.call(abi::FLOW_ADD, Argument::Plain(argument.as_mut_bytes()))
    }

    /// Removes the binding of `stack`.
    ///
    /// # Errors
    /// [`ChannelError`]; `ENOENT` when there is none.
    pub fn delete_flow(&mut self, stack: Tuple) -> Result<(), ChannelError> {
        let mut argument = FlowDelete { stack, flags: 0, reserved: 0 };
        self.channel.call(abi::FLOW_DELETE, Argument::Plain(argument.as_mut_bytes()))
    }

    /// The binding of `stack`, if there is one.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn flow(&mut self, stack: Tuple) -> Result<Option<Record>, ChannelError> {
        self.one_flow(abi::FLOW_GET, Record { stack, ..Record::default() })
    }

    /// The binding that accepts the wire side `wire` on input, if there is one.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn flow_of_wire(&mut self, wire: Tuple) -> Result<Option<Record>, ChannelError> {
        self.one_flow(abi::FLOW_FIND, Record { wire, ..Record::default() })
    }

    fn one_flow(&mut self, command: u32, record: Record) -> Result<Option<Record>, ChannelError> {
        let mut argument = FlowGet { record };
        match self.channel.call(command, Argument::Plain(argument.as_mut_bytes())) {
            Ok(()) => Ok(Some(argument.record)),
            Err(ChannelError::Errno(Errno::ENOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every binding, in the order in which they were made. Bindings that come or go meanwhile may be missing.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn flows(&mut self) -> Result<Vec<Record>, ChannelError> {
        let mut all = Vec::new();
        let mut chunk = vec![Record::default(); LIST_CHUNK];
        let mut cursor = 0;
        loop {
            let mut list = FlowList { cursor, record_size: size_of::<Record>() as u32, ..FlowList::default() };
            self.channel.call(abi::FLOW_LIST, Argument::List(&mut list, &mut chunk))?;
            let Some(records) = chunk.get(..list.count as usize) else {
                return Err(ChannelError::Protocol("more records than there was room for"));
            };
            all.extend_from_slice(records);
            if list.cursor == 0 {
                return Ok(all);
            }
            if list.cursor <= cursor || records.is_empty() {
                return Err(ChannelError::Protocol("a listing that does not advance"));
            }
            cursor = list.cursor;
        }
    }

    /// Has the table take its memory, which the first move of flows would wait for. Repeating it is harmless.
    ///
    /// # Errors
    /// [`ChannelError`]; `ENOMEM`.
    pub fn reserve(&mut self) -> Result<(), ChannelError> {
        // A move of nothing, to any address.
        let new = IpAddr::from([192, 0, 2, 1]);
        let mut nothing =
            MoveBatch { address: tuple::to_bytes(new), version: tuple::version(new), ..MoveBatch::default() };
        nothing.half = Half::Local as u8;
        self.channel.call(abi::MOVE_PREPARE, Argument::Batch(&mut nothing, &mut []))
    }

    /// Prepares a move of `half` to `new` for each flow with its generation; one result for each, in order.
    /// `hold`: the old path is gone, nothing is sent until commit.
    pub fn prepare(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Tuple, u32)]) -> Vec<Result<(), Errno>> {
        let header = MoveBatch {
            address: tuple::to_bytes(new),
            version: tuple::version(new),
            half: half as u8,
            hold: u8::from(hold),
            ..MoveBatch::default()
        };
        self.batch(abi::MOVE_PREPARE, header, moves)
    }

    /// As [`Self::prepare`]; a wire side that another flow has becomes this one's.
    pub fn take(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Tuple, u32)]) -> Vec<Result<(), Errno>> {
        let header = MoveBatch {
            address: tuple::to_bytes(new),
            version: tuple::version(new),
            half: half as u8,
            hold: u8::from(hold),
            take: 1,
            ..MoveBatch::default()
        };
        self.batch(abi::MOVE_PREPARE, header, moves)
    }

    /// Commits what was prepared; one result for each flow, in order.
    pub fn commit(&mut self, half: Half, moves: &[(Tuple, u32)]) -> Vec<Result<(), Errno>> {
        self.batch(abi::MOVE_COMMIT, MoveBatch { half: half as u8, ..MoveBatch::default() }, moves)
    }

    /// Takes back what was prepared; one result for each flow, in order.
    pub fn abort(&mut self, half: Half, moves: &[(Tuple, u32)]) -> Vec<Result<(), Errno>> {
        self.batch(abi::MOVE_ABORT, MoveBatch { half: half as u8, ..MoveBatch::default() }, moves)
    }

    fn batch(&mut self, command: u32, header: MoveBatch, moves: &[(Tuple, u32)]) -> Vec<Result<(), Errno>> {
        let mut results = Vec::with_capacity(moves.len());
        for part in moves.chunks(abi::BATCH_MAX as usize) {
            let mut entries: Vec<MoveEntry> =
                part.iter().map(|&(stack, generation)| MoveEntry { stack, generation, error: 0 }).collect();
            let mut argument = header;
            match self.channel.call(command, Argument::Batch(&mut argument, &mut entries)) {
                Ok(()) => results.extend(entries.iter().map(|entry| match entry.error {
                    0 => Ok(()),
                    error => Err(Errno(error.cast_signed())),
                })),
                Err(error) => {
                    log::error!("a move of {} flows failed as a whole: {error}", part.len());
                    results.extend(part.iter().map(|_| Err(error.errno())));
                }
            }
        }
        results
    }

    /// Ends grace of `grace` seconds and more, removes bindings whose sides are equal again and UDP bindings idle for
    /// `udp_idle` seconds (0: none). Returns how many alternates ended and how many bindings were removed.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn expire(&mut self, grace: u32, udp_idle: u32) -> Result<(u32, u32), ChannelError> {
        let mut argument = Expire { grace, udp_idle, ..Expire::default() };
        self.channel.call(abi::EXPIRE, Argument::Plain(argument.as_mut_bytes()))?;
        Ok((argument.ended, argument.removed))
    }

    /// What happened to bindings since the last call, as soon as there is something, at most after `wait`. The first
    /// call begins to watch.
    ///
    /// # Errors
    /// [`ChannelError`]; the errnos of [`abi::Event`].
    pub fn events(&mut self, wait: Duration) -> Result<Vec<Event>, ChannelError> {
        let mut events = vec![Event::default(); EVENTS_CHUNK];
        let count = self.channel.events(wait, &mut events)?;
        events.truncate(count);
        Ok(events)
    }

    /// Removes every binding.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        self.channel.call(abi::FLUSH, Argument::None)
    }

    /// Says by which network packets leave.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn set_egress(&mut self, egress: &Egress) -> Result<(), ChannelError> {
        let mut argument = *egress;
        self.channel.call(abi::EGRESS_SET, Argument::Plain(argument.as_mut_bytes()))
    }

    /// What was said last.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn egress(&mut self) -> Result<Egress, ChannelError> {
        let mut argument = Egress::default();
        self.channel.call(abi::EGRESS_GET, Argument::Plain(argument.as_mut_bytes()))?;
        Ok(argument)
    }

    /// The counters that both this program and the module know. `reset` sets them to zero after reading.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn stats(&mut self, reset: bool) -> Result<Vec<(Counter, u64)>, ChannelError> {
        let mut stats = Stats { reset: u32::from(reset), ..Stats::default() };
        self.channel.call(abi::STATS, Argument::Plain(stats.as_mut_bytes()))?;
        Ok(Counter::ALL.iter().copied().zip(stats.values).take(stats.count as usize).collect())
    }
}

fn open_failure(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Exit::Unavailable, format!("{shown} does not exist: the module mobconn is not loaded"))
                .advise("Load it: kldload mobconn (at every boot: sysrc mobconn_enable=YES; service mobconn start)")
        }
        io::ErrorKind::ConnectionRefused => Failure::new(Exit::Unavailable, format!("nobody answers at {shown}"))
            .advise("The user-space host that made this socket has ended: start it again"),
        io::ErrorKind::PermissionDenied => Failure::new(Exit::NoPermission, format!("{shown}: permission denied"))
            .advise("The device is root's: run mobctl as root"),
        _ => Failure::new(Exit::System, format!("{shown}: {error}")),
    }
}
