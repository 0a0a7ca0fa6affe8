//! Options: what to look for and how, and the counts of equal places that follow from it.

use crate::bands;
use crate::error::DataError;
use crate::reading::Reading;

/// Which candidates are compared how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Not at all: what shares a band is one.
    None,
    /// By the estimate alone.
    Estimate,
    /// By the estimate; exactly when it is within two standard deviations of the threshold.
    Borderline,
    /// All exactly.
    Exact,
}

/// What to look for and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Jaccard similarity from which two texts are one; `None` finds equal texts only.
    pub threshold: Option<f64>,
    /// Places of a signature, a multiple of 8.
    pub num_perm: usize,
    /// Threads to work with, at least 1.
    pub threads: usize,
    /// Of the hash functions.
    pub seed: u64,
    /// Which candidates are compared how.
    pub verify: Verify,
    /// What of a text is compared.
    pub reading: Reading,
    /// How far below the threshold a text may be from the representative of its cluster; `None` joins whatever is connected.
    pub slack: Option<f64>,
    /// Bands and rows of each; chosen for the threshold when there are none.
    pub bands: Option<(usize, usize)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threshold: Some(0.8),
            num_perm: 128,
            threads: 1,
            seed: 0,
            verify: Verify::Borderline,
            reading: Reading::default(),
            slack: Some(0.03),
            bands: None,
        }
    }
}

impl Options {
    /// An error for the first value that is out of its range.
    pub fn check(&self) -> Result<(), DataError> {
        self.reading.check()?;
        if self.num_perm % 8 != 0 || !(8..=1024).contains(&self.num_perm) {
            return Err(DataError::NumPerm(self.num_perm));
        }
        if let Some(threshold) = self.threshold.filter(|&threshold| !(threshold > 0.0 && threshold <= 1.0)) {
            return Err(DataError::Threshold(threshold));
        }
        if let Some(slack) = self.slack.filter(|slack| !(0.0..=1.0).contains(slack)) {
            return Err(DataError::Slack(slack));
        }
        match self.bands {
            Some((bands, rows)) if bands == 0 || rows == 0 || bands.saturating_mul(rows) > self.num_perm => {
                Err(DataError::Bands(bands, rows, self.num_perm))
            }
            _ => Ok(()),
        }
    }

    /// Bands and rows of each.
    pub fn bands(&self) -> (usize, usize) {
        self.bands.unwrap_or_else(|| bands::choose(self.threshold.unwrap_or(1.0), self.num_perm))
    }

    /// The counts of equal places that decide.
    pub fn limits(&self) -> Limits {
        let places = self.num_perm as f64;
        let threshold = self.threshold.unwrap_or(1.0);
        let margin = match self.verify {
            Verify::None | Verify::Estimate => 0.0,
            Verify::Borderline => 2.0 * (threshold * (1.0 - threshold) / places).sqrt(),
            Verify::Exact => 2.0,
        };
        let at_least = |share: f64| (share * places).ceil().max(0.0) as u32;
        Limits {
            accept: if self.verify == Verify::None { 0 } else { at_least(threshold + margin) },
            likely: at_least(threshold),
            reject: at_least(threshold - margin),
            floor: self.slack.map(|slack| at_least(threshold - slack)),
        }
    }
}

/// Equal places that decide about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From here on the estimate accepts.
    pub accept: u32,
    /// From here on an exact comparison will probably accept.
    pub likely: u32,
    /// Below this the estimate rejects.
    pub reject: u32,
    /// What a text shares with the representative of its cluster at least, if that is asked for.
    pub floor: Option<u32>,
}
