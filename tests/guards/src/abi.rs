//! The interface of `/dev/mobconn`: what Rust makes of `mobconn-abi` against
//! what the C compiler makes of `mobconn.h`.

use mobconn_abi::*;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// A C constant expression and its value in Rust.
type Constant = (String, u64);

/// Size and every field's offset and size of one structure. Naming the fields
/// in a pattern makes the compiler see to it that none is forgotten.
macro_rules! layout {
    ($list:ident, $rust:ident = $c:literal { $($field:ident),+ }) => {{
        let $rust { $($field: _),+ } = $rust::default();
        fn size<S, F>(_: impl Fn(&S) -> &F) -> u64 { size_of::<F>() as u64 }
        $list.push((format!("sizeof(struct {})", $c), size_of::<$rust>() as u64));
        $list.push((format!("_Alignof(struct {})", $c), align_of::<$rust>() as u64));
        $(
            $list.push((format!("offsetof(struct {}, {})", $c, stringify!($field)), std::mem::offset_of!($rust, $field) as u64));
            $list.push((format!("sizeof(((struct {} *)0)->{})", $c, stringify!($field)), size(|s: &$rust| &s.$field)));
        )+
    }};
}

/// All constants of the interface.
#[must_use]
pub fn constants() -> Vec<Constant> {
    let mut list = Vec::new();
    layout!(list, Tuple = "mobconn_tuple" { local, remote, local_port, remote_port, version, protocol, reserved });
    layout!(list, HalfState = "mobconn_half_state" { other, generation, pending_generation, alternate, reserved });
    layout!(list, Record = "mobconn_record" { stack, wire, local, remote, id, created, used, flags, reserved });
    layout!(list, Info = "mobconn_info" { version, module, flows, capacity, local_generation, reserved, uptime });
    layout!(list, FlowAdd = "mobconn_flow_add" { stack, wire, flags, reserved });
    layout!(list, FlowDelete = "mobconn_flow_delete" { stack, flags, reserved });
    layout!(list, FlowGet = "mobconn_flow_get" { record });
    layout!(list, FlowList = "mobconn_flow_list" { cursor, buffer, count, record_size });
    layout!(list, MoveEntry = "mobconn_move_entry" { stack, generation, error });
    layout!(list, MoveBatch = "mobconn_move_batch" { address, entries, count, failed, version, half, hold, take, reserved });
    layout!(list, Expire = "mobconn_expire" { grace, udp_idle, ended, removed });
    layout!(list, EgressRule = "mobconn_egress_rule" { source, gateway, interface, version, reserved });
    layout!(list, EgressPrefix = "mobconn_egress_prefix" { address, length, version, on_link, reserved });
    layout!(list, Egress = "mobconn_egress" { rules, prefixes, rule_count, prefix_count, port, reserved });
    layout!(list, Stats = "mobconn_stats" { reset, count, values });
    layout!(list, Event = "mobconn_event" { sequence, lost, time, kind, half, record });
    for kind in EventKind::ALL {
        let name = kind.name().to_ascii_uppercase().replace('-', "_");
        list.push((format!("MOBCONN_EVENT_{name}"), *kind as u64));
    }
    let named = [
        ("MOBCONN_READERS_MAX", READERS_MAX.into()),
        ("MOBCONN_ABI_VERSION", ABI_VERSION.into()),
        ("MOBCONN_IPV4", IPV4.into()),
        ("MOBCONN_IPV6", IPV6.into()),
        ("MOBCONN_TCP", TCP.into()),
        ("MOBCONN_UDP", UDP.into()),
        ("MOBCONN_LOCAL", Half::Local as u64),
        ("MOBCONN_REMOTE", Half::Remote as u64),
        ("MOBCONN_NONE", Alternate::None as u64),
        ("MOBCONN_PENDING", Alternate::Pending as u64),
        ("MOBCONN_PENDING_HOLD", Alternate::PendingHold as u64),
        ("MOBCONN_GRACE", Alternate::Grace as u64),
        ("MOBCONN_LIST_MAX", LIST_MAX.into()),
        ("MOBCONN_BATCH_MAX", BATCH_MAX.into()),
        ("MOBCONN_STATS_MAX", STATS_MAX as u64),
        ("MOBCONN_INFO", INFO.into()),
        ("MOBCONN_FLOW_ADD", FLOW_ADD.into()),
        ("MOBCONN_FLOW_DELETE", FLOW_DELETE.into()),
        ("MOBCONN_FLOW_GET", FLOW_GET.into()),
        ("MOBCONN_FLOW_FIND", FLOW_FIND.into()),
        ("MOBCONN_DISPLACED", DISPLACED.into()),
        ("MOBCONN_LOST", LOST.into()),
        ("MOBCONN_FLOW_LIST", FLOW_LIST.into()),
        ("MOBCONN_MOVE_PREPARE", MOVE_PREPARE.into()),
        ("MOBCONN_MOVE_COMMIT", MOVE_COMMIT.into()),
        ("MOBCONN_MOVE_ABORT", MOVE_ABORT.into()),
        ("MOBCONN_EXPIRE", EXPIRE.into()),
        ("MOBCONN_FLUSH", FLUSH.into()),
        ("MOBCONN_STATS", STATS.into()),
        ("MOBCONN_EGRESS_SET", EGRESS_SET.into()),
        ("MOBCONN_EGRESS_GET", EGRESS_GET.into()),
        ("MOBCONN_EGRESS_RULES_MAX", EGRESS_RULES_MAX as u64),
        ("MOBCONN_EGRESS_PREFIXES_MAX", EGRESS_PREFIXES_MAX as u64),
    ];
    list.extend(named.map(|(name, value)| (name.to_owned(), value)));
    list
}

/// All strings of the interface: the device, then each counter's name and description.
#[must_use]
pub fn strings() -> Vec<String> {
    let counters = Counter::ALL.iter().flat_map(|counter| [counter.name(), counter.description()]);
    std::iter::once(DEVICE_NAME).chain(counters).map(str::to_owned).collect()
}

/// Names that `header` defines with a value, other than the ones that are no constants.
fn defined(header: &str) -> impl Iterator<Item = &str> {
    header
        .lines()
        .filter_map(|line| line.strip_prefix("#define\t"))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("MOBCONN_") && !name.contains('(') && *name != "MOBCONN_DEVICE")
}

/// A C program whose object holds the constants and the strings.
fn program(constants: &[Constant]) -> String {
    let mut text = String::from(
        "#include <stddef.h>\n#include \"mobconn.h\"\n\
         #define NAMES(name, description) #name \"\\0\" description \"\\0\"\n\
         __attribute__((used, section(\"strings\")))\n\
         const char text[] = MOBCONN_DEVICE \"\\0\" MOBCONN_COUNTERS(NAMES);\n\
         __attribute__((used, section(\"constants\")))\n\
         const unsigned long long numbers[] = {\n",
    );
    for (expression, _) in constants {
        let _ = writeln!(text, "\t{expression},");
    }
    text.push_str("};\n");
    text
}

/// Compiles the header `header` for FreeBSD and compares.
///
/// The compiler is `MOBCONN_CLANG` (else `clang`), FreeBSD's headers are those
/// of `MOBCONN_HEADERS`, or without it the system's own.
///
/// # Errors
/// What went wrong with the compiler.
pub fn compare(header: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let constants = constants();
    let (source, object) = (folder.path().join("abi.c"), folder.path().join("abi.o"));
    for (path, text) in [(&folder.path().join("mobconn.h"), header), (&source, &program(&constants))] {
        std::fs::write(path, text).map_err(|error| error.to_string())?;
    }
    compile(&source, &object)?;
    let bytes = std::fs::read(&object).map_err(|error| error.to_string())?;
    let elf = ElfFile64::<Endianness>::parse(&*bytes).map_err(|error| error.to_string())?;
    let section = |name: &str| {
        let section = elf.section_by_name(name).ok_or_else(|| format!("no section {name} in {}", object.display()))?;
        section.data().map_err(|error| error.to_string())
    };

    let mut complaints = Vec::new();
    let values = section("constants")?.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
    for ((expression, rust), c) in constants.iter().zip(values) {
        if *rust != c {
            complaints.push(format!("{expression} is {c:#x} in C and {rust:#x} in Rust"));
        }
    }
    for name in defined(header) {
        if !constants.iter().any(|(expression, _)| expression == name) {
            complaints.push(format!("{name} is in C only"));
        }
    }
    let found = String::from_utf8_lossy(section("strings")?);
    // The text ends with the NUL of the last string and that of the whole.
    let found: Vec<&str> = found.trim_end_matches('\0').split('\0').collect();
    let wanted = strings();
    if found != wanted {
        let first = wanted.iter().zip(&found).position(|(rust, c)| rust != c).unwrap_or(wanted.len().min(found.len()));
        complaints.push(format!("string {first} is {:?} in C and {:?} in Rust", found.get(first), wanted.get(first)));
    }
    Ok(complaints)
}

fn compile(source: &Path, object: &Path) -> Result<(), String> {
    let clang = std::env::var_os("MOBCONN_CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["--target=x86_64-unknown-freebsd14.0", "-std=c11", "-ffreestanding", "-Wall", "-Werror", "-c"]);
    if let Some(headers) = std::env::var_os("MOBCONN_HEADERS") {
        let headers = Path::new(&headers);
        command.arg("-nostdinc");
        for folder in ["x86_64-freebsd-none", "generic-freebsd"] {
            command.arg("-isystem").arg(headers.join(folder));
        }
    }
    command.arg(source).arg("-o").arg(object);
    let output = command.output().map_err(|error| format!("{}: {error}", clang.display()))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
