//! The configuration together with the keys that it names.

use crate::config::Config;
use crate::ddns;
use crate::exit::Failure;
use crate::keyfile;
use mobconn_dprp as dprp;
use std::path::Path;

/// Everything that the daemon is told by files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// The same as the protocol wants it, with the keys.
    pub protocol: dprp::Config,
    /// How this host's name is kept, if it is.
    pub ddns: Option<ddns::Target>,
}

impl Settings {
    /// Reads the configuration at `path` and the key files that it names.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let config = Config::read(path)?;
        let host_key = keyfile::read_host(&config.host_key)?;
        let group_keys =
            config.group_keys.iter().map(|path| keyfile::read_group(path)).collect::<Result<Vec<_>, _>>()?;
        let protocol = dprp::Config {
            host_key,
            group_keys,
            pinned: config.pins.clone(),
            targets: config.peers.clone(),
            mobile: config.mobile,
            port: config.port,
            name: config.name.clone(),
            generation: 0,
            timers: dprp::Timers::default(),
            limits: dprp::Limits::default(),
        };
        let ddns = config.ddns.clone().map(|ddns| ddns::Target::new(ddns, &protocol.host_key.public())).transpose()?;
        Ok(Self { config, protocol, ddns })
    }

    /// Whether the protocol need not begin anew to follow `new`.
    #[must_use]
    pub fn same_protocol(&self, new: &Self) -> bool {
        let keys = |settings: &Self| -> Vec<_> {
            settings.protocol.group_keys.iter().map(|key| dprp::HostKey::from_bytes(key.expose()).public()).collect()
        };
        let rest = |config: &Config| Config {
            exclude: Vec::new(),
            exclude_ports: Vec::new(),
            claims: std::path::PathBuf::new(),
            log_level: log::LevelFilter::Off,
            grace: 0,
            udp_idle: 0,
            automatic: false,
            prefer: Vec::new(),
            ignore: Vec::new(),
            hold_down: 0,
            keep_old_address: false,
            ddns: None,
            ..config.clone()
        };
        rest(&self.config) == rest(&new.config)
            && self.protocol.host_key.public() == new.protocol.host_key.public()
            && keys(self) == keys(new)
    }
}
