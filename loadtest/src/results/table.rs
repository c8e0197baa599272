//! A table once, for terminals, for Markdown and for HTML. Invariant: cells hold text as it is; each rendering
//! escapes what would mean something to its reader.

use std::fmt::Write;

use super::page::escape;

/// What a cell says beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Faint,
}

/// One field.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

/// Rows under a head. The first column is names, the others figures, but for `words` columns at the end.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) title: String,
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
    words: usize,
}

impl Table {
    pub(super) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new(), words: 0 }
    }

    /// The last `words` columns hold words.
    pub(super) fn with_words(self, words: usize) -> Self {
        Self { words, ..self }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned by blanks.
    pub(super) fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| width(&plain(&cell.text))).max();
                widest.unwrap_or_default().max(width(&self.head[column]))
            })
            .collect();
        let mut out = String::new();
        let mut line = |cells: &[String]| {
            let fields = cells.iter().enumerate().map(|(column, cell)| {
                let blanks = " ".repeat(widths[column].saturating_sub(width(cell)));
                if self.is_words(column) {
                    format!("{cell}{blanks}")
                } else {
                    format!("{blanks}{cell}")
                }
            });
            let line = fields.collect::<Vec<_>>().join("  ");
            out.push_str(line.trim_end());
            out.push('\n');
        };
        line(&self.head);
        for row in &self.rows {
            line(&row.iter().map(|cell| plain(&cell.text)).collect::<Vec<_>>());
        }
        out
    }

    /// As GitHub draws it; what is bad stands bold.
    pub(super) fn markdown(&self) -> String {
        let mut out = format!("| {} |\n|", self.head.join(" | "));
        for column in 0..self.head.len() {
            out.push_str(if self.is_words(column) { "---|" } else { "--:|" });
        }
        out.push('\n');
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                let text = markdown(&cell.text);
                if cell.tone == Tone::Bad { format!("**{text}**") } else { text }
            });
            let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        out
    }

    pub(super) fn html(&self) -> String {
        let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
        for (column, name) in self.head.iter().enumerate() {
            let _ = write!(out, "<th{}>{}</th>", self.class(column, Tone::Plain), escape(name));
        }
        out.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            out.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let class = self.class(column, cell.tone);
                let _ = write!(out, "<td{class}>{}</td>", escape(&cell.text));
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>");
        out
    }

    fn is_words(&self, column: usize) -> bool {
        column == 0 || column + self.words >= self.head.len()
    }

    fn class(&self, column: usize, tone: Tone) -> String {
        let tone = match tone {
            Tone::Plain => "",
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Faint => "faint",
        };
        let class = [if self.is_words(column) { "words" } else { "" }, tone];
        match class.join(" ").trim() {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        }
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Without what would move a terminal's cursor, or more.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// What is not seen and yet changes how its neighbours are: control characters, and those that turn the direction
/// of writing.
pub(super) fn is_hidden(c: char) -> bool {
    let turns = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
        '\u{202e}',
    ];
    c.is_control() || turns.contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Nothing in it means anything to Markdown.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '~' | '#' | '!' => {
                out.push('\\');
                out.push(c);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads_and_hostile_cells_stay_cells() {
        let mut table = Table::new("t", &["name", "µs", "why"]).with_words(1);
        table.row(["a".into(), "1,000".into(), Cell::new("x|y\n<b>@all", Tone::Bad)]);
        table.row(["longer".into(), "5".into(), "ok".into()]);
        let text = table.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["name       µs  why", "a       1,000  x|y\u{fffd}<b>@all", "longer      5  ok"]
        );
        let markdown = table.markdown();
        assert!(markdown.contains("|---|--:|---|"), "{markdown}");
        assert!(markdown.contains("**x\\|y\u{fffd}&lt;b&gt;&#64;all**"), "{markdown}");
        assert!(table.html().contains("x|y\n&lt;b&gt;@all</td>"), "{}", table.html());
    }
}
