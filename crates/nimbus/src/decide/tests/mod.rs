//! Decisions on a small model of the tree, in which a plan can be applied in part.

mod drain;
mod properties;
mod table;
mod unknown_fields;
mod world;
