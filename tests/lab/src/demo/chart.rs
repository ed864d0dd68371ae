//! The picture of the transfer: bytes over time, moves marked.

use std::fmt::Write;
use std::time::Duration;

/// Bytes received after a time.
pub(super) type Sample = (Duration, u64);

/// One transfer.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    /// What the legend says.
    pub(super) label: String,
    /// Bytes over time, in order.
    pub(super) samples: Vec<Sample>,
}

/// The host is in a network from a time on.
#[derive(Clone, Debug)]
pub(super) struct Stay {
    /// Since the transfer began.
    pub(super) from: Duration,
    /// Name of the network and the host's address.
    pub(super) label: String,
    /// What the move to it cost; nothing for the first.
    pub(super) note: String,
}

/// Everything in the picture.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) with: Curve,
    pub(super) without: Curve,
    pub(super) stays: Vec<Stay>,
    /// Length of the file, bytes.
    pub(super) total: u64,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 48.0;
/// Most points of one curve.
const POINTS: usize = 400;

/// Grey that reads on white and on black; the two colours differ in lightness
/// too, and one line is dashed.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#57606a}.t{font-size:16px;font-weight:600}\
.g{stroke:#8b949e;stroke-opacity:.35;fill:none}.m{stroke:#8b949e;stroke-dasharray:4 4;fill:none}\
.w{stroke:#2f81f7;stroke-width:2.5;fill:none;stroke-linejoin:round}\
.o{stroke:#d1583c;stroke-width:2.5;stroke-dasharray:7 4;fill:none;stroke-linejoin:round}\
.n{fill:#2f81f7;fill-opacity:.10}.n2{fill:#a371f7;fill-opacity:.14}.s{font-size:12px}\
@media(prefers-color-scheme:dark){text{fill:#9aa4af}}";

impl Chart {
    /// The picture as SVG.
    pub(super) fn svg(&self) -> String {
        let last = |curve: &Curve| curve.samples.last().map_or(0.0, |(at, _)| at.as_secs_f64());
        let seconds = last(&self.with).max(last(&self.without)).max(1.0);
        let megabytes = (self.total as f64 / 1e6).max(1e-6);
        let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - RIGHT);
        let y = |mb: f64| HEIGHT - BOTTOM - mb / megabytes * (HEIGHT - BOTTOM - TOP);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"A download while the host changes its network\"><style>{STYLE}</style>\n\
             <text class=\"t\" x=\"{LEFT}\" y=\"24\">One TCP connection, one download, two moves</text>\n"
        );
        self.stays(&mut svg, seconds, &x);
        for step in steps(megabytes, 4) {
            let at = y(step);
            let _ = writeln!(
                svg,
                "<path class=\"g\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{step}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            );
        }
        for step in steps(seconds, 8) {
            let at = x(step);
            let _ = writeln!(
                svg,
                "<path class=\"g\" d=\"M{at:.1} {bottom}v5\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step}</text>",
                bottom + 19.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">seconds</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">MB</text>",
            WIDTH - RIGHT,
            HEIGHT - 10.0,
            LEFT - 8.0,
            top - 8.0
        );
        for (class, curve) in [("o", &self.without), ("w", &self.with)] {
            let points = thin(&curve.samples);
            let path: Vec<_> =
                points.iter().map(|(at, b)| format!("{:.1} {:.1}", x(at.as_secs_f64()), y(*b as f64 / 1e6))).collect();
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        }
        for (row, (class, curve)) in [("w", &self.with), ("o", &self.without)].into_iter().enumerate() {
            let (at, from) = (bottom - 40.0 + 20.0 * row as f64, WIDTH - RIGHT - 165.0);
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{from} {:.1}h34\"/><text x=\"{:.1}\" y=\"{at:.1}\">{}</text>",
                at - 4.0,
                from + 42.0,
                escape(&curve.label)
            );
        }
        svg + "</svg>\n"
    }

    /// The networks as bands above the curves, a dashed line at each move.
    fn stays(&self, svg: &mut String, seconds: f64, x: &impl Fn(f64) -> f64) {
        let ends = self.stays.iter().skip(1).map(|stay| stay.from.as_secs_f64()).chain([seconds]);
        for (number, (stay, end)) in self.stays.iter().zip(ends).enumerate() {
            let (from, to) = (x(stay.from.as_secs_f64()), x(end));
            let class = if number % 2 == 0 { "n" } else { "n2" };
            // Writing to a string cannot fail.
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"40\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <text class=\"s\" x=\"{:.1}\" y=\"56\">{}</text><text class=\"s\" x=\"{:.1}\" y=\"73\">{}</text>",
                to - from,
                HEIGHT - BOTTOM - 40.0,
                from + 7.0,
                escape(&stay.label),
                from + 7.0,
                escape(&stay.note)
            );
            if number > 0 {
                let _ = write!(svg, "<path class=\"m\" d=\"M{from:.1} 40V{:.1}\"/>", HEIGHT - BOTTOM);
            }
            svg.push('\n');
        }
    }
}

/// Round numbers from 0 to `most`, some `count` of them.
fn steps(most: f64, count: u32) -> Vec<f64> {
    let rough = most / f64::from(count);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    (0..=count * 2).map(|n| f64::from(n) * step).take_while(|v| *v <= most * 1.001).collect()
}

/// At most [`POINTS`] of the samples, the last among them.
fn thin(samples: &[Sample]) -> Vec<Sample> {
    let every = samples.len().div_ceil(POINTS).max(1);
    let mut kept: Vec<_> = samples.iter().copied().step_by(every).collect();
    if let Some(last) = samples.last().filter(|last| kept.last() != Some(last)) {
        kept.push(*last);
    }
    kept
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_steps() {
        assert_eq!(steps(40.0, 4), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(steps(9.3, 8), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let samples: Vec<_> = (0..1000).map(|n| (Duration::from_millis(n), n)).collect();
        let kept = thin(&samples);
        assert!(kept.len() <= POINTS + 1, "{}", kept.len());
        assert_eq!((kept.first(), kept.last()), (samples.first(), samples.last()));
    }

    #[test]
    fn tags_are_balanced_and_text_is_escaped() {
        let curve = |label: &str| Curve {
            label: label.into(),
            samples: vec![(Duration::ZERO, 0), (Duration::from_secs(2), 9)],
        };
        let stays = vec![
            Stay { from: Duration::ZERO, label: "a<b".into(), note: String::new() },
            Stay { from: Duration::from_secs(1), label: "c".into(), note: "d".into() },
        ];
        let svg = Chart { with: curve("w & w"), without: curve("o"), stays, total: 9 }.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("w &amp; w"), "{svg}");
        assert!(svg.matches("<text").count() == svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
