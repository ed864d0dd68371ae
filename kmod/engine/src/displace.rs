//! Newcomers: connections that begin with the ports and addresses of a wire
//! side or stack side which a bound flow has. They get another port where
//! nobody sees it.

use crate::Engine;
use crate::control::Control;
use crate::flow::{Side, TableError};
use crate::key::Key;
use crate::shape::Shape;
use crate::table::DISPLACED;

/// Ports that are tried before a newcomer is refused.
const TRIES: u16 = 64;
/// The ports that newcomers get (RFC 6335, section 6).
const FIRST: u16 = 49152;
const SPAN: u16 = 16384;

impl Control {
    /// Makes room for the connection of a packet that the packet path named a
    /// newcomer. `side` is the packet's, local end first; `received` says
    /// which way it goes; `busy`, whether the host has a connection with a
    /// given stack side; `chance` is a random number.
    ///
    /// A received one comes from a stranger at an address that a flow has
    /// left: towards the stack it gets another remote port. One to be sent
    /// has the side that a moved flow has on the wire: it gets another local
    /// port there. Both are ordinary bindings from then on.
    ///
    /// Ok: the packet may be tried again.
    ///
    /// # Errors
    /// `Conflict` (no free port was found), `Full`, `NoMemory`.
    pub fn displace(
        &mut self,
        engine: &Engine,
        side: &Side,
        received: bool,
        busy: impl Fn(&Side) -> bool,
        chance: u16,
        now: u32,
    ) -> Result<(), TableError> {
        let key = Key::new(side);
        let owner = engine.owner(&key, None);
        let bound = engine.flow(&key);
        if received {
            if let Some((owner, content)) = owner {
                // A new connection from an address in grace: it is another
                // host's by now. Any other owner keeps what is its own.
                let Some(mut shape) = self.shape(owner, content) else { return Ok(()) };
                if !shape.yield_grace(&key) {
                    return Ok(());
                }
                if bound.is_some() {
                    self.insert_newcomer(engine, side, received, &busy, chance, now)?;
                }
                self.take(engine, owner, &key);
                return Ok(());
            }
            if bound.is_none() {
                return Ok(());
            }
        } else if owner.is_none() || bound.is_some() {
            return Ok(());
        }
        self.insert_newcomer(engine, side, received, &busy, chance, now)
    }

    fn insert_newcomer(
        &mut self,
        engine: &Engine,
        side: &Side,
        received: bool,
        busy: &impl Fn(&Side) -> bool,
        chance: u16,
        now: u32,
    ) -> Result<(), TableError> {
        for nth in 0..TRIES {
            let port = FIRST.saturating_add(chance.wrapping_add(nth) % SPAN);
            let other = if received { Side { remote_port: port, ..*side } } else { Side { local_port: port, ..*side } };
            let key = Key::new(&other);
            let is_bound = engine.flow(&key).is_some() || engine.owner(&key, None).is_some();
            if other != *side && !is_bound && !busy(&other) {
                let own = Key::new(side);
                let (stack, wire) = if received { (key, own) } else { (own, key) };
                self.insert(engine, &Shape::new(&stack, &wire).with_flag(DISPLACED, true), now)?;
                return Ok(());
            }
        }
        Err(TableError::Conflict)
    }
}
