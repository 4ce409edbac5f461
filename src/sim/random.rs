//! A small seeded generator, so that one seed gives one run of the model.

/// Pseudo-random numbers from a seed (the splitmix64 sequence). Not for secrets
/// that matter: the modelled GitHub hands out secrets of no value.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        if bound == 0 {
            return 0;
        }
        usize::try_from(self.bits() % bound).unwrap_or(0)
    }

    /// True with the given probability (1.0 and more: always; 0 and less: never).
    pub fn chance(&mut self, probability: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let unit = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }

    /// `bytes` pseudo-random bytes.
    pub fn bytes(&mut self, bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes + 8);
        while out.len() < bytes {
            out.extend_from_slice(&self.bits().to_le_bytes());
        }
        out.truncate(bytes);
        out
    }

    /// A string in the shape of a version 4 UUID.
    pub fn uuid(&mut self) -> String {
        let high = u128::from(self.bits());
        let low = u128::from(self.bits());
        uuid::Builder::from_u128((high << 64) | low)
            .with_version(uuid::Version::Random)
            .into_uuid()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let (mut one, mut two) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(one.uuid(), two.uuid());
        assert_eq!(one.bytes(33), two.bytes(33));
        assert_ne!(one.bits(), Random::seeded(8).bits());
    }

    #[test]
    fn chance_keeps_its_ends() {
        let mut random = Random::seeded(1);
        assert!((0..1_000).all(|_| random.chance(1.0)));
        assert!((0..1_000).all(|_| !random.chance(0.0)));
    }
}
