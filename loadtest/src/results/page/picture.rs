//! Charts as one SVG file that stands alone, for documents: heading, legends and style inside, light and dark by
//! the reader's choice, as on the pages.

use std::fmt::Write;

use super::chart::{Axis, Chart, Line, Scale};
use super::{STYLE, colour, escape};
use crate::results::number;

/// One chart of a picture.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What its y axis tells, with the unit.
    pub title: &'static str,
    /// Name and points of each line; y begins at 0 unless [`Self::is_log`].
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Whether the y axis is logarithmic.
    pub is_log: bool,
}

/// Charts over the same logarithmic x axis, one below the other.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Heading.
    pub title: String,
    /// What the x axis tells.
    pub x_title: &'static str,
    /// Its marks: place and text.
    pub ticks: Vec<(f64, String)>,
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 230.0;
const HEAD: f64 = 40.0;
const LEGEND: f64 = 26.0;

impl Picture {
    /// The file's text.
    pub fn svg(&self) -> String {
        let height = HEAD + self.panels.len() as f64 * (HEIGHT + LEGEND);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" class=\"plot\" role=\"img\">\
             <title>{0}</title><style>{STYLE}\nsvg{{font-family:system-ui,sans-serif}}</style>\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"var(--card)\"/>\
             <text class=\"title\" x=\"16\" y=\"25\" style=\"font-size:17px;font-weight:600\">{0}</text>",
            escape(&self.title)
        );
        for (at, panel) in self.panels.iter().enumerate() {
            let top = HEAD + at as f64 * (HEIGHT + LEGEND);
            // Writing to a String cannot fail.
            let _ = write!(out, "<g transform=\"translate(0 {top})\">");
            legend(panel, &mut out);
            let _ = write!(out, "<g transform=\"translate(0 {LEGEND})\">");
            out.push_str(&self.chart(panel).drawing());
            out.push_str("</g></g>");
        }
        out.push_str("</svg>\n");
        out
    }

    fn chart(&self, panel: &Panel) -> Chart {
        let values = || panel.lines.iter().flat_map(|(_, points)| points).map(|point| point.1);
        let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let places = self.ticks.iter().map(|tick| tick.0);
        let (from, to) = (places.clone().fold(f64::MAX, f64::min), places.fold(0.0, f64::max));
        let lines = panel.lines.iter().enumerate().map(|(at, (name, points))| Line {
            name: name.clone(),
            class: colour(at).to_owned(),
            points: points.iter().map(|(x, y)| (*x, Some(*y))).collect(),
        });
        Chart {
            title: self.title.clone(),
            note: String::new(),
            height: HEIGHT,
            x: Axis {
                title: self.x_title,
                scale: Scale::Log { min: from * 0.9, max: to * 1.1 },
                show: number::short,
                ticks: Some(self.ticks.clone()),
            },
            y: Axis {
                title: panel.title,
                scale: if panel.is_log { Scale::log(min, max) } else { Scale::linear(max) },
                show: number::short,
                ticks: None,
            },
            areas: Vec::new(),
            lines: lines.collect(),
            columns: Vec::new(),
        }
    }
}

fn legend(panel: &Panel, out: &mut String) {
    let mut x = 62.0;
    for (at, (name, _)) in panel.lines.iter().enumerate() {
        let _ = write!(
            out,
            "<path class=\"line {}\" d=\"M{x} 14h24\"/><text x=\"{}\" y=\"18\">{}</text>",
            colour(at),
            x + 31.0,
            escape(name)
        );
        x += 60.0 + 7.5 * name.chars().count() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Panel, Picture};

    #[test]
    fn a_picture_holds_its_panels_and_nothing_that_would_be_fetched() {
        let panel = Panel {
            title: "events/s",
            lines: vec![("a <b>".into(), vec![(1.0, 10.0), (100.0, 7.0)])],
            is_log: false,
        };
        let picture = Picture {
            title: "cdc & more".into(),
            x_title: "companies",
            ticks: vec![(1.0, "1".into()), (100.0, "100".into())],
            panels: vec![panel.clone(), panel],
        };
        let svg = picture.svg();
        assert_eq!(svg.matches("a &lt;b&gt;").count(), 2);
        assert!(svg.contains("cdc &amp; more") && !svg.contains("a <b>"));
        assert_eq!(svg.matches("http").count(), 1, "the name space alone");
        assert_eq!(svg.matches("<circle").count(), 4);
    }
}
