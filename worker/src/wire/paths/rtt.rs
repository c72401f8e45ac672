//! Round trip time of a path, smoothed as in RFC 6298.

/// Smoothed round trip time and its mean deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundTrip {
    srtt_us: u64,
    var_us: u64,
}

impl RoundTrip {
    /// Takes a sample in microseconds.
    pub fn sample(&mut self, rtt_us: u64) {
        let rtt_us = rtt_us.max(1);
        if self.srtt_us == 0 {
            (self.srtt_us, self.var_us) = (rtt_us, rtt_us / 2);
        } else {
            self.var_us = (3 * self.var_us + self.srtt_us.abs_diff(rtt_us)) / 4;
            self.srtt_us = ((7 * self.srtt_us + rtt_us) / 8).max(1);
        }
    }

    /// Smoothed round trip time in microseconds; 0 before the first sample.
    pub fn srtt_us(&self) -> u64 {
        self.srtt_us
    }

    /// Mean deviation in microseconds.
    pub fn var_us(&self) -> u64 {
        self.var_us
    }

    /// Whether there is a sample.
    pub fn is_known(&self) -> bool {
        self.srtt_us > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_smoothed() {
        let mut rtt = RoundTrip::default();
        assert!(!rtt.is_known());
        rtt.sample(80_000);
        assert_eq!((rtt.srtt_us(), rtt.var_us()), (80_000, 40_000));
        rtt.sample(40_000);
        assert_eq!((rtt.srtt_us(), rtt.var_us()), (75_000, 40_000));
        for _ in 0..100 {
            rtt.sample(40_000);
        }
        assert!(rtt.srtt_us() < 40_100 && rtt.var_us() < 100, "{rtt:?}");
        rtt.sample(0);
        assert!(rtt.is_known());
    }
}
