//! Plain tables: a heading of single words, columns separated by at least two spaces.
//!
//! Columns and their order are stable; new ones are added on the right.

/// The text of a table. Every row has as many cells as there are headings.
#[must_use]
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            // An empty cell would shift the columns for who splits at spaces.
            let cell = if cell.is_empty() { "-" } else { cell };
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut headings.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A length of time in seconds, as `ps` users read it: `45s`, `12m05s`, `3h20m`, `9d04h`.
#[must_use]
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_never_empty() {
        let rows =
            [vec!["tcp".into(), "192.0.2.1:22".into(), String::new()], vec!["udp".into(), "x".into(), "y".into()]];
        assert_eq!(
            table(&["PROTO", "LOCAL", "STATE"], &rows),
            "PROTO  LOCAL         STATE\ntcp    192.0.2.1:22  -\nudp    x             y\n"
        );
        assert_eq!(table(&["A", "B"], &[]), "A  B\n");
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86_399, "23h59m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
