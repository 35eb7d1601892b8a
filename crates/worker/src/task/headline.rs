//! The line of an error text that names the error: exceptions of common languages.

/// Beginning of a Python traceback.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// Splits an error text into its message and, if it has more than the message, the whole text.
pub(crate) fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default();
    let message = exception(text).unwrap_or(first);
    (message, if message == text { "" } else { text })
}

/// Returns the line that describes the end of a process: the exception in its last words, or its very
/// last line.
pub(super) fn of_last_words(stderr: &str) -> Option<&str> {
    let is_said = |line: &&str| !line.is_empty() && !is_version(line);
    exception(stderr).or_else(|| stderr.lines().rev().map(str::trim).find(is_said))
}

/// Finds the exception in a text of Python, PHP, Go, Rust, Lua, Elixir, Node, Java, C# or Ruby.
fn exception(text: &str) -> Option<&str> {
    let before_frames = || node_or_java_or_ruby(text);
    python(text)
        .or_else(|| php(text))
        .or_else(|| go_or_rust(text))
        .or_else(|| lua_or_elixir(text))
        .or_else(|| ruby_of_storm(text))
        .or_else(before_frames)
}

/// The exception is the first line after the frames of the last traceback, which are indented; its text
/// may go on in further lines. A library may send a headline before the traceback, and may replace line
/// ends by spaces.
fn python(text: &str) -> Option<&str> {
    let (_, stack) = text.rsplit_once(TRACEBACK)?;
    let is_message = |line: &&str| !line.trim().is_empty() && !line.starts_with([' ', '\t']);
    match stack.trim().contains('\n') {
        true => stack.lines().skip(1).find(is_message).map(str::trim),
        false => one_line_exception(stack.trim()),
    }
}

/// Finds `ValueError: …` in a traceback of one line: the name of a class before the last colon that
/// follows one.
fn one_line_exception(stack: &str) -> Option<&str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let ends = stack.match_indices(": ").map(|(at, _)| at).chain([stack.len()]);
    let starts = ends.filter_map(|end| {
        let name = &stack[stack[..end].rfind(|c| !is_part(c)).map_or(0, |at| at + 1)..end];
        let is_exception = ["Error", "Exception", "Interrupt", "Exit"].iter().any(|it| name.ends_with(it));
        is_exception.then_some(end - name.len())
    });
    starts.last().map(|start| &stack[start..])
}

/// PHP prints `PHP Fatal error:  Uncaught Error: … in FILE:LINE` before the stack, and `thrown in FILE on
/// line N` after it.
fn php(text: &str) -> Option<&str> {
    let is_of_php =
        |line: &&str| line.contains("Fatal error: ") || line.trim_start().starts_with("thrown in ");
    text.lines().find(is_of_php)?;
    let (_, message) = text.lines().rev().find_map(|line| line.split_once("Uncaught "))?;
    Some(message.rsplit_once(" in ").map_or(message, |(message, _place)| message).trim())
}

/// Lua prints the message before `stack traceback:`, Elixir `** (RuntimeError) …`.
fn lua_or_elixir(text: &str) -> Option<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let of_lua = lines.windows(2).rev().find(|pair| pair[1] == "stack traceback:").map(|pair| pair[0]);
    of_lua.or_else(|| lines.iter().rev().find(|line| line.starts_with("** (")).copied())
}

/// Go prints `panic: …` or `fatal error: …` before the goroutines, Rust the message after a line
/// `thread 'main' panicked at …`.
fn go_or_rust(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let is_go = line.starts_with("panic: ") || line.starts_with("fatal error: ");
        if is_go && text.contains("\ngoroutine ") {
            return Some(line.trim());
        }
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            return lines.next().map(str::trim).filter(|message| !message.is_empty());
        }
    }
    None
}

/// Storm's `storm.rb` sends one line: `Exception in bolt: MESSAGE - FILE:LINE:in …`, and between the frames a
/// backslash and an `n`.
fn ruby_of_storm(text: &str) -> Option<&str> {
    let is_frame = |frames: &str| {
        let first = frames.split("\\n").next().unwrap_or_default();
        first
            .split_once(":in ")
            .and_then(|(place, _)| place.rsplit_once(':'))
            .is_some_and(|(_, line)| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let line = text.lines().find(|line| line.starts_with("Exception in "))?;
    let (end, _) = line.rmatch_indices(" - ").find(|(at, dash)| is_frame(&line[at + dash.len()..]))?;
    Some(&line[..end])
}

/// Node, Java and C# print the exception before indented lines `at …`, Ruby before `from …`.
fn node_or_java_or_ruby(text: &str) -> Option<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_frame = |line: &str| {
        line.starts_with([' ', '\t'])
            && ["at ", "from "].iter().any(|word| line.trim_start().starts_with(word))
    };
    let pair = lines.windows(2).find(|pair| !is_frame(pair[0]) && is_frame(pair[1]));
    thrown(&lines).or_else(|| pair.map(|pair| pair[0].trim())).filter(|message| !message.is_empty())
}

/// Node ends with its version, and prints what was thrown after a line that points at the place: an
/// error whose text may have several lines, or any value, as of `throw 'late'`.
fn thrown<'a>(lines: &[&'a str]) -> Option<&'a str> {
    lines.iter().rev().find(|line| is_version(line))?;
    let is_pointer = |line: &str| !line.trim().is_empty() && line.trim().bytes().all(|byte| byte == b'^');
    let pointer = lines.iter().rposition(|line| is_pointer(line))?;
    lines[pointer + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty() && !is_version(line))
}

/// Returns whether a line is the version that Node prints last.
fn is_version(line: &str) -> bool {
    line.starts_with("Node.js v")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_the_line_that_names_the_error() {
        let check = |text: &str, message: &str| assert_eq!(split(text), (message, text.trim()), "{text}");
        assert_eq!(split("oh no\n"), ("oh no", ""));
        check("oh no\nat x\n", "oh no");
        let python =
            "Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n    1 / 0\nValueError: bad";
        check(python, "ValueError: bad");
        check(&format!("bolt split failed for a tuple:\n{python}\n"), "ValueError: bad");
        let chained = format!(
            "{python}\n\nDuring handling of the above exception, another exception occurred:\n\n{}\n",
            "Traceback (most recent call last):\n  File \"x.py\", line 9, in g\nkit.net.LateError: too: late"
        );
        check(&chained, "kit.net.LateError: too: late");
        check(
            "Traceback (most recent call last): File \"x.py\", line 3, in f 1 / 0 ValueError: bad: value",
            "ValueError: bad: value",
        );
        check(
            "Traceback (most recent call last): File \"x.py\", line 3 KeyboardInterrupt",
            "KeyboardInterrupt",
        );
        let node = "/app/x.js:3\n  throw new Error(\"late\");\n  ^\n\nTypeError: late\n    at f (/app/x.js:3:9)\n\
                    \x20   at node:internal/main:23\n\nNode.js v18.19.0";
        check(node, "TypeError: late");
        let thrown = "/app/x.js:3\n  throw 'late';\n  ^\nlate\n(Use `node --trace-uncaught ...` to show where the \
                      exception was thrown)\n\nNode.js v20.20.2";
        check(thrown, "late");
        let thrown = |it: &str| format!("/app/x.js:1\nthrow it\n^\n\n{it}\n\nNode.js v20.20.2");
        check(&thrown("{ a: 1 }"), "{ a: 1 }");
        check(&thrown("TypeError: two\nlines\n    at f (/app/x.js:3:9)"), "TypeError: two");
        check(&format!("{python}\nand more of its text"), "ValueError: bad");
        check(
            "java.io.IOException: late\n\tat a.B.c(B.java:7)\n\tat a.B.main(B.java:1)",
            "java.io.IOException: late",
        );
        let go = "panic: runtime error: index out of range [3]\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/x.go:7";
        check(go, "panic: runtime error: index out of range [3]");
        let php = "PHP Fatal error:  Uncaught Error: Call to undefined function f() in /app/x.php:3\nStack trace:\n\
                   #0 {main}\n  thrown in /app/x.php on line 3";
        check(php, "Error: Call to undefined function f()");
        let ruby = "x.rb:3:in `f': late (RuntimeError)\n\tfrom x.rb:9:in `<main>'";
        check(ruby, "x.rb:3:in `f': late (RuntimeError)");
        let of_storm = "Exception in bolt: late - or never - x.rb:3:in `f'\\nstorm.rb:9:in `run'";
        check(of_storm, "Exception in bolt: late - or never");
        check("Exception in bolt: late - or never\nx", "Exception in bolt: late - or never");
        check(
            "lua: x.lua:1: late\nstack traceback:\n\t[C]: in function 'error'\n\t[C]: in ?",
            "lua: x.lua:1: late",
        );
        check("** (RuntimeError) late\n    x.exs:1: (file)", "** (RuntimeError) late");
        check(
            "Unhandled exception. System.Exception: late\n   at P.Main() in /x.cs:line 3",
            "Unhandled exception. System.Exception: late",
        );
        let rust = "thread 'main' panicked at src/main.rs:2:5:\nlate\nnote: run with `RUST_BACKTRACE=1`";
        check(rust, "late");
    }

    #[test]
    fn last_words_without_an_exception_are_the_last_line() {
        assert_eq!(of_last_words("one\ntwo\n\n"), Some("two"));
        assert_eq!(of_last_words(" \n"), None);
        assert_eq!(of_last_words("late\n\nNode.js v20.20.2\n"), Some("late"));
        assert_eq!(of_last_words("x\n\nError: late\n    at f (x.js:1)\n\nNode.js v18"), Some("Error: late"));
    }
}
