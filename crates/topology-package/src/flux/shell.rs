//! Flux's shell wrappers: the Java form of `command` and `output`.

use crate::{
    flux::{
        absent,
        component::{Declared, read_command},
        daemon_keys::topology_key_warning,
        reference,
        walk::{At, Entries, Walk},
    },
    yaml::Value,
};
use stormkeeper_model::{
    ComponentId, StreamId,
    topology::{ComponentKind, StreamDeclaration},
    validate::Part,
};

const SPOUT: &str = "FluxShellSpout";
const BOLT: &str = "FluxShellBolt";

/// Java bolts that only log or print the tuples that they receive: of Flux, and of Storm's examples.
const LOGGERS: &[&str] = &["LogInfoBolt", "PrinterBolt"];

/// Line for the topology file that does what [`LOGGERS`] do.
const LOG_COMMAND: &str = "command: [python3, -c, 'import stormkeeper as s; \
     s.BasicBolt.process = lambda bolt, tup: bolt.log(tup); s.BasicBolt().run()']";

/// Supported configuration methods of the wrappers.
const METHODS: &[&str] =
    &["setDefaultStream", "setNamedStream", "addComponentConfig", "setEnv", "changeChildCWD"];

/// Reads a component with a class name. Any class but the wrappers is a fault.
pub(super) fn read(
    walk: &mut Walk,
    map: &Entries<'_>,
    class: &At<'_>,
    kind: ComponentKind,
    declared: &mut Declared,
) {
    let n_faults = walk.faults.len();
    if is_wrapper(walk, class, kind) {
        declared.is_wrapper = true;
        if let Some(output) = map.get("output") {
            let advice = "name the fields in the second item of `constructorArgs`, or use `command` instead of \
                          `className`";
            walk.fault(&output, format!("{} has no `output`", wrapper(kind)), advice.to_owned());
        }
        read_arguments(walk, map, declared);
        if let Some(methods) = map.get("configMethods") {
            for method in walk.list(&methods).unwrap_or_default() {
                read_method(walk, &method, declared);
            }
        }
    }
    if walk.faults.len() > n_faults {
        declared.unread.push(Part::Command);
    }
}

/// Name of the wrapper for a kind of component.
fn wrapper(kind: ComponentKind) -> &'static str {
    match kind {
        ComponentKind::Spout => SPOUT,
        ComponentKind::Bolt => BOLT,
    }
}

/// Advice for a wrapper that does not declare a stream which another component receives.
pub(super) fn stream_advice(id: &ComponentId, stream: &StreamId, is_direct: bool) -> String {
    match (*stream == StreamId::default_stream(), is_direct) {
        (true, false) => format!("name its fields in the second item of {id}'s `constructorArgs`"),
        (true, true) => {
            format!("add `{{name: setDefaultStream, args: [true, [field]]}}` to {id}'s `configMethods`")
        }
        (false, false) => {
            format!("add `{{name: setNamedStream, args: [{stream}, [field]]}}` to {id}'s `configMethods`")
        }
        (false, true) => {
            format!(
                "add `{{name: setNamedStream, args: [{stream}, true, [field]]}}` to {id}'s `configMethods`"
            )
        }
    }
}

/// Returns whether the class is the wrapper for this kind of component, and reports a fault if not.
fn is_wrapper(walk: &mut Walk, class: &At<'_>, kind: ComponentKind) -> bool {
    let Some(name) = walk.text(class) else { return false };
    let wrapper = wrapper(kind);
    let word = match kind {
        ComponentKind::Spout => "spout",
        ComponentKind::Bolt => "bolt",
    };
    let simple = name.rsplit('.').next().unwrap_or_default();
    let is_flux_name = simple == name || name.starts_with("org.apache.storm.flux.wrappers.");
    match simple {
        SPOUT | BOLT if is_flux_name && simple == wrapper => return true,
        SPOUT | BOLT if is_flux_name => {
            walk.fault(
                class,
                format!("{simple} is not a {word}"),
                format!("use {wrapper} here, or `command`"),
            );
        }
        _ if absent::refuse(walk, class) => {}
        _ => {
            let what = format!("the Java class {name} needs a JVM, which Stormkeeper does not have");
            let advice = match LOGGERS.contains(&simple) && kind == ComponentKind::Bolt {
                true => format!("a bolt that logs each tuple is `{LOG_COMMAND}`"),
                false => format!(
                    "write the {word} in any language that speaks multilang and use `command: [python3, {word}.py]`"
                ),
            };
            walk.fault(class, what, advice);
        }
    }
    false
}

/// Reads `[[command…], [fields…]]`; the fields are optional.
fn read_arguments(walk: &mut Walk, map: &Entries<'_>, declared: &mut Declared) {
    let example = "[[python3, split.py], [word]]";
    let Some(at) = walk.required(map, "constructorArgs", example) else { return };
    let Some(arguments) = walk.list(&at) else { return };
    if reference::reject_in(walk, &at) {
        return;
    }
    match arguments.as_slice() {
        [command] => declared.command = read_command(walk, command).unwrap_or_default(),
        [command, fields] => {
            declared.command = read_command(walk, command).unwrap_or_default();
            if let Some(fields) = walk.texts(fields) {
                declare(declared, StreamId::default_stream(), false, fields);
            }
        }
        other => {
            let what = format!("expected a command and fields, found {} arguments", other.len());
            walk.fault(&at, what, format!("for example {example}"));
        }
    }
}

fn declare(declared: &mut Declared, stream: StreamId, direct: bool, fields: Vec<String>) {
    declared.outputs.insert(stream, StreamDeclaration { fields, direct });
}

fn read_method(walk: &mut Walk, at: &At<'_>, declared: &mut Declared) {
    let Some(map) = walk.map(at, &["name", "args"], &[]) else { return };
    let Some(name_at) = walk.required(&map, "name", "setDefaultStream") else { return };
    let Some(name) = walk.text(&name_at) else { return };
    let args = match map.get("args") {
        Some(args) if reference::reject_in(walk, &args) => return,
        Some(args) => walk.list(&args).unwrap_or_default(),
        None => Vec::new(),
    };
    let invalid =
        |walk: &mut Walk, expected: &str| walk.fault(at, format!("{name} expects {expected}"), None);
    match (name, args.as_slice()) {
        ("setDefaultStream", [fields]) => stream(walk, declared, None, None, fields),
        ("setDefaultStream", [direct, fields]) => stream(walk, declared, None, Some(direct), fields),
        ("setDefaultStream", _) => invalid(walk, "[fields] or [direct, fields]"),
        ("setNamedStream", [id, fields]) => stream(walk, declared, Some(id), None, fields),
        ("setNamedStream", [id, direct, fields]) => stream(walk, declared, Some(id), Some(direct), fields),
        ("setNamedStream", _) => invalid(walk, "[stream, fields] or [stream, direct, fields]"),
        ("addComponentConfig", [key, value]) => {
            let (place, path) = (key.node.at, key.path.clone());
            if let Some(key) = walk.text(key) {
                if let Some(warning) = topology_key_warning(key) {
                    walk.warn(place, path, format!("`{key}` {warning}"));
                }
                declared.settings.insert(key.to_owned(), value.node.to_json());
            }
        }
        ("addComponentConfig", _) => invalid(walk, "[key, value]"),
        ("setEnv", [variables]) => {
            declared.settings.insert("topology.environment".to_owned(), variables.node.to_json());
        }
        ("setEnv", _) => invalid(walk, "one map of variables"),
        // Components are always started in their resources folder.
        ("changeChildCWD", [value]) if value.node.value == Value::Flag(true) => {}
        ("changeChildCWD", _) => invalid(walk, "[true]: components are started in `resources/`"),
        (other, _) => {
            let advice = stormkeeper_model::suggest::hint(other, METHODS.iter().copied());
            walk.fault(&name_at, format!("the wrappers have no method {other}"), advice);
        }
    }
}

/// Declares the stream that a method's arguments describe.
fn stream(
    walk: &mut Walk,
    declared: &mut Declared,
    id: Option<&At<'_>>,
    direct: Option<&At<'_>>,
    fields: &At<'_>,
) {
    let id = id.map_or_else(|| Some(StreamId::default_stream()), |at| walk.id(at));
    let direct = direct.map_or(Some(false), |at| walk.flag(at));
    let fields = walk.texts(fields);
    if let (Some(id), Some(direct), Some(fields)) = (id, direct, fields) {
        declare(declared, id, direct, fields);
    }
}
