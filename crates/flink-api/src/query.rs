//! Query parameters of the metric paths.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;

use crate::{Aggregate, Error, FlinkId};

/// Decoded query of a request. Its size is bounded by that of a URI, 65,534 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query: the text after `?`.
    ///
    /// # Errors
    /// [`Error::Query`] if a parameter is not UTF-8.
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |part: &str| {
                let part = part.replace('+', " ");
                let bytes = percent_decode_str(&part).decode_utf8();
                bytes.map(std::borrow::Cow::into_owned).map_err(|_not_utf8| Error::query(key, &part))
            };
            Ok((decode(key)?, decode(value)?))
        });
        Ok(Self(decoded.collect::<Result<_, _>>()?))
    }

    /// Returns the elements of a list, each once, in the order of the query: `None` without the
    /// parameter. Clients encode the comma between elements, so the list is split after decoding.
    fn list(&self, key: &str) -> Option<Vec<&str>> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value).peekable();
        values.peek()?;
        let mut seen = BTreeSet::new();
        let elements = values.flat_map(|value| value.split(',')).filter(|element| !element.is_empty());
        Some(elements.filter(|element| seen.insert(*element)).collect())
    }

    /// Returns the names of the wanted metrics; `None` if all names are asked for.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.list("get")
    }

    /// Returns the wanted aggregates; all without the parameter.
    ///
    /// # Errors
    /// [`Error::Query`] for an unknown aggregate.
    pub fn aggregates(&self) -> Result<Vec<Aggregate>, Error> {
        let Some(words) = self.list("agg") else { return Ok(Aggregate::ALL.to_vec()) };
        let find = |word: &str| {
            let known =
                Aggregate::ALL.into_iter().find(|aggregate| aggregate.word().eq_ignore_ascii_case(word));
            known.ok_or_else(|| Error::query("agg", word))
        };
        words.into_iter().map(find).collect()
    }

    /// Returns the selected jobs; `None` for all.
    ///
    /// # Errors
    /// [`Error::Query`] for a text that is no id.
    pub fn jobs(&self) -> Result<Option<BTreeSet<FlinkId>>, Error> {
        let Some(ids) = self.list("jobs") else { return Ok(None) };
        let parse = |id: &str| id.parse().map_err(|_not_hex| Error::query("jobs", id));
        ids.into_iter().map(parse).collect::<Result<_, _>>().map(Some)
    }

    /// Returns the selected task managers; `None` for all.
    pub fn task_managers(&self) -> Option<BTreeSet<&str>> {
        self.list("taskmanagers").map(BTreeSet::from_iter)
    }

    /// Returns the selected subtasks; `None` for all.
    ///
    /// # Errors
    /// [`Error::Query`] for a text that is neither a number nor a range.
    pub fn subtasks(&self) -> Result<Option<SubtaskRanges>, Error> {
        let Some(texts) = self.list("subtasks") else { return Ok(None) };
        let parse = |text: &str| range(text).ok_or_else(|| Error::query("subtasks", text));
        Ok(Some(SubtaskRanges(texts.into_iter().map(parse).collect::<Result<_, _>>()?)))
    }

    /// Checks in which mode a job is to end: `cancel`, also without the parameter. The other one of Flink,
    /// `stop`, was removed there.
    ///
    /// # Errors
    /// [`Error::Query`] for another mode.
    pub fn check_mode(&self) -> Result<(), Error> {
        let another = |(name, value): &&(String, String)| name == "mode" && value != "cancel";
        match self.0.iter().find(another) {
            None => Ok(()),
            Some((_, value)) => Err(Error::query("mode", value)),
        }
    }

    /// Returns a number; `None` without the parameter.
    ///
    /// # Errors
    /// [`Error::Query`] for a text that is no number.
    pub fn number(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some((_, value)) = self.0.iter().find(|(name, _)| name == key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_no_number| Error::query(key, value))
    }
}

/// Ranges of subtasks, first and last. Not expanded, as a range of a few digits may be long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtaskRanges(Vec<(usize, usize)>);

impl SubtaskRanges {
    /// Returns whether a range contains the subtask.
    pub fn contains(&self, subtask: usize) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&subtask))
    }
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    // `parse` would also take a sign.
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).expect("valid")
    }

    #[test]
    fn encoded_comma_separates_names_and_each_name_is_returned_once() {
        assert_eq!(query("get=a%2Cb,a&get=c+d").names(), Some(vec!["a", "b", "c d"]));
        assert_eq!(query("get=").names(), Some(vec![]));
        assert_eq!(query("get").names(), Some(vec![]));
        assert_eq!(query("agg=sum").names(), None);
        assert_eq!(Query::parse(None), Ok(Query::default()));
    }

    #[test]
    fn text_that_is_not_utf8_is_rejected_with_its_parameter() {
        let error = Query::parse(Some("get=%ff")).expect_err("not UTF-8");
        assert_eq!(error.to_string(), "Cannot resolve query parameter (get) from value \"%ff\"");
    }

    #[test]
    fn aggregates_are_known_words_in_any_case() {
        assert_eq!(query("").aggregates(), Ok(Aggregate::ALL.to_vec()));
        assert_eq!(query("agg=SUM%2Cmax").aggregates(), Ok(vec![Aggregate::Sum, Aggregate::Max]));
        let error = query("agg=median").aggregates().expect_err("unknown");
        assert_eq!(error.to_string(), "Cannot resolve query parameter (agg) from value \"median\"");
    }

    #[test]
    fn subtasks_are_numbers_and_ranges() {
        let selected = |text: &str| {
            let ranges = query(text).subtasks().expect("valid").expect("present");
            (0..10).filter(|n| ranges.contains(*n)).collect::<Vec<_>>()
        };
        assert_eq!(selected("subtasks=0,2"), [0, 2]);
        assert_eq!(selected("subtasks=0-2%2C9"), [0, 1, 2, 9]);
        assert_eq!(selected("subtasks=5-18446744073709551615"), [5, 6, 7, 8, 9]);
        assert_eq!(selected("subtasks="), Vec::<usize>::new());
        assert_eq!(query("").subtasks(), Ok(None));
        for wrong in ["x", "2-1", "-1", "1-", "+1", "1-2-3", "99999999999999999999"] {
            let error = query(&format!("subtasks={}", wrong.replace('+', "%2B"))).subtasks();
            assert_eq!(error, Err(Error::query("subtasks", wrong)));
        }
    }

    #[test]
    fn jobs_are_ids() {
        let id = "0f".repeat(16);
        let jobs = query(&format!("jobs={id},{id}")).jobs().expect("valid").expect("present");
        assert_eq!(jobs.into_iter().map(|id| id.to_string()).collect::<Vec<_>>(), [id]);
        assert_eq!(query("jobs=zz").jobs().expect_err("no id").status(), 400);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_rejected(text in ".*") {
            if let Ok(query) = Query::parse(Some(&text)) {
                let _read = (query.names(), query.aggregates(), query.jobs(), query.task_managers());
                let _read = (query.subtasks(), query.number("maxExceptions"));
            }
        }
    }
}
