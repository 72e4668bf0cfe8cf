//! The chart for the README: goodput against refusals, one dot a client.

use std::fmt::Write as _;

/// A client's mean over the rows that count.
pub(crate) struct Dot {
    pub(crate) client: String,
    /// Share of the calls that were refused.
    pub(crate) refused: f64,
    /// Share of what the oracle gets.
    pub(crate) goodput: f64,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 56.0;
/// Refusals run from 0.01 % to 100 % on a logarithmic axis.
const DECADES: f64 = 4.0;

fn x(refused: f64) -> f64 {
    let decades = (refused.max(1e-4).log10() + DECADES) / DECADES;
    LEFT + decades.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

fn y(goodput: f64) -> f64 {
    TOP + (1.0 - goodput.clamp(0.0, 1.05) / 1.05) * (HEIGHT - TOP - BOTTOM)
}

pub(crate) fn svg(dots: &[Dot]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(text);
        svg.push('\n');
    };
    for percent in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let x = x(percent / 100.0);
        let bottom = HEIGHT - BOTTOM;
        line(format_args!("<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>"));
        let label = bottom + 18.0;
        line(format_args!("<text x=\"{x:.1}\" y=\"{label}\" text-anchor=\"middle\">{percent} %</text>"));
    }
    for percent in [0, 20, 40, 60, 80, 100] {
        let y = y(f64::from(percent) / 100.0);
        let right = WIDTH - RIGHT;
        line(format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>"));
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            LEFT - 8.0,
            y + 4.0
        ));
    }
    line(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">calls refused by the upstream (logarithmic)</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0
    ));
    line(format_args!("<text x=\"{LEFT}\" y=\"16\">share of what one gets who was told the quota</text>"));
    // Labels that would lie on one another are moved down.
    let mut order: Vec<&Dot> = dots.iter().collect();
    order.sort_by(|a, b| y(a.goodput).total_cmp(&y(b.goodput)));
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for dot in order {
        let (x, y) = (x(dot.refused), y(dot.goodput));
        let left = x > WIDTH - 180.0;
        let mut label = y + 4.0;
        while placed.iter().any(|(px, py)| (px - x).abs() < 130.0 && (py - label).abs() < 13.0) {
            label += 13.0;
        }
        placed.push((x, label));
        let ours = dot.client == "learned";
        let (fill, weight) = if ours { ("#c22", "bold") } else { ("#456", "normal") };
        let (anchor, shift) = if left { ("end", -9.0) } else { ("start", 9.0) };
        line(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\"/>"));
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{label:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\" \
             fill=\"{fill}\">{}</text>",
            x + shift,
            dot.client
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
