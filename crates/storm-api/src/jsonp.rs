//! JSONP: an answer as the call of a function of the asking page.

/// Maximum characters of the name of the function.
const CHARS_MAX: usize = 128;

/// Name of a JavaScript function, with dots between its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback(String);

impl Callback {
    /// Reads the parameter `callback`; `None` if it is no name of a function.
    pub fn parse(text: &str) -> Option<Self> {
        let is_begin = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
        let is_part = |part: &str| {
            part.starts_with(is_begin) && part.chars().all(|c| is_begin(c) || c.is_ascii_digit())
        };
        (text.len() <= CHARS_MAX && text.split('.').all(is_part)).then(|| Self(text.to_owned()))
    }

    /// Returns the script that calls the function with `json`.
    pub fn call(&self, json: &str) -> String {
        let Self(name) = self;
        // Two line separators of JSON end a line of JavaScript before 2019.
        let json = json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        format!("{name}({json});")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_functions_are_callbacks() {
        for good in ["f", "_f1", "jQuery.fn.x$", "$"] {
            assert_eq!(Callback::parse(good).map(|name| name.call("{}")), Some(format!("{good}({{}});")));
        }
        let long = "f".repeat(CHARS_MAX + 1);
        for bad in ["", "1f", "f()", "a..b", "a.", ".a", "a-b", "alert(1)//", "f\n", "ä", &long] {
            assert_eq!(Callback::parse(bad), None, "{bad:?}");
        }
        let call = Callback::parse("f").expect("a name").call("\"\u{2028}\"");
        assert_eq!(call, "f(\"\\u2028\");");
    }
}
