//! All metric stores have the same log, points, metas and history.

use stormkeeper_metric_store::inspection::StoredRecords;

/// Checks that all stores have the same records; returns the first difference otherwise.
pub(crate) fn check_stores_converge(stores: &[(String, StoredRecords)]) -> Result<(), String> {
    let Some(((first, expected), others)) = stores.split_first() else { return Ok(()) };
    for (name, records) in others {
        let differs = |key: &&(&'static str, Vec<u8>)| expected.get(*key) != records.get(*key);
        if let Some((table, key)) = expected.keys().chain(records.keys()).find(differs) {
            return Err(format!("the metric stores of {first} and {name} differ in {table} at {key:02x?}"));
        }
    }
    Ok(())
}
