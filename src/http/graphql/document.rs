//! The document and its variables, checked before anything is executed.

use super::receive::kind;
use super::*;

pub(super) fn parse(query: &str) -> Result<ExecutableDocument, ServerError> {
    parser::parse_query(query).map_err(|error| {
        let at = error.positions().next();
        let failed =
            |reason: String| coded(code::GRAPHQL_PARSE_FAILED, format!("The document does not parse: {reason}"), at);
        match &error {
            parser::Error::Syntax { start, .. } if is_blank(query, *start) => {
                failed("it is empty. Send at least one operation, such as { __typename }.".to_owned())
            }
            parser::Error::Syntax { message, start, .. } => failed(format!(
                "at line {}, column {}, {}, {}.",
                start.line,
                start.column,
                found(query, *start),
                expected(message)
            )),
            parser::Error::RecursionLimitExceeded => coded(
                code::QUERY_TOO_EXPENSIVE,
                "The document is nested deeper than the parser follows. Ask for less depth.",
                at,
            ),
            parser::Error::MissingOperation => {
                failed("it holds fragments only. Add an operation that uses them.".to_owned())
            }
            parser::Error::MultipleOperations { .. } => {
                failed("an operation without a name must be the only one. Name them all.".to_owned())
            }
            other => failed(format!("{other}.")),
        }
    })
}

/// Nothing but white space and comments. The parser stops at its end then.
pub(super) fn is_blank(query: &str, at: Pos) -> bool {
    let lines = query.lines().map(|line| line.trim_start_matches(['\u{feff}', ' ', '\t', ',']));
    lines.clone().count() <= at.line && lines.into_iter().all(|line| line.is_empty() || line.starts_with('#'))
}

/// The parser draws its errors over several lines; what it expected stands behind the last equals sign.
pub(super) fn expected(drawing: &str) -> String {
    let reason = drawing.rsplit_once("\n  = ").map_or(drawing, |(_, reason)| reason);
    reason.trim().replace("EOI", "end of document").replace('_', " ")
}

pub(super) fn found(query: &str, at: Pos) -> String {
    let line = query.split('\n').nth(at.line.saturating_sub(1)).unwrap_or_default();
    let rest: String = line.chars().skip(at.column.saturating_sub(1)).take(20).collect();
    match rest.trim_end() {
        "" if query.split('\n').count() <= at.line => "where the document ends".to_owned(),
        "" => "where the line ends".to_owned(),
        rest => format!("before `{rest}`"),
    }
}

/// The operation that is meant. Decided here, and not by the engine, because the method and the variables are
/// judged by it.
pub(super) fn choose<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a OperationDefinition, ServerError> {
    let refuse = |message: String| Err(coded(code::BAD_USER_INPUT, message, None));
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(&operation.node),
        (DocumentOperations::Single(_), Some(name)) => refuse(format!(
            "There is no operation {name:?}: the document's only one has no name. Leave operationName out."
        )),
        (DocumentOperations::Multiple(operations), name) => {
            let chosen = match name {
                Some(name) => operations.get(name),
                None if operations.len() == 1 => operations.values().next(),
                None => None,
            };
            if let Some(operation) = chosen {
                return Ok(&operation.node);
            }
            let mut names: Vec<_> = operations.keys().map(Name::as_str).collect();
            names.sort_unstable();
            let names = names.join(", ");
            match name {
                Some(name) => refuse(format!("There is no operation {name:?} in the document. It has: {names}.")),
                None => {
                    refuse(format!("The document has several operations: {names}. Say which one by operationName."))
                }
            }
        }
    }
}

/// Refuses a mutation that names one field twice under one name.
///
/// The specification merges the two and executes the field once; the engine executes it twice and merges the answers,
/// which would do twice what was asked for once. A client that means two gives an alias.
pub(super) fn check_repeated_mutations(
    document: &ExecutableDocument,
    operation: &OperationDefinition,
) -> Result<(), ServerError> {
    if operation.ty != OperationType::Mutation {
        return Ok(());
    }
    let mut seen = HashSet::new();
    for field in root_fields(document, operation) {
        let key = field.response_key();
        if !seen.insert(&key.node) {
            let message = format!(
                "The mutation has {:?} twice at its root. Leave one out, or give one an alias to execute both.",
                key.node.as_str()
            );
            return Err(coded(code::GRAPHQL_VALIDATION_FAILED, message, Some(key.pos)));
        }
    }
    Ok(())
}

/// Refuses a subscription with more than one field at its root, as the specification does; the engine would mix them.
pub(super) fn check_one_subscription(
    document: &ExecutableDocument,
    operation: &OperationDefinition,
) -> Result<(), ServerError> {
    let fields = root_fields(document, operation).len();
    if operation.ty != OperationType::Subscription || fields == 1 {
        return Ok(());
    }
    let message = format!("The subscription has {fields} fields at its root. Open one for each.");
    Err(coded(code::GRAPHQL_VALIDATION_FAILED, message, None))
}

impl Call {
    fn root_fields(&self) -> Vec<&Field> {
        let chosen = choose(&self.document.parsed, self.operation_name.as_deref());
        chosen.map(|operation| root_fields(&self.document.parsed, operation)).unwrap_or_default()
    }

    /// The names of the fields at the root of a mutation, each as often as it is asked for; `None` for others.
    pub fn mutations(&self) -> Option<Vec<Name>> {
        let fields = || self.root_fields().iter().map(|field| field.name.node.clone()).collect();
        (self.operation == OperationType::Mutation).then(fields)
    }

    /// What the access trail calls the request: the field at its root; where there are several, their names in order,
    /// the first few of them.
    pub fn name(&self) -> String {
        let mut names: Vec<&str> = self.root_fields().iter().map(|field| field.name.node.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(NAMED_FIELDS_MAX);
        names.join(",")
    }
}

/// The most fields at the root that [`Call::name`] names: every mix of more would be another name.
const NAMED_FIELDS_MAX: usize = 3;

/// The fields at an operation's root, fragments followed, whether or not a directive leaves them out.
fn root_fields<'a>(document: &'a ExecutableDocument, operation: &'a OperationDefinition) -> Vec<&'a Field> {
    let mut fields = vec![];
    // No cycle can be met: the document's fragments have been walked.
    let mut sets = vec![&operation.selection_set.node];
    while let Some(set) = sets.pop() {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => fields.push(&field.node),
                Selection::InlineFragment(fragment) => sets.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => {
                    let fragment = document.fragments.get(&spread.node.fragment_name.node);
                    sets.extend(fragment.map(|fragment| &fragment.node.selection_set.node));
                }
            }
        }
    }
    fields
}

// ------------------------------------------------------------------------------------------------ variables

/// Checks variables against their declared types, as far as those are built into GraphQL.
///
/// The engine finds a missing or wrong variable only when a resolver asks for it, so that half an answer is there
/// already; the specification wants such a request refused whole. Types of the schema it checks by validation.
pub(super) fn check_variables(
    operation: &OperationDefinition,
    variables: &Map<String, Json>,
) -> Result<(), ServerError> {
    for definition in &operation.variable_definitions {
        let definition = &definition.node;
        let (name, wanted) = (&definition.name.node, &definition.var_type.node);
        let refuse = |problem: String| {
            let message = format!("Variable ${name} {problem}. Its type is {wanted}.");
            Err(coded(code::BAD_USER_INPUT, message, Some(definition.name.pos)))
        };
        match variables.get(name.as_str()) {
            None if definition.default_value.is_some() || wanted.nullable => {}
            None => return refuse("is missing".to_owned()),
            Some(value) => {
                if let Err(problem) = check_value(wanted, value) {
                    return refuse(problem);
                }
            }
        }
    }
    Ok(())
}

/// What is wrong with a value, worded to follow the variable's name.
pub(super) fn check_value(wanted: &Type, value: &Json) -> Result<(), String> {
    let fits = match (&wanted.base, value) {
        (_, Json::Null) if wanted.nullable => return Ok(()),
        (_, Json::Null) => return Err("is null".to_owned()),
        (BaseType::List(item), Json::Array(values)) => {
            let faulty = values.iter().enumerate().find_map(|(at, value)| Some((at, check_value(item, value).err()?)));
            return faulty.map_or(Ok(()), |(at, problem)| Err(format!("at index {at} {problem}")));
        }
        // A single value stands for the list of itself.
        (BaseType::List(item), value) => return check_value(item, value),
        (BaseType::Named(name), value) => match name.as_str() {
            "Int" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            "Float" => value.is_number(),
            "String" => value.is_string(),
            "Boolean" => value.is_boolean(),
            "ID" => value.is_string() || value.is_i64() || value.is_u64(),
            _ => true,
        },
    };
    if fits {
        return Ok(());
    }
    let range = match (&wanted.base, value) {
        (BaseType::Named(name), Json::Number(_)) if name == "Int" => {
            ", and Int holds whole numbers from -2147483648 to 2147483647"
        }
        _ => "",
    };
    Err(format!("is {}{range}", kind(value)))
}
