//! Formats of a page, and the choice among them by the header `Accept`.

mod protobuf;
mod text;

#[cfg(test)]
mod tests;

use crate::Family;

/// Maximum number of bytes of `Accept` that are read, and of alternatives in them. The rest is
/// ignored.
const ACCEPT_BYTES_MAX: usize = 4096;
const ALTERNATIVES_MAX: usize = 32;

/// Format of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which every reader understands.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Delimited protobuf messages, the only format with native histograms.
    Protobuf,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Returns the format that a reader prefers, by its header `Accept`; text if it accepts none of
    /// ours.
    pub fn preferred(accept: &str) -> Self {
        let end = (0..=accept.len().min(ACCEPT_BYTES_MAX)).rev().find(|end| accept.is_char_boundary(*end));
        let accept = &accept[..end.unwrap_or(0)];
        let mut best: Option<(u16, Self)> = None;
        for alternative in accept.split(',').take(ALTERNATIVES_MAX) {
            let Some((format, weight)) = alternative_of(alternative) else { continue };
            // Of equal weights the first counts; a weight of 0 means "not this one".
            if weight > best.map_or(0, |(before, _)| before) {
                best = Some((weight, format));
            }
        }
        best.map_or(Self::Text, |(_, format)| format)
    }

    /// Returns the value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// Encodes a page. Families without samples are left out.
    pub fn encode(self, families: &[Family]) -> Vec<u8> {
        match self {
            Self::Text => text::encode(families, text::Dialect::Prometheus).into_bytes(),
            Self::OpenMetrics => text::encode(families, text::Dialect::OpenMetrics).into_bytes(),
            Self::Protobuf => protobuf::encode(families),
        }
    }
}

/// Parses one alternative of `Accept`; returns the format, and the weight in thousandths. `None` if
/// it is none of ours.
fn alternative_of(text: &str) -> Option<(Format, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let (mut weight, mut version, mut proto, mut encoding) = (1000, None, None, None);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => weight = weight_of(value)?,
            "version" => version = Some(value),
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            _ => {}
        }
    }
    let format = match media_type.as_str() {
        "application/vnd.google.protobuf" => {
            let is_ours = proto == Some("io.prometheus.client.MetricFamily") && encoding == Some("delimited");
            is_ours.then_some(Format::Protobuf)?
        }
        "application/openmetrics-text" => {
            version.is_none_or(|version| version == "1.0.0").then_some(Format::OpenMetrics)?
        }
        "text/plain" => version.is_none_or(|version| version == "0.0.4").then_some(Format::Text)?,
        "text/*" | "*/*" => Format::Text,
        _ => return None,
    };
    Some((format, weight))
}

/// Parses a weight between 0 and 1; returns it in thousandths.
fn weight_of(text: &str) -> Option<u16> {
    let weight: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0).round() as u16)
}
