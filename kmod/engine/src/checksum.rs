//! Checksums are adjusted, never recomputed (RFC 1624): a packet that was
//! corrupt stays corrupt.

/// One's complement sum of 16-bit words, kept in 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delta(u64);

impl Delta {
    pub(crate) const ZERO: Self = Self(0);

    /// The change from `old` to `new`, words that lie at even offsets.
    #[inline(always)]
    pub(crate) fn between(old: u64, new: u64) -> Self {
        Self(add(!old, new))
    }

    #[inline(always)]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The sum as one 16-bit word.
    #[inline(always)]
    pub(crate) fn fold(self) -> u16 {
        // The upper half of a number and itself turned by half is the sum of
        // its halves, carry included.
        let sum = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// The checksum that was `field` before the change (RFC 1624, equation 3).
    #[inline(always)]
    pub(crate) fn adjust(self, field: u16) -> u16 {
        !Self(add(u64::from(!field), self.0)).fold()
    }

    /// A sum that is not complemented, after the change.
    #[inline(always)]
    pub(crate) fn shift(self, sum: u16) -> u16 {
        Self(add(u64::from(sum), self.0)).fold()
    }
}

/// Addition with end-around carry.
#[inline(always)]
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(u64::from(carry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(words: &[u16]) -> u16 {
        let mut sum = words.iter().fold(0_u32, |s, w| s + u32::from(*w));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: header checksum 0xdd2f, a word goes from 0x5555 to 0x3285.
        assert_eq!(Delta::between(0x5555, 0x3285).adjust(0xdd2f), 0x0000);
    }

    #[test]
    fn folding_keeps_every_carry() {
        let halves = [0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff];
        for (a, b) in halves.into_iter().flat_map(|a| halves.map(|b| (a, b))) {
            for (c, d) in halves.into_iter().flat_map(|c| halves.map(|d| (c, d))) {
                let words: [u16; 4] = [a, b, c, d];
                let whole = words.iter().fold(0, |whole, word| whole << 16 | u64::from(*word));
                assert_eq!(Delta(whole).fold(), sum(&words), "{whole:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn adjusting_is_recomputing(mut words in proptest::collection::vec(any::<u16>(), 8..40), new: u64) {
            words[5] |= 1; // all zero has two representations
            let field = !sum(&words);
            let old = words[..4].iter().fold(0_u64, |w, x| w << 16 | u64::from(*x));
            for (i, word) in words[..4].iter_mut().enumerate() {
                *word = (new >> (48 - 16 * i)) as u16;
            }
            prop_assert_eq!(Delta::between(old, new).adjust(field), !sum(&words));
            prop_assert_eq!(Delta::between(old, new).shift(!field), sum(&words));
        }
    }
}
