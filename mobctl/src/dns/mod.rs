//! Asking the DNS: messages, transport, the system's settings, and names looked up in the background.

pub mod lookup;
pub mod message;
pub mod resolver;
pub mod system;
pub mod transport;
pub mod trouble;
pub mod tsig;
pub mod zone;

pub use message::DnsName;
pub use resolver::Resolver;
pub use system::System;
pub use trouble::{Holder, Trouble};
pub use tsig::TsigKey;
