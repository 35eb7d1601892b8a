//! Classes of DRPC and Trident, which are refused by name wherever a topology file can have a class.

use crate::flux::walk::{At, Entries, Walk};
use stormkeeper_model::absent::Absent;

/// Reports a class of a part of Storm that Stormkeeper does not have. Returns whether it is one.
pub(super) fn refuse(walk: &mut Walk, class: &At<'_>) -> bool {
    let Some(absent) = class.as_text().and_then(Absent::of_class) else { return false };
    let name = class.as_text().unwrap_or_default();
    let what = format!("{name} is a class of {absent}, which Stormkeeper does not have");
    walk.fault(class, what, absent.instead().to_owned());
    true
}

/// Returns the class of an object: `{className: name}`.
pub(super) fn class_in<'a>(object: &At<'a>) -> Option<At<'a>> {
    object.as_map()?.get("className")
}

/// Reports such classes of the whole topology: the one that builds it, and objects that others refer to.
pub(super) fn refuse_in(walk: &mut Walk, file: &Entries<'_>) {
    let source = file.get("topologySource");
    let objects = file.get("components").and_then(|at| at.as_list()).unwrap_or_default();
    for object in source.iter().chain(&objects) {
        if let Some(class) = class_in(object) {
            refuse(walk, &class);
        }
    }
}
