//! Log levels of the components of a worker, which operators set while it runs.

use std::collections::BTreeMap;

use tracing::{Level, info};

use stormkeeper_model::{
    ComponentId,
    log_control::{LogControl, LogLevel},
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_runtime::log_scope::LogScope;

/// The scope of each component: what it logs follows the level that was set for it.
#[derive(Debug, Default)]
pub(crate) struct LogScopes {
    scopes: BTreeMap<ComponentId, LogScope>,
    levels: LogControl,
}

impl LogScopes {
    /// Creates the scopes of the components of `tasks`.
    pub(crate) fn new(tasks: &TaskSet, table: &TaskTable, levels: &LogControl) -> Self {
        let components = tasks.iter().filter_map(|task| table.component_of(task).cloned());
        let scopes = components.map(|component| (component, LogScope::default())).collect();
        let mut new = Self { scopes, levels: LogControl::default() };
        new.follow(levels);
        new
    }

    /// Returns the scope of a component.
    pub(crate) fn of(&self, component: &ComponentId) -> LogScope {
        self.scopes.get(component).cloned().unwrap_or_default()
    }

    /// Follows the levels of the topology.
    pub(crate) fn follow(&mut self, levels: &LogControl) {
        if self.levels == *levels {
            return;
        }
        self.levels = levels.clone();
        for (component, scope) in &self.scopes {
            let level = levels.level_of(component);
            info!(%component, level = level.map(tracing::field::display), "log level follows the operator");
            scope.set(level.map(level_of));
        }
    }
}

fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}
