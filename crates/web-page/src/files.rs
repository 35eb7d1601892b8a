//! Table of the files.

/// Makes the table of files below `ui/`.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/", $path)))),*]
    };
}

/// Paths below `ui/` and contents, sorted. A test compares them with the directory.
pub(crate) const FILES: &[(&str, &[u8])] = files![
    "app.js",
    "icon.svg",
    "index.html",
    "lib/api.js",
    "lib/csv.js",
    "lib/format.js",
    "lib/html.js",
    "lib/live.js",
    "lib/load.js",
    "lib/metrics.js",
    "lib/png.js",
    "lib/poll.js",
    "lib/route.js",
    "lib/session.js",
    "parts/actions.js",
    "parts/bits.js",
    "parts/chart.js",
    "parts/dialog.js",
    "parts/graph.js",
    "parts/layout.js",
    "parts/live.js",
    "parts/table.js",
    "style/base.css",
    "style/parts.css",
    "style/tree.css",
    "style/views.css",
    "vendor/LICENSE.htm",
    "vendor/LICENSE.preact",
    "vendor/hooks.js",
    "vendor/htm.js",
    "vendor/preact.js",
    "views/cluster.js",
    "views/component.js",
    "views/events.js",
    "views/explorer.js",
    "views/past-graph.js",
    "views/settings.js",
    "views/sign-in.js",
    "views/timeline.js",
    "views/topologies.js",
    "views/topology-tabs.js",
    "views/topology.js",
    "views/tree.js",
];
