//! A whole cluster in one process, on the memory tree.
