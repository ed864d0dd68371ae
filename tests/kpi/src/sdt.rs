//! dtrace(1)'s statically defined probes: the `sdt` provider, as far as a module can tell.

use crate::complaint::complain;
use crate::foreign::text;
use crate::kernel::kernel;
use crate::layout::{SdtArgtype, SdtProbe};
use crate::{linker, symbols, variables};
use std::collections::HashMap;
use std::sync::Mutex;

pub(crate) const SYMBOLS: &[symbols::Function] = crate::symbols![mobconn_kpi_sdt_fire];

/// A probe that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The probe's name, as dtrace(1) has it.
    pub probe: String,
    /// Its arguments, as many as it declares; a `char *` as the string, anything else as a number.
    pub arguments: Vec<String>,
}

#[derive(Debug)]
struct Probe {
    name: String,
    types: Vec<String>,
}

/// The probes that are enabled, and what they said.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    enabled: Mutex<HashMap<u32, Probe>>,
    fired: Mutex<Vec<Fired>>,
}

impl Probes {
    pub(crate) fn take(&self) -> Vec<Fired> {
        std::mem::take(&mut *self.fired.lock().unwrap())
    }
}

fn string(at: usize) -> String {
    // SAFETY: names and types are strings, by the KPI.
    unsafe { text(at as *const u8) }
}

/// Enables all probes of the module loaded last; returns their names, with the types of their arguments.
pub(crate) fn enable() -> Vec<(String, Vec<String>)> {
    variables::set("sdt_probe_func", symbols::address("mobconn_kpi_sdt_fire") as u64);
    let mut types: HashMap<usize, Vec<(i32, String)>> = HashMap::new();
    for at in linker::set_of_last("sdt_argtypes_set") {
        // SAFETY: the set holds pointers to such structures in the image.
        let argtype =
            unsafe { SdtArgtype::new(at as *mut u8) }.unwrap_or_else(|| complain!("an argument at address 0"));
        types.entry(argtype.probe()).or_default().push((argtype.ndx(), string(argtype.type_())));
    }
    let mut names = Vec::new();
    for (number, at) in (1_u32..).zip(linker::set_of_last("sdt_probes_set")) {
        // SAFETY: as above.
        let probe = unsafe { SdtProbe::new(at as *mut u8) }.unwrap_or_else(|| complain!("a probe at address 0"));
        if probe.version() as usize != SdtProbe::SIZE {
            complain!("sdt: the probe has version {}", probe.version());
        }
        let mut types = types.remove(&at).unwrap_or_default();
        types.sort();
        let types: Vec<String> = types.into_iter().map(|(_, name)| name).collect();
        let name = string(probe.name()).replace("__", "-");
        names.push((name.clone(), types.clone()));
        kernel().probes.enabled.lock().unwrap().insert(number, Probe { name, types });
        probe.set_id(number.into());
    }
    names
}

extern "C" fn mobconn_kpi_sdt_fire(id: u32, a: usize, b: usize, c: usize, d: usize, e: usize) {
    let enabled = kernel().probes.enabled.lock().unwrap();
    let Some(probe) = enabled.get(&id) else { complain!("sdt: a probe with the id {id} fires") };
    let arguments = probe.types.iter().zip([a, b, c, d, e]);
    let arguments = arguments.map(|(kind, value)| if kind == "char *" { string(value) } else { value.to_string() });
    let fired = Fired { probe: probe.name.clone(), arguments: arguments.collect() };
    kernel().probes.fired.lock().unwrap().push(fired);
}
