//! Character devices: make_dev(9), and what is done with them, as the system calls and devfs(5) pass it on.

use crate::call;
use crate::complaint::complain;
use crate::errno::Errno;
use crate::foreign::{self, eternal};
use crate::kernel::kernel;
use crate::layout::{Cdev, Cdevsw, Iovec, MakeDevArgs, SI_NAME, Uio};
use crate::lock;
use crate::malloc::{self, Kind};
use crate::packet::Region;
use crate::thread::{self, Entry};
use crate::user::{self, UserMemory};
use crate::vnet::VnetState;
use crate::waiting;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// `D_VERSION_04`.
const D_VERSION: u32 = 0x5c48_c353;
const MAKEDEV_NOWAIT: i32 = 0x04;
const MAKEDEV_CHECKNAME: i32 = 0x20;
/// `S_IFCHR`, what d_open and d_close get as device type.
const CHARACTER: usize = 0x2000;

const IOC_VOID: u32 = 0x2000_0000;
const IOC_OUT: u32 = 0x4000_0000;
const IOC_IN: u32 = 0x8000_0000;
/// `ENOIOCTL`.
const ENOIOCTL: i32 = -3;
/// `ERESTART`.
const ERESTART: i32 = -1;
const O_NONBLOCK: u32 = 0x0004;
const POLLIN: i32 = 0x0001;
const POLLHUP: i32 = 0x0010;
const POLLRDNORM: i32 = 0x0040;
/// Where the ioctl's argument, or what is read, lies in user space.
const ARGUMENT: u64 = 0x7fff_0000_0000;

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![make_dev_args_init_impl, destroy_dev, devfs_set_cdevpriv, devfs_get_cdevpriv, devfs_clear_cdevpriv];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("D_VERSION", D_VERSION),
    ("MAKEDEV_NOWAIT", MAKEDEV_NOWAIT as u32),
    ("MAKEDEV_CHECKNAME", MAKEDEV_CHECKNAME as u32),
    ("O_NONBLOCK", O_NONBLOCK),
    ("POLLIN", POLLIN as u32),
    ("POLLHUP", POLLHUP as u32),
    ("POLLRDNORM", POLLRDNORM as u32),
];

#[derive(Debug)]
struct Device {
    cdev: Cdev,
    name: String,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    gone: bool,
    /// Threads inside the driver.
    inside: usize,
    /// Open files.
    open: usize,
    /// What they have of their own.
    privates: Vec<Weak<Mutex<FilePrivate>>>,
}

// SAFETY: the handle is the address of eternal memory.
unsafe impl Send for Device {}
// SAFETY: as above; the structure is written only when the device is made.
unsafe impl Sync for Device {}

/// The devices of a machine, by name.
#[derive(Debug, Default)]
pub(crate) struct Devices(Mutex<BTreeMap<String, Arc<Device>>>);

impl Devices {
    /// Devices whose switch lies in the range.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<String> {
        let devices = self.0.lock().unwrap();
        devices.values().filter(|d| range.contains(&d.cdev.devsw())).map(|d| d.name.clone()).collect()
    }

    /// All names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Device>, Errno> {
        self.0.lock().unwrap().get(name).cloned().ok_or(Errno::ENOENT)
    }
}

/// What devfs_set_cdevpriv ties to an open file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilePrivate {
    data: usize,
    destructor: usize,
}

extern "C" fn make_dev_args_init_impl(arguments: *mut u8, size: usize) {
    // SAFETY: the caller's structure of that size.
    unsafe { foreign::store(arguments, &vec![0; size]) };
    // SAFETY: as above.
    let arguments = unsafe { MakeDevArgs::new(arguments) };
    arguments.unwrap_or_else(|| complain!("make_dev_args_init: no arguments")).set_size(size);
}

/// make_dev_s with the name formatted.
pub(crate) fn make(arguments: *mut u8, result: *mut usize, name: &str) -> i32 {
    // SAFETY: the caller's structure.
    let arguments = unsafe { MakeDevArgs::new(arguments) }.unwrap_or_else(|| complain!("make_dev_s: no arguments"));
    if arguments.size() != MakeDevArgs::SIZE {
        complain!("make_dev_s: mda_size is {}", arguments.size());
    }
    if arguments.flags() & MAKEDEV_NOWAIT == 0 {
        thread::check_sleep("make_dev_s");
    } else if kernel().failures.next() {
        return Errno::ENOMEM.0;
    }
    // SAFETY: the module's switch.
    let Some(devsw) = (unsafe { Cdevsw::new(arguments.devsw() as *mut u8) }) else {
        complain!("make_dev_s: no cdevsw");
    };
    if devsw.version() != D_VERSION {
        complain!("make_dev_s: d_version is {:#x}", devsw.version());
    }
    let mut devices = kernel().devices.0.lock().unwrap();
    if devices.contains_key(name) {
        if arguments.flags() & MAKEDEV_CHECKNAME == 0 {
            complain!("panic: make_dev_sv: bad si_name (error=17, si_name={name})");
        }
        return Errno::EEXIST.0;
    }
    // SAFETY: eternal memory of that size.
    let cdev = unsafe { Cdev::new(eternal(Cdev::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
    cdev.set_devsw(devsw.address());
    cdev.set_drv1(arguments.drv1());
    cdev.set_drv2(arguments.drv2());
    cdev.set_uid(arguments.uid());
    cdev.set_mode(arguments.mode() as u16);
    let short = &name.as_bytes()[..name.len().min(255)];
    // SAFETY: si_name has 256 bytes, and the rest of it is zero.
    unsafe { foreign::store(cdev.as_ptr().wrapping_add(SI_NAME), short) };
    // SAFETY: the caller's pointer to the result.
    unsafe { result.write(cdev.address()) };
    let device = Device { cdev, name: name.to_owned(), state: Mutex::default(), idle: Condvar::new() };
    devices.insert(name.to_owned(), Arc::new(device));
    0
}

extern "C" fn destroy_dev(cdev: usize) {
    thread::check_sleep("destroy_dev");
    let found = {
        let mut devices = kernel().devices.0.lock().unwrap();
        let name = devices.values().find(|d| d.cdev.address() == cdev).map(|d| d.name.clone());
        name.and_then(|name| devices.remove(&name))
    };
    let Some(device) = found else { complain!("destroy_dev: {cdev:#x} is no device") };
    let mut state = device.state.lock().unwrap();
    state.gone = true;
    // SAFETY: the switch was checked when the device was made.
    let purge = unsafe { Cdevsw::new(device.cdev.devsw() as *mut u8) }.map_or(0, Cdevsw::purge);
    while state.inside > 0 {
        if purge != 0 {
            drop(state);
            lock::under_mutex("cdev", || call::one(purge, cdev));
            state = device.state.lock().unwrap();
        }
        state = device.idle.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
    }
    let privates = std::mem::take(&mut state.privates);
    drop(state);
    for private in privates.iter().filter_map(Weak::upgrade) {
        let FilePrivate { data, destructor } = std::mem::take(&mut *private.lock().unwrap());
        if destructor != 0 {
            call::one(destructor, data);
        }
    }
}

/// Keeps destroy_dev waiting while a thread is inside the driver.
struct Inside<'a>(&'a Device);

impl<'a> Inside<'a> {
    fn new(device: &'a Device) -> Result<Self, Errno> {
        let mut state = device.state.lock().unwrap();
        if state.gone {
            return Err(Errno::ENXIO);
        }
        state.inside += 1;
        Ok(Self(device))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().inside -= 1;
        self.0.idle.notify_all();
    }
}

/// An open device file.
#[derive(Debug)]
pub struct File {
    device: Arc<Device>,
    vnet: &'static VnetState,
    uid: u32,
    fflag: u32,
    /// d_open said yes: d_close is owed.
    opened: bool,
    private: Arc<Mutex<FilePrivate>>,
}

impl File {
    /// open(2) of `/dev/NAME` by a user of the stack's jail.
    pub(crate) fn open(vnet: &'static VnetState, name: &str, uid: u32, fflag: u32) -> Result<Self, Errno> {
        if fflag & 3 == 0 {
            return Err(Errno::EINVAL);
        }
        let device = kernel().devices.find(name)?;
        let mode = u32::from(device.cdev.mode());
        let granted = if uid == device.cdev.uid() { mode >> 6 } else { mode };
        let wanted = (fflag & 1) << 2 | (fflag & 2);
        if uid != 0 && granted & wanted != wanted {
            return Err(Errno::EACCES);
        }
        let mut file = Self { device, vnet, uid, fflag, opened: false, private: Arc::default() };
        let entry = Entry::new("open", 0, vnet.ucred(uid));
        let opened = file.call(|devsw| {
            let td = thread::current(|thread| thread.td().address());
            match devsw.open() {
                0 => 0,
                open => call::four(open, file.device.cdev.address(), fflag as usize, CHARACTER, td),
            }
        });
        let opened = opened.and_then(Errno::check);
        if opened.is_err() {
            file.end_private();
        }
        drop(entry);
        opened?;
        file.opened = true;
        let mut state = file.device.state.lock().unwrap();
        state.open += 1;
        state.privates.retain(|private| private.strong_count() > 0);
        state.privates.push(Arc::downgrade(&file.private));
        drop(state);
        Ok(file)
    }

    /// Runs `f` on the driver's switch, with this file's private data at hand.
    fn call(&self, f: impl FnOnce(Cdevsw) -> i32) -> Result<i32, Errno> {
        let inside = Inside::new(&self.device)?;
        // SAFETY: the switch was checked when the device was made; the module stays while a thread is inside.
        let devsw = unsafe { Cdevsw::new(self.device.cdev.devsw() as *mut u8) }.ok_or(Errno::ENXIO)?;
        let private = *self.private.lock().unwrap();
        thread::current(|thread| thread.file.replace(Some(private)));
        let result = f(devsw);
        let after = thread::current(|thread| thread.file.take());
        *self.private.lock().unwrap() = after.unwrap_or_default();
        drop(inside);
        Ok(result)
    }

    fn end_private(&self) {
        let FilePrivate { data, destructor } = std::mem::take(&mut *self.private.lock().unwrap());
        if destructor != 0 {
            call::one(destructor, data);
        }
    }

    /// read(2); `wait`: without `O_NONBLOCK`.
    pub fn read(&self, buffer: &mut [u8], wait: bool) -> Result<usize, Errno> {
        let length = buffer.len();
        self.read_into(buffer, length, wait)
    }

    /// read(2) of `length` bytes by a process that has memory only for those of `buffer`.
    pub fn read_into(&self, buffer: &mut [u8], length: usize, wait: bool) -> Result<usize, Errno> {
        if self.fflag & 1 == 0 {
            return Err(Errno::EBADF);
        }
        let entry = Entry::new("read", 0, self.vnet.ucred(self.uid));
        let memory = vec![(ARGUMENT, buffer.to_vec())];
        thread::current(|thread| thread.user.replace(Some(UserMemory::new(memory))));
        let result = self.devfs_read(length, wait);
        let memory = thread::current(|thread| thread.user.take()).unwrap_or_default();
        if let Some((_, bytes)) = memory.into_regions().into_iter().next() {
            buffer.copy_from_slice(&bytes);
        }
        drop(entry);
        result
    }

    fn devfs_read(&self, length: usize, wait: bool) -> Result<usize, Errno> {
        let mut vector = [0_u8; Iovec::SIZE];
        let mut uio_bytes = [0_u8; Uio::SIZE];
        // SAFETY: a structure of that size on this stack.
        let iov = unsafe { Iovec::new(vector.as_mut_ptr()) }.unwrap_or_else(|| unreachable!());
        // SAFETY: as above.
        let uio = unsafe { Uio::new(uio_bytes.as_mut_ptr()) }.unwrap_or_else(|| unreachable!());
        iov.set_base(ARGUMENT);
        iov.set_len(length as u64);
        uio.set_iov(iov.address());
        uio.set_iovcnt(1);
        uio.set_resid(length as i64);
        uio.set_td(thread::current(|thread| thread.td().address()));
        let flags = if wait { 0 } else { O_NONBLOCK };
        let result = self.call(|devsw| match devsw.read() {
            0 => Errno::ENODEV.0,
            read => call::three(read, self.device.cdev.address(), uio.address(), flags as usize),
        })?;
        if uio.resid() < 0 || uio.resid() > length as i64 {
            complain!("d_read: uio_resid is {}", uio.resid());
        }
        let done = length - uio.resid() as usize;
        match result {
            ERESTART | 4 | 35 if done > 0 => Ok(done),
            ERESTART => Err(Errno::EINTR),
            result => Errno::check(result).map(|()| done),
        }
    }

    /// poll(2): which of `events` there are within the time.
    pub fn poll(&self, events: i32, timeout: Duration) -> Result<i32, Errno> {
        let _entry = Entry::new("poll", 0, self.vnet.ucred(self.uid));
        waiting::poll(timeout, || {
            let found = self.call(|devsw| {
                let td = thread::current(|thread| thread.td().address());
                match devsw.poll() {
                    0 => events,
                    poll => call::three(poll, self.device.cdev.address(), events as usize, td),
                }
            });
            // What a file without its device says.
            Ok(found.unwrap_or(POLLHUP | (events & (POLLIN | POLLRDNORM))))
        })
    }

    /// What kevent(2) does to add a filter.
    pub(crate) fn kqfilter(&self, knote: usize) -> Result<(), Errno> {
        let _entry = Entry::new("kevent", 0, self.vnet.ucred(self.uid));
        Errno::check(self.call(|devsw| match devsw.kqfilter() {
            0 => Errno::ENODEV.0,
            kqfilter => call::three(kqfilter, self.device.cdev.address(), knote, 0),
        })?)
    }

    /// ioctl(2). `argument` is the memory that its third argument points to.
    pub fn ioctl(&self, command: u32, argument: &mut [u8], regions: &mut [Region]) -> Result<(), Errno> {
        let entry = Entry::new("ioctl", 0, self.vnet.ucred(self.uid));
        let mut memory = vec![(ARGUMENT, argument.to_vec())];
        memory.extend(regions.iter_mut().map(|region| (region.address, std::mem::take(&mut region.bytes))));
        thread::current(|thread| thread.user.replace(Some(UserMemory::new(memory))));
        let result = self.sys_ioctl(command);
        let memory = thread::current(|thread| thread.user.take()).unwrap_or_default();
        let mut after = memory.into_regions().into_iter().map(|(_, bytes)| bytes);
        if let Some(bytes) = after.next() {
            argument.copy_from_slice(&bytes);
        }
        for (region, bytes) in regions.iter_mut().zip(after) {
            region.bytes = bytes;
        }
        drop(entry);
        result
    }

    /// What the kernel does for every ioctl before and after the driver's function.
    fn sys_ioctl(&self, command: u32) -> Result<(), Errno> {
        let size = (command >> 16 & 0x1fff) as usize;
        let void = command & IOC_VOID != 0;
        let (input, output) = (command & IOC_IN != 0, command & IOC_OUT != 0);
        if !(void || input || output) || ((input || output) && size == 0) || (void && size > 0 && size != 4) {
            return Err(Errno::ENOTTY);
        }
        // The kernel's buffer, exactly as long as the command says, so that a driver which goes beyond is found.
        let length = if size == 0 || void { 8 } else { size };
        let data = malloc::allocate(Kind::Kernel("ioctl argument"), length, malloc::M_WAITOK);
        let result = self.with_argument(command, data, size);
        malloc::release(data as usize, None, "ioctl");
        result
    }

    fn with_argument(&self, command: u32, data: *mut u8, size: usize) -> Result<(), Errno> {
        if size == 0 || command & IOC_VOID != 0 {
            // The pointer itself is the argument.
            // SAFETY: the buffer has 8 bytes then.
            unsafe { foreign::store(data, &ARGUMENT.to_le_bytes()) };
        } else if command & IOC_IN != 0 {
            Errno::check(user::copyin(ARGUMENT, data, size))?;
        } else {
            // SAFETY: the buffer has `size` bytes.
            unsafe { foreign::store(data, &vec![0; size]) };
        }
        let result = self.call(|devsw| {
            let td = thread::current(|thread| thread.td().address());
            let cdev = self.device.cdev.address();
            match devsw.ioctl() {
                0 => Errno::ENODEV.0,
                f => call::five(f, cdev, command as usize, data as usize, self.fflag as usize, td),
            }
        })?;
        Errno::check(if result == ENOIOCTL { Errno::ENOTTY.0 } else { result })?;
        if command & IOC_OUT != 0 {
            Errno::check(user::copyout(data, ARGUMENT, size))?;
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.opened {
            return;
        }
        let _entry = Entry::new("close", 0, self.vnet.ucred(self.uid));
        let last = {
            let mut state = self.device.state.lock().unwrap();
            state.open -= 1;
            state.open == 0
        };
        // ENXIO: the device went away first, and with it the driver's interest.
        let _ = self.call(|devsw| {
            let td = thread::current(|thread| thread.td().address());
            match devsw.close() {
                close if close != 0 && last => {
                    call::four(close, self.device.cdev.address(), self.fflag as usize, CHARACTER, td)
                }
                _ => 0,
            }
        });
        self.end_private();
    }
}

/// Private data of the file in use, or ENOENT outside the driver's functions.
fn private<R>(f: impl FnOnce(&mut FilePrivate) -> Result<R, Errno>) -> Result<R, Errno> {
    thread::current(|thread| thread.file.borrow_mut().as_mut().map_or(Err(Errno::ENOENT), f))
}

fn status(result: Result<(), Errno>) -> i32 {
    result.err().map_or(0, |error| error.0)
}

extern "C" fn devfs_set_cdevpriv(data: usize, destructor: usize) -> i32 {
    status(private(|private| {
        if private.destructor != 0 {
            return Err(Errno::EBUSY);
        }
        *private = FilePrivate { data, destructor };
        Ok(())
    }))
}

extern "C" fn devfs_get_cdevpriv(to: *mut usize) -> i32 {
    status(private(|private| {
        if private.destructor == 0 {
            return Err(Errno::ENOENT);
        }
        // SAFETY: the caller's place for a pointer.
        unsafe { to.write(private.data) };
        Ok(())
    }))
}

extern "C" fn devfs_clear_cdevpriv() {
    let old = private(|private| Ok(std::mem::take(private)));
    if let Ok(old) = old
        && old.destructor != 0
    {
        call::one(old.destructor, old.data);
    }
}
