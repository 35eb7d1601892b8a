//! Settings with their sources: of a nimbus, and of a topology.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde_json::Value;

use super::{
    Api,
    error::{ApiError, PathPart},
};
use crate::{change::find, options::StormApiOptions, refusal::Refusal};
use stormkeeper_api_types::message::{
    ConfigurationKey, ConfigurationList, SettingOfTopology, SettingOrigin, TopologySettings,
};
use stormkeeper_model::{ComponentId, secret_text::masked, topology::Topology};

pub(super) async fn configuration(State(api): State<Api>) -> Json<ConfigurationList> {
    let StormApiOptions { configuration, sources, .. } = &api.nimbus.options().storm_api;
    let keys = configuration.iter().map(|(key, value)| ConfigurationKey {
        key: key.clone(),
        value: value.clone(),
        source: sources.get(key).cloned(),
    });
    Json(ConfigurationList { keys: keys.collect() })
}

pub(super) async fn of_topology(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<TopologySettings>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let topology_id = find(&view, &topology)?;
    let unknown = || Refusal::UnknownTopology { topology: topology.clone() };
    let blob = &view.topologies.get(&topology_id).ok_or_else(unknown)?.value.blob;
    let missing = || Refusal::BlobMissing { key: blob.clone() };
    let package = api.nimbus.blobs().topology(blob).await.ok().flatten().ok_or_else(missing)?;
    let StormApiOptions { configuration, sources, .. } = &api.nimbus.options().storm_api;
    Ok(Json(TopologySettings { topology_id, settings: in_force(&package, configuration, sources) }))
}

/// Returns the settings in force: what the topology does not set is as the configuration says.
fn in_force(
    topology: &Topology,
    configuration: &BTreeMap<String, Value>,
    sources: &BTreeMap<String, String>,
) -> Vec<SettingOfTopology> {
    let setting =
        |(key, value): (&String, &Value), origin, component: Option<&ComponentId>| SettingOfTopology {
            key: key.clone(),
            value: masked(key, value),
            origin,
            component: component.cloned(),
            source: None,
        };
    let origin = |key: &String| match topology.given_at_submission.contains(key) {
        true => SettingOrigin::Submission,
        false => SettingOrigin::Topology,
    };
    let own = topology.settings.iter().map(|entry| setting(entry, origin(entry.0), None));
    let is_left = |key: &str| key.starts_with("topology.") && !topology.settings.contains_key(key);
    let left = configuration.iter().filter(|(key, _)| is_left(key)).map(|entry| {
        let source = sources.get(entry.0).cloned();
        let origin = if source.is_some() { SettingOrigin::Cluster } else { SettingOrigin::Default };
        SettingOfTopology { source, ..setting(entry, origin, None) }
    });
    let mut settings: Vec<SettingOfTopology> = own.chain(left).collect();
    settings.sort_by(|one, other| one.key.cmp(&other.key));
    let components = topology.components.iter().flat_map(|(id, component)| {
        component.settings.iter().map(|entry| setting(entry, SettingOrigin::Topology, Some(id)))
    });
    settings.extend(components);
    settings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use stormkeeper_model::test_support::lines_and_count;

    #[test]
    fn each_setting_in_force_has_the_source_that_is_nearest_to_the_topology() {
        let mut topology = lines_and_count("wc");
        topology.settings = [
            ("topology.workers", json!(3)),
            ("topology.debug", json!(true)),
            ("db.password", json!("hunter2")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        topology.given_at_submission = ["topology.workers".to_owned()].into();
        let (id, component) = topology.components.iter_mut().next().expect("there are two");
        let id = id.clone();
        component.settings = [("topology.tasks".to_owned(), json!(9))].into();
        let configuration = [
            ("topology.workers", json!(1)),
            ("topology.max.spout.pending", json!(50)),
            ("topology.tick.tuple.freq.secs", json!(null)),
            ("ui.port", json!(8080)),
        ];
        let configuration = configuration.map(|(key, value)| (key.to_owned(), value)).into();
        let place = "/etc/stormkeeper/storm.yaml:7";
        let sources = [("topology.max.spout.pending".to_owned(), place.to_owned())].into();
        let found = in_force(&topology, &configuration, &sources);
        let rows: Vec<_> =
            found.iter().map(|one| (one.key.as_str(), one.value.clone(), one.origin)).collect();
        assert_eq!(
            rows,
            [
                ("db.password", json!("(secret)"), SettingOrigin::Topology),
                ("topology.debug", json!(true), SettingOrigin::Topology),
                ("topology.max.spout.pending", json!(50), SettingOrigin::Cluster),
                ("topology.tick.tuple.freq.secs", json!(null), SettingOrigin::Default),
                ("topology.workers", json!(3), SettingOrigin::Submission),
                ("topology.tasks", json!(9), SettingOrigin::Topology),
            ]
        );
        assert_eq!(found[2].source.as_deref(), Some(place));
        assert_eq!(found[5].component.as_ref(), Some(&id));
        assert!(found[..5].iter().all(|one| one.component.is_none()));
    }
}
