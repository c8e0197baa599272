//! Histograms as they stand in the file: points for people, all values as HdrHistogram V2 for programs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::{Distribution, ResultsError, Spread};

impl Spread {
    /// The points of `histogram`.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

impl Distribution {
    /// `histogram` with its points.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn of(histogram: &Histogram<u64>) -> Result<Self, ResultsError> {
        Ok(Self { points: Spread::of(histogram), histogram: encode(histogram)? })
    }

    /// All its values.
    ///
    /// # Errors
    /// The text is no histogram.
    pub fn values(&self) -> Result<Histogram<u64>, ResultsError> {
        decode(&self.histogram)
    }
}

/// HdrHistogram V2, compressed, base64.
pub(super) fn encode(histogram: &Histogram<u64>) -> Result<String, ResultsError> {
    let mut bytes = Vec::new();
    let encoded = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    encoded.map_err(|error| ResultsError::Histogram { reason: error.to_string() })?;
    Ok(STANDARD.encode(bytes))
}

/// The other way; an empty text is an empty histogram.
pub(super) fn decode(text: &str) -> Result<Histogram<u64>, ResultsError> {
    if text.is_empty() {
        return Ok(crate::report::latency_histogram());
    }
    let broken = |reason: String| ResultsError::Histogram { reason };
    let bytes = STANDARD.decode(text).map_err(|error| broken(error.to_string()))?;
    let decoded = Deserializer::new().deserialize(&mut bytes.as_slice());
    decoded.map_err(|error| broken(error.to_string()))
}
