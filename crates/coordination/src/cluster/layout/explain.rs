//! Rows of the table that explain a path.

use super::table::{Row, TABLE};
use crate::tree::TreePath;

/// Explanation of a path by a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Explanation {
    /// The row.
    pub row: &'static Row,
    /// True if the path is above those of the row: a parent of such znodes, which has no content.
    pub is_parent: bool,
}

/// Returns the row that explains a path; `None` for the root of the tree, and for what is not of the layout.
/// Of several rows, that with the most fixed parts counts: `/taskerrors/wc/last/split` is no task.
pub fn explain(path: &TreePath) -> Option<Explanation> {
    let parts: Vec<&str> = path.parts().collect();
    if parts.is_empty() {
        return None;
    }
    let fixed = |row: &Row| {
        let wanted: Vec<&str> = row.path.split('/').skip(1).collect();
        let fits = parts.len() <= wanted.len()
            && wanted.iter().zip(&parts).all(|(wanted, part)| is_variable(wanted) || wanted == part);
        let is_parent = parts.len() < wanted.len();
        let n_fixed = wanted.iter().take(parts.len()).filter(|wanted| !is_variable(wanted)).count();
        fits.then_some((!is_parent, n_fixed))
    };
    // A row about the znode itself is better than one about what is below it. Of equal rows, the first.
    let found = TABLE.iter().rev().filter_map(|row| Some((fixed(row)?, row))).max_by_key(|(rank, _)| *rank);
    found.map(|((is_itself, _), row)| Explanation { row, is_parent: !is_itself })
}

fn is_variable(part: &str) -> bool {
    part.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(path: &str) -> Option<(&'static str, bool)> {
        let path = path.parse().expect("valid");
        explain(&path).map(|Explanation { row, is_parent }| (row.path, is_parent))
    }

    #[test]
    fn path_is_explained_by_its_own_row_and_otherwise_by_one_below_it() {
        for (path, row, is_parent) in [
            ("/term", "/term", false),
            ("/storms", "/storms/{topology-id}", true),
            ("/storms/wc-1-1", "/storms/{topology-id}", false),
            ("/taskbeats/wc-1-1", "/taskbeats/{topology-id}", false),
            ("/taskbeats/wc-1-1/7", "/taskbeats/{topology-id}/{task-id}", false),
            ("/taskerrors", "/taskerrors/{topology-id}/{task-id}/{sequence}", true),
            ("/taskerrors/wc-1-1/7", "/taskerrors/{topology-id}/{task-id}/{sequence}", true),
            ("/taskerrors/wc-1-1/last", "/taskerrors/{topology-id}/last/{component}", true),
            ("/taskerrors/wc-1-1/last/split", "/taskerrors/{topology-id}/last/{component}", false),
            ("/blobs/00", "/blobs/{sha256}", false),
        ] {
            assert_eq!(explained(path), Some((row, is_parent)), "{path}");
        }
    }

    #[test]
    fn root_and_paths_that_are_not_of_the_layout_have_no_explanation() {
        for path in ["/", "/kafka", "/storms/wc-1-1/more", "/term/more"] {
            assert_eq!(explained(path), None, "{path}");
        }
    }

    #[test]
    fn every_row_explains_its_own_path() {
        for row in TABLE {
            let example = row.path.replace(['{', '}'], "");
            assert_eq!(explained(&example), Some((row.path, false)), "{example}");
        }
    }
}
