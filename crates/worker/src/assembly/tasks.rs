//! Start of the tasks of a worker: in child processes, or in this program.

use std::{collections::BTreeMap, ffi::OsString, sync::Arc};

use super::{Worker, python_dir};
use crate::{
    Error,
    component::{self, Source},
    counters::{CounterRegistry, TaskCounters},
    metrics::TaskMetrics,
    multilang::{child::ChildSpec, handshake},
    queue::Inbox,
    samples::Sampler,
    settings::TaskSettings,
    task::{self, Bolt, Cycle, Emitter, Spout, TaskContext, TaskKind, Wiring},
};
use stormkeeper_model::{
    ComponentId, TaskId,
    clock::Clock,
    topology::{ComponentKind, Run},
};
use stormkeeper_runtime::tasks::OnExit;
use stormkeeper_topology_package::{
    launch::{COMPONENT_VARIABLE, CREDENTIALS_VARIABLE, SUPERVISOR_DIR_VARIABLE},
    package::RESOURCES,
};

/// Parts that tasks of both kinds have.
struct Start {
    task: TaskId,
    component: ComponentId,
    wiring: Arc<Wiring>,
    settings: TaskSettings,
    emitter: Emitter,
    sampler: Sampler,
    counters: Arc<TaskCounters>,
    metrics: TaskMetrics,
    clock: Clock,
}

impl Worker {
    pub(super) fn start_task(
        &self,
        task: TaskId,
        inbox: Inbox,
        counters: &CounterRegistry,
        clock: &Clock,
    ) -> Result<(), Error> {
        let wiring = Arc::clone(&self.wiring);
        let id = wiring.table.component_of(task).cloned();
        let found = id.and_then(|id| Some((self.topology.components.get(&id)?, id)));
        let (component, id) = found.ok_or(Error::UnknownTask { task })?;
        let counters = counters.of(task);
        let outbox = self.peers.outbox();
        let emitter = Emitter::new(id.clone(), task, &wiring, outbox, Arc::clone(&counters), clock.clone())
            .map_err(Error::Wiring)?;
        let settings = TaskSettings::of(&self.topology, &id, &self.options);
        let tracker = self.tracking.as_ref().map(|tracking| tracking.tracker.clone());
        let cycle = Cycle::of(
            (&self.topology, &wiring.table),
            (&id, task),
            settings.cycle_timeout,
            tracker,
            self.errors.clone(),
            clock.clone(),
        );
        let sampler = || self.samples.sampler(&id, task);
        let (emitter, sampler) = (
            emitter
                .breaking(cycle)
                .passing_over_full(settings.shuffles_by_load, settings.room_of_choice())
                .sampled_by(sampler()),
            sampler(),
        );
        let metrics = match &self.worker_metrics {
            Some(worker_metrics) => TaskMetrics::new(worker_metrics.metrics(), id.clone(), task),
            None => TaskMetrics::default(),
        };
        let clock = clock.clone();
        let start =
            Start { task, component: id, wiring, settings, emitter, sampler, counters, metrics, clock };
        match (&component.run, component.kind) {
            (Run::Command(command), kind) => self.start_command(start, command.clone(), kind, inbox),
            (Run::InWorker, kind) => {
                let (components, id) = (&self.options.components, &start.component);
                let source = components.source(id, kind, inbox, &self.activity).ok_or_else(|| {
                    let kind = match kind {
                        ComponentKind::Spout => "spout",
                        ComponentKind::Bolt => "bolt",
                    };
                    Error::UnknownComponent { kind, component: id.clone() }
                })?;
                self.start_in_this_program(start, source);
            }
        }
        Ok(())
    }

    fn start_in_this_program(&self, start: Start, source: Source) {
        let Start { task, component, wiring, settings, emitter, sampler, counters, metrics, clock } = start;
        let (spec, tasks) = (&self.options.spec, self.runners.child());
        let parts = component::Parts {
            task,
            topology: spec.topology.clone(),
            all_settings: handshake::conf(&spec.topology, &self.topology, &spec.defaults, &component),
            resources: spec.code.join(RESOURCES),
            credentials: spec.credentials(),
            log_scope: self.log_scopes.of(&component),
            sampler,
            component,
            wiring,
            settings,
            emitter,
            counters,
            metrics,
            tracking: self.tracking.clone(),
            errors: self.errors.clone(),
            board: self.board.clone(),
            restarts: self.restarts.clone(),
            clock,
            stop: tasks.cancelled(),
        };
        let running = async move {
            component::run(parts, source).await;
            drop(tasks);
        };
        self.runners.start_graceful("task", OnExit::Ignore, running);
    }

    fn start_command(&self, start: Start, command: Vec<String>, kind: ComponentKind, inbox: Inbox) {
        let Start { task, component, wiring, settings, emitter, sampler, counters, metrics, clock } = start;
        let max_pending = settings.max_spout_pending;
        let context = TaskContext {
            log_scope: self.log_scopes.of(&component),
            sampler,
            n_changed_texts: 0,
            changes_reported: None,
            task,
            launch: self.launch(component, task, command, &settings),
            topology: self.options.spec.topology.clone(),
            defaults: self.options.spec.defaults.clone(),
            wiring,
            settings,
            emitter,
            counters,
            errors: self.errors.clone(),
            board: self.board.clone(),
            restarts: self.restarts.clone(),
            oom: Arc::clone(&self.oom),
            clock,
            tasks: self.runners.child(),
            metrics,
            tracking: self.tracking.clone(),
        };
        let kind = match kind {
            ComponentKind::Spout => {
                let tracking = self.tracking.as_ref();
                TaskKind::Spout(Box::new(Spout::new(self.activity.subscribe(), task, tracking, max_pending)))
            }
            ComponentKind::Bolt => TaskKind::Bolt(Box::new(Bolt::new(inbox))),
        };
        self.runners.start_graceful("task", OnExit::Ignore, task::run(context, kind));
    }

    fn launch(
        &self,
        component: ComponentId,
        task: TaskId,
        command: Vec<String>,
        settings: &TaskSettings,
    ) -> ChildSpec {
        let resources = self.options.spec.code.join("resources");
        let mut environment: BTreeMap<String, OsString> =
            settings.environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        // PYTHONPATH of the author's settings, else of this process.
        let python_path = environment.remove("PYTHONPATH").or_else(|| std::env::var_os("PYTHONPATH"));
        let mut with_adapter = python_dir(&self.options).into_os_string();
        if let Some(python_path) = python_path.filter(|path| !path.is_empty()) {
            with_adapter.push(":");
            with_adapter.push(python_path);
        }
        environment.insert("PYTHONPATH".to_owned(), with_adapter);
        // The adapter takes stdin and stdout when it is imported by a component.
        environment.insert(COMPONENT_VARIABLE.to_owned(), component.as_str().into());
        environment.insert(CREDENTIALS_VARIABLE.to_owned(), self.options.spec.credentials().into());
        // In local mode, where the worker has no environment of its own: it proves whose process it is.
        if std::env::var_os(SUPERVISOR_DIR_VARIABLE).is_none() {
            let dir = self.options.spec.dir.clone().into();
            environment.insert(SUPERVISOR_DIR_VARIABLE.to_owned(), dir);
        }
        ChildSpec {
            component,
            task,
            command,
            dir: if resources.is_dir() { resources } else { self.options.spec.code.clone() },
            environment,
            pid_dir: self.options.spec.dir.join("pids"),
            codec: settings.codec,
            memory_mb: settings.memory_mb,
        }
    }
}
