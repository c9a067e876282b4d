//! Aligned columns of text.

/// Rows of equal length, the first being the head. Columns named in `right` are aligned to the right.
pub(crate) fn aligned(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number for reading: three significant digits below 1000, thousands apart above.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["name".into(), "ms".into()], vec!["µs".into(), "1 000".into()]];
        assert_eq!(aligned(&rows, &[1]), "name     ms\nµs    1 000\n");
    }

    #[test]
    fn numbers_keep_three_digits_and_group_thousands() {
        let shown: Vec<String> = [0.0, 0.1234, 1.234, 12.34, 123.4, 1234.4, 1_234_567.0, -45_000.0].map(number).into();
        assert_eq!(shown, ["0.00", "0.123", "1.23", "12.3", "123", "1 234", "1 234 567", "-45 000"]);
    }
}
