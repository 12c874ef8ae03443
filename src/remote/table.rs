//! Tables for terminals.

/// Rows below a head, each column as wide as its widest cell; those of numbers are set to the right.
pub(super) struct Table {
    heads: Vec<Head>,
    rows: Vec<Vec<String>>,
}

/// The head of a column.
pub(super) enum Head {
    Text(&'static str),
    Number(&'static str),
}

impl Head {
    fn title(&self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) => title,
        }
    }
}

impl Table {
    pub(super) fn new(heads: Vec<Head>) -> Self {
        Self { heads, rows: Vec::new() }
    }

    /// Adds a row, with one cell for each head.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.heads.len(), "one cell for each head");
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, with a line's end after each row.
    pub(super) fn text(&self) -> String {
        let titles = self.heads.iter().map(|head| head.title().to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> =
            (0..self.heads.len()).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&self.heads).map(|((cell, width), head)| {
                let width = *width;
                match head {
                    Head::Text(_) => format!("{cell:<width$}"),
                    Head::Number(_) => format!("{cell:>width$}"),
                }
            });
            let joined = cells.collect::<Vec<_>>().join("  ");
            format!("{}\n", joined.trim_end())
        };
        lines.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let mut table = Table::new(vec![Head::Text("NAME"), Head::Number("N"), Head::Text("WHY")]);
        table.row(["größe", "1", ""].map(str::to_owned).to_vec());
        table.row(["a", "100", "so"].map(str::to_owned).to_vec());
        assert_eq!(table.text(), "NAME     N  WHY\ngröße    1\na      100  so\n");
    }
}
