//! The engine's errors, and the codes that clients see.

use super::receive::kind;
use super::*;

/// Gives every error that the engine made a code; errors that resolvers coded stay as they are.
///
/// The engine tells its own errors apart by their text alone, which is why its version is pinned and the tests
/// below provoke each of them.
pub fn settle(response: &mut GraphQLResponse, limits: &Limits, inputs: &Inputs) {
    let refused = is_refused(response);
    // The engine notes errors as they come: which of two fields failed first would tell what took longer.
    response.errors.sort_by_cached_key(place);
    for error in &mut response.errors {
        let code = match code_of(error) {
            Some(code::INTERNAL) => code::INTERNAL,
            Some(_) => continue,
            None if refused => code_of_refusal(error, inputs),
            None => code_of_failure(error),
        };
        if code == code::INTERNAL {
            error.message = INTERNAL_MESSAGE.to_owned();
            error.extensions = None;
        }
        if error.message == TOO_COMPLEX {
            error.message = format!(
                "The query may cost more than {} (complexity_max): every field counts, times the size of the pages \
                 that it stands in. Ask for smaller pages or fewer fields.",
                limits.complexity_max
            );
        }
        if let Some(message) = reworded(&error.message) {
            error.message = message;
        }
        if let Some(value) = inputs.blamed(error) {
            error.message = format!("{}; it is {value}.", error.message);
        }
        error.extensions.get_or_insert_default().set("code", code);
    }
}

/// What the engine means, where it says something else.
fn reworded(message: &str) -> Option<String> {
    // It names the type that the field stands in, as if it were the argument's.
    if let Some(rest) = message.strip_suffix("\" is required but not provided")
        && let Some((missing, _)) = rest.rsplit_once("\" of type \"")
    {
        return Some(format!("{missing}\" is missing: it has to be given"));
    }
    let exactly_one = [
        "Oneof input objects requires have exactly one field",
        "Oneof Input Objects require that exactly one field must be supplied and that field must not be null",
    ];
    let found = exactly_one.iter().find_map(|text| message.strip_suffix(text))?;
    Some(format!("{found}give exactly one of its fields, and not null"))
}

/// Where in the document an error belongs, and within a list at which place.
fn place(error: &ServerError) -> (Vec<(usize, usize)>, Vec<usize>) {
    let at = error.locations.iter().map(|at| (at.line, at.column)).collect();
    let index = |segment: &PathSegment| match segment {
        PathSegment::Index(index) => Some(*index),
        PathSegment::Field(_) => None,
    };
    (at, error.path.iter().filter_map(index).collect())
}

pub(super) const WRONG_ARGUMENT: &str = "Invalid value for argument \"";

impl Inputs {
    /// The value of the argument at this place as it is written, where that holds a variable.
    fn argument(&self, at: &Pos) -> Option<&String> {
        self.document.as_ref()?.arguments.get(at)
    }

    /// The value that an error of validation is about, where it came from a variable. The engine names the place of
    /// it, beginning with the argument (`"input.tags.0"`), but not the value.
    fn blamed(&self, error: &ServerError) -> Option<String> {
        let (path, _) = error.message.strip_prefix(WRONG_ARGUMENT)?.split_once('"')?;
        let written = error.locations.iter().find_map(|at| self.argument(at))?;
        let variable = self.variables.get(written.strip_prefix('$')?)?;
        let value = path.split('.').skip(1).try_fold(variable, |value, segment| match value {
            Json::Array(items) => items.get(segment.parse::<usize>().ok()?),
            other => other.get(segment),
        })?;
        Some(kind(value))
    }
}

/// Whether nothing was executed. Errors of an execution say on which path they happened.
pub(super) fn is_refused(response: &GraphQLResponse) -> bool {
    response.data == async_graphql::Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// Makes a response in which every field at the root was refused for its rate what it is: a request of which nothing
/// was executed, with the status that says so.
pub fn refuse_whole(response: &mut GraphQLResponse) {
    let Value::Object(fields) = &response.data else { return };
    let limited = |error: &ServerError| code_of(error) == Some(code::RATE_LIMITED) && error.path.len() == 1;
    let nothing = !fields.is_empty() && fields.values().all(|field| *field == Value::Null);
    if nothing && response.errors.len() == fields.len() && response.errors.iter().all(limited) {
        response.data = Value::Null;
        response.errors.iter_mut().for_each(|error| error.path.clear());
    }
}

pub(super) fn code_of(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        async_graphql::Value::String(code) => Some(code),
        _ => None,
    }
}

pub(super) const TOO_COMPLEX: &str = "Query is too complex.";

/// The code of an error that kept the engine from executing.
pub(super) fn code_of_refusal(error: &ServerError, inputs: &Inputs) -> &'static str {
    const TOO_EXPENSIVE: [&str; 4] = [
        TOO_COMPLEX,
        "Query is nested too deep.",
        "The recursion depth of the query cannot",
        "The number of directives on the field",
    ];
    if TOO_EXPENSIVE.iter().any(|start| error.message.starts_with(start)) {
        return code::QUERY_TOO_EXPENSIVE;
    }
    let from_variable = error.locations.iter().any(|at| inputs.argument(at).is_some());
    if from_variable && error.message.starts_with(WRONG_ARGUMENT) {
        return code::BAD_USER_INPUT;
    }
    code::GRAPHQL_VALIDATION_FAILED
}

/// The code of an error of a field: the engine's own are about arguments that a scalar or validator refused;
/// anything else is an error that somebody forgot to code, and might say what a stranger should not read.
pub(super) fn code_of_failure(error: &ServerError) -> &'static str {
    const INPUT: [&str; 2] = ["Failed to parse \"", "Expected input type \""];
    let undefined = error.message.starts_with("Variable ") && error.message.ends_with(" is not defined.");
    match undefined || INPUT.iter().any(|start| error.message.starts_with(start)) {
        true => code::BAD_USER_INPUT,
        false => code::INTERNAL,
    }
}
