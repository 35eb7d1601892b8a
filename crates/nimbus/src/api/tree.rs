//! A look into the tree, for admins: one znode for each request, without secrets.

use std::sync::Arc;

use axum::{Json, extract::State};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{Api, error::ApiError};
use crate::refusal::Refusal;
use stormkeeper_api_types::message::{Code, TreeAcl, TreeExplanation, TreeFacts, TreeNode};
use stormkeeper_coordination::{
    cluster::layout::{self, Explanation, OtherWriters},
    tree::{InvalidPath, Node, NodeFacts, TreePath},
};
use stormkeeper_model::{Timestamp, secret_text::masked};
use stormkeeper_serving::query::{ValidQuery, invalid_parameter};

/// Path of the route, below the prefix of the own API.
pub(super) const ROUTE: &str = "/tree";

/// Number of requests that read the tree at the same time; further ones are refused.
pub(super) const READS_MAX: usize = 4;

/// Maximum bytes of data that a response shows; the rest is cut off.
const SHOWN_BYTES_MAX: usize = 128 << 10;

/// Maximum bytes of the path of a request; the longest of the layout has some 300.
const PATH_BYTES_MAX: usize = 4096;

/// Maximum number of children whose names are read; of a znode with more, only their number is shown.
const CHILDREN_MAX: usize = 50_000;

/// Names of children in a response, at most.
const PAGE_MAX: usize = 5000;

/// Names of children in a response, unless the request says how many.
const PAGE: usize = 500;

/// Fields of a record of credentials that are no secrets.
const OPEN_FIELDS: [&str; 4] = ["v", "number", "entries", "key"];

/// Parameters of a look at a znode.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TreeQuery {
    /// Path of the znode below the root of the cluster's tree, such as `/storms`; the root if absent.
    path: Option<String>,
    /// Name of a child after which the page of children begins.
    after: Option<String>,
    /// Number of children of a page; 500 if absent.
    #[serde(default)]
    limit: PageLimit,
}

/// Number of children of a page.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "String")]
struct PageLimit(usize);

impl Default for PageLimit {
    fn default() -> Self {
        Self(PAGE)
    }
}

impl TryFrom<String> for PageLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(Self(limit)),
            _ => Err(format!("expected a whole number from 1 to {PAGE_MAX}")),
        }
    }
}

impl JsonSchema for PageLimit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PageLimit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE })
    }
}

pub(super) async fn znode(
    State(api): State<Api>,
    ValidQuery(TreeQuery { path, after, limit: PageLimit(limit) }): ValidQuery<TreeQuery>,
) -> Result<Json<TreeNode>, ApiError> {
    let text = path.as_deref().unwrap_or("/");
    let path = path_of(text).map_err(|reason| invalid_parameter("path", text, &reason))?;
    let busy = |_| {
        let message = format!("{READS_MAX} other requests read the tree");
        ApiError::new(Code::NotReady, message, Some("try again in a moment, or ask another nimbus"))
    };
    let _permit = Arc::clone(&api.tree_reads).try_acquire_owned().map_err(busy)?;
    let store = api.nimbus.store();
    let tree = store.tree();
    let missing = || {
        let hint = Some("it may have been deleted: look at its parent");
        ApiError::new(Code::UnknownZnode, format!("there is no znode {path}"), hint)
    };
    let node = tree.get(&path).await.map_err(Refusal::Tree)?.ok_or_else(missing)?;
    let names = match node.stat.n_children {
        0 => Vec::new(),
        n if n > CHILDREN_MAX => Vec::new(),
        _ => tree.children(&path).await.map_err(Refusal::Tree)?.unwrap_or_default(),
    };
    let facts = tree.facts(&path).await.map_err(Refusal::Tree)?;
    Ok(Json(shown(&path, tree.root(), &node, page(names, after.as_deref(), limit), facts)))
}

/// Reads a path. ZooKeeper takes neither characters for private use nor the last ones of the first plane.
fn path_of(text: &str) -> Result<TreePath, String> {
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("a path has at most {PATH_BYTES_MAX} bytes"));
    }
    let is_refused = |c: char| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if let Some(refused) = text.chars().find(|c| is_refused(*c)) {
        return Err(format!("ZooKeeper takes no path with the character U+{:04X}", u32::from(refused)));
    }
    text.parse().map_err(|error: InvalidPath| error.to_string())
}

/// Cuts the page after a name out of the names, which are in ascending order. Returns it with the name
/// after which the next begins.
fn page(names: Vec<String>, after: Option<&str>, limit: usize) -> (Vec<String>, Option<String>) {
    let begin = after.map_or(0, |after| names.partition_point(|name| name.as_str() <= after));
    let is_last = names.len() <= begin.saturating_add(limit);
    let page: Vec<String> = names.into_iter().skip(begin).take(limit).collect();
    let next = page.last().filter(|_| !is_last).cloned();
    (page, next)
}

fn shown(
    path: &TreePath,
    root: &TreePath,
    node: &Node,
    (children, next): (Vec<String>, Option<String>),
    facts: Option<NodeFacts>,
) -> TreeNode {
    let explanation = layout::explain(path);
    let is_known = explanation.is_some() || path.is_root();
    let mut content = content(path, &node.data, is_known);
    let stat = &node.stat;
    if stat.n_children > CHILDREN_MAX {
        content.withheld = Some(format!("its {} children are too many to list", stat.n_children));
    }
    TreeNode {
        path: path.to_string(),
        root: root.to_string(),
        explanation: explanation.map(explained),
        bytes: node.data.len(),
        data: content.data,
        text: content.text,
        withheld: content.withheld,
        version: stat.version.0,
        created_zxid: hexadecimal(stat.created),
        modified_zxid: hexadecimal(stat.modified),
        session: stat.owner.map(|owner| owner.to_string()),
        children_total: stat.n_children,
        children,
        next,
        facts: facts.map(facts_of),
    }
}

fn explained(Explanation { row, is_parent }: Explanation) -> TreeExplanation {
    TreeExplanation {
        layout: row.path.to_owned(),
        is_parent,
        kind: row.kind.to_owned(),
        holds: row.holds.to_owned(),
        written_by: row.written_by.to_owned(),
        watched_by: row.watched_by.to_owned(),
    }
}

/// What a response shows of the data of a znode.
#[derive(Debug, Default, PartialEq)]
struct Content {
    data: Option<Value>,
    text: Option<String>,
    withheld: Option<String>,
}

/// Returns what is shown of data. Only records of the layout are: what somebody else keeps in the tree may
/// be a secret, whatever it is called.
fn content(path: &TreePath, data: &[u8], is_known: bool) -> Content {
    let withheld = |reason: &str| Content { withheld: Some(reason.to_owned()), ..Content::default() };
    let is_sealed = layout::other_writers(path) == OtherWriters::NoneAndSupervisorsRead;
    if data.is_empty() {
        return Content::default();
    }
    if !is_known {
        return withheld("it is not of the layout of Stormkeeper, so its data is not shown");
    }
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        if is_sealed {
            return withheld("it is not a record, and may have secrets");
        }
        return Content {
            text: Some(begin_of(&String::from_utf8_lossy(data))),
            ..withheld("it is not JSON")
        };
    };
    let value = match value {
        Value::Object(fields) if is_sealed => fields
            .into_iter()
            .map(|(name, value)| match OPEN_FIELDS.contains(&name.as_str()) {
                true => (name, value),
                false => (name, stormkeeper_model::secret_text::MARK.into()),
            })
            .collect(),
        value if is_sealed => masked("secret", &value),
        value => masked("", &value),
    };
    if data.len() <= SHOWN_BYTES_MAX {
        return Content { data: Some(value), ..Content::default() };
    }
    let text = Some(begin_of(&value.to_string()));
    Content { text, ..withheld(&format!("only the first {SHOWN_BYTES_MAX} bytes are shown")) }
}

/// Returns the begin of a text, without half of a character.
fn begin_of(text: &str) -> String {
    let end = (0..=SHOWN_BYTES_MAX.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or_default()].to_owned()
}

fn facts_of(facts: NodeFacts) -> TreeFacts {
    let time = |ms| Timestamp::from_millis(u64::try_from(ms).unwrap_or_default());
    TreeFacts {
        created: time(facts.created_ms),
        modified: time(facts.modified_ms),
        children_zxid: hexadecimal(facts.children_changed),
        acl_version: facts.acl_version,
        acl: facts
            .acl
            .into_iter()
            .map(|entry| TreeAcl {
                scheme: entry.scheme,
                id: entry.id,
                rights: entry.rights.into_iter().map(str::to_owned).collect(),
            })
            .collect(),
    }
}

/// Returns the number of a transaction as ZooKeeper's logs have it.
fn hexadecimal(zxid: i64) -> String {
    format!("{zxid:#x}")
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
