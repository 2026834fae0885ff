//! What one request may cost, checked before anything is executed.
//!
//! A GraphQL document is a program written by a stranger. Three things make a short one expensive: deep nesting (the
//! parser and the validator recurse), fragments that spread fragments (thirty lines stand for a billion fields), and
//! aliases (one costly field, a hundred times). So the text is measured before it is parsed, and the parsed document
//! before the engine sees it: the engine's own checks walk fragments without remembering them, and would already
//! do the work that a limit is there to prevent.
//!
//! The cost of what a query *returns* is the engine's `limit_complexity`, since only the schema knows it.

use std::collections::HashMap;

use async_graphql::{
    Pos, Positioned, ServerError,
    parser::types::{Directive, ExecutableDocument, Field, Selection, SelectionSet},
};
use serde::{Deserialize, Serialize};

use super::graphql::{code, coded};

/// What one HTTP request may cost. A request *at* a limit is answered, one past it is refused.
///
/// The defaults let GraphiQL's complete introspection query pass, with room for documents that a build tool
/// assembled from many fragments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a POST body, counted while it arrives.
    pub body_bytes_max: usize,
    /// Bytes of the document's text; of a GET also of the whole query string, as sent (percent-encoded).
    pub query_bytes_max: usize,
    /// Lexical tokens of the document, as the GraphQL grammar counts them (no commas, comments or white space).
    pub tokens_max: usize,
    /// Brackets open at once in the document's text (`{ ( [` alike), and levels of selections once fragments stand
    /// where they are spread. Protects the stack of every recursive walk that follows.
    pub nesting_max: usize,
    /// Fields inside fields, fragments followed; `{ a { b } }` has depth 2. Introspection needs 15.
    pub depth_max: usize,
    /// Fields, spreads and inline fragments of the whole document, each fragment counted wherever it is spread.
    pub selections_max: usize,
    /// Aliases of the whole document, each fragment counted wherever it is spread.
    pub aliases_max: usize,
    /// Fields at the root of one operation, fragments followed.
    pub root_fields_max: usize,
    /// Directives written in the document.
    pub directives_max: usize,
    /// What the engine may count for a query (`SchemaBuilder::limit_complexity`); here for its message.
    pub complexity_max: usize,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
    /// Milliseconds for reading a body, and again for executing it.
    pub request_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            query_bytes_max: 64 * 1024,
            tokens_max: 5_000,
            nesting_max: 50,
            depth_max: 20,
            selections_max: 2_000,
            aliases_max: 50,
            root_fields_max: 30,
            directives_max: 50,
            complexity_max: 10_000,
            answer_bytes_max: 16 * 1024 * 1024,
            request_timeout_ms: 10_000,
        }
    }
}

/// Measures the text of a document without parsing it; run this before the parser, which recurses.
///
/// # Errors
/// QUERY_TOO_EXPENSIVE past `tokens_max`, `nesting_max` or `directives_max`; GRAPHQL_PARSE_FAILED for a string that
/// is never closed. The latter is decided here because the parser would try such a text again as something else,
/// and what counts as inside a string must not differ between the two.
pub fn check_text(document: &str, limits: &Limits) -> Result<(), ServerError> {
    let text = Lexer::measure(document)?;
    let checks = [
        ("query_bytes_max", document.len(), limits.query_bytes_max, "bytes of text"),
        ("tokens_max", text.tokens, limits.tokens_max, "tokens"),
        ("nesting_max", text.nesting, limits.nesting_max, "brackets open at once"),
        ("directives_max", text.directives, limits.directives_max, "directives"),
    ];
    within(&checks)
}

/// Where arguments stand whose value holds a variable, with the value as written (`$input`, `[1, $second]`).
/// Tells a client's bad *input* from a bad *document*.
pub type VariableArguments = HashMap<Pos, String>;

/// Measures a parsed document with its fragments followed, each visited once.
///
/// # Errors
/// QUERY_TOO_EXPENSIVE past a limit; GRAPHQL_VALIDATION_FAILED for a fragment that contains itself.
pub fn check_document(document: &ExecutableDocument, limits: &Limits) -> Result<VariableArguments, ServerError> {
    let mut walk =
        Walk { document, limits, fragments: HashMap::new(), trail: Vec::new(), variable_arguments: HashMap::new() };
    let mut total = Weight::default();
    for (_, operation) in document.operations.iter() {
        walk.note_directives(&operation.node.directives);
        let weight = walk.selection_set(&operation.node.selection_set.node)?;
        total = total.beside(weight);
    }
    // Fragments that no operation spreads are validated by the engine as well, so they are measured too.
    for name in document.fragments.keys() {
        let weight = walk.fragment(name, Pos::default())?;
        total.nesting = total.nesting.max(weight.nesting);
    }
    let checks = [
        ("nesting_max", total.nesting, limits.nesting_max, "levels of selections, fragments included"),
        ("depth_max", total.depth, limits.depth_max, "fields inside each other"),
        ("selections_max", total.selections, limits.selections_max, "selections, fragments followed"),
        ("aliases_max", total.aliases, limits.aliases_max, "aliases, fragments followed"),
        ("root_fields_max", total.root_fields, limits.root_fields_max, "fields at its root"),
    ];
    within(&checks)?;
    Ok(walk.variable_arguments)
}

/// One limit after the other: its name, what was counted, what is allowed, and what the thing counted is called.
fn within(checks: &[(&str, usize, usize, &str)]) -> Result<(), ServerError> {
    match checks.iter().find(|(_, actual, maximum, _)| actual > maximum) {
        None => Ok(()),
        Some((limit, actual, maximum, what)) => Err(exceeded(limit, *actual, *maximum, what)),
    }
}

fn exceeded(limit: &str, actual: usize, maximum: usize, what: &str) -> ServerError {
    // A bomb of fragments counts further than a machine word; saying "18446744073709551615" would help nobody.
    let counted = if actual == usize::MAX { "far too many".to_owned() } else { actual.to_string() };
    let mut error = coded(
        code::QUERY_TOO_EXPENSIVE,
        format!(
            "The document has {counted} {what}; at most {maximum} are allowed ({limit}). Ask for less, or in several requests."
        ),
        None,
    );
    let extensions = error.extensions.get_or_insert_default();
    extensions.set("limit", limit);
    extensions.set("maximum", clamp(maximum));
    extensions.set("actual", clamp(actual));
    error
}

/// As far as JSON's readers can count (2^53 − 1), since a saturated count is shown as well.
fn clamp(count: usize) -> i64 {
    const MAXIMUM: i64 = (1 << 53) - 1;
    i64::try_from(count).map_or(MAXIMUM, |count| count.min(MAXIMUM))
}

/// Counts over the text. Only bytes are looked at: everything that means something in GraphQL outside of strings
/// and comments is ASCII.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lexer {
    tokens: usize,
    nesting: usize,
    directives: usize,
}

impl Lexer {
    fn measure(document: &str) -> Result<Self, ServerError> {
        let text = document.as_bytes();
        let mut lexer = Self::default();
        let mut open = 0_usize;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let length = match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                    at += 1;
                    continue;
                }
                b'#' => {
                    at += run(&text[at..], |byte| byte != b'\n' && byte != b'\r');
                    continue;
                }
                // A byte order mark is white space to GraphQL.
                0xEF if text[at..].starts_with("\u{feff}".as_bytes()) => {
                    at += 3;
                    continue;
                }
                b'"' => string_length(&text[at..]).ok_or_else(|| unclosed(document, at))?,
                b'.' => run(&text[at..], |byte| byte == b'.').min(3),
                byte if byte == b'-' || byte.is_ascii_digit() => {
                    1 + run(&text[at + 1..], |byte| is_word(byte) || byte == b'.')
                }
                byte if is_word(byte) => run(&text[at..], is_word),
                _ => 1,
            };
            match byte {
                b'{' | b'(' | b'[' => {
                    open += 1;
                    lexer.nesting = lexer.nesting.max(open);
                }
                b'}' | b')' | b']' => open = open.saturating_sub(1),
                b'@' => lexer.directives += 1,
                _ => {}
            }
            lexer.tokens += 1;
            at += length;
        }
        Ok(lexer)
    }
}

/// Names and numbers, and whatever is no ASCII at all (the parser will refuse that; it only has to be stepped over).
fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn run(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|&byte| !belongs(byte)).unwrap_or(text.len())
}

/// How long the string is that `text` begins with, quotes included; `None` if it is never closed.
fn string_length(text: &[u8]) -> Option<usize> {
    const BLOCK: &[u8] = b"\"\"\"";
    if text.starts_with(BLOCK) {
        let mut at = BLOCK.len();
        while at < text.len() {
            match &text[at..] {
                rest if rest.starts_with(b"\\\"\"\"") => at += 4,
                rest if rest.starts_with(BLOCK) => return Some(at + BLOCK.len()),
                _ => at += 1,
            }
        }
        return None;
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\n' | b'\r' => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn unclosed(document: &str, at: usize) -> ServerError {
    let before = document.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    coded(
        code::GRAPHQL_PARSE_FAILED,
        format!(
            "The document does not parse: the string that begins at line {line}, column {column} is never closed. End it with the same quotes that begin it."
        ),
        Some(Pos { line, column }),
    )
}

/// What a set of selections amounts to. All counts saturate: a few fragments can stand for more than a word holds.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    depth: usize,
    nesting: usize,
    selections: usize,
    aliases: usize,
    root_fields: usize,
}

impl Weight {
    /// Two operations of one document. Only one of them is executed, but all are validated.
    fn beside(self, other: Self) -> Self {
        Self { root_fields: self.root_fields.max(other.root_fields), ..self.then(other) }
    }

    /// Two selections of one set.
    fn then(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            nesting: self.nesting.max(other.nesting),
            selections: self.selections.saturating_add(other.selections),
            aliases: self.aliases.saturating_add(other.aliases),
            root_fields: self.root_fields.saturating_add(other.root_fields),
        }
    }

    /// A field around what it selects.
    fn in_field(self, aliased: bool) -> Self {
        Self {
            depth: self.depth.saturating_add(1),
            nesting: if self.selections == 0 { 0 } else { self.nesting.saturating_add(1) },
            selections: self.selections.saturating_add(1),
            aliases: self.aliases.saturating_add(usize::from(aliased)),
            root_fields: 1,
        }
    }

    /// A fragment around what it selects: a level for whoever recurses, none for whoever reads the answer.
    fn in_fragment(self) -> Self {
        Self { nesting: self.nesting.saturating_add(1), selections: self.selections.saturating_add(1), ..self }
    }
}

struct Walk<'a> {
    document: &'a ExecutableDocument,
    limits: &'a Limits,
    fragments: HashMap<&'a str, Weight>,
    /// The fragments that the walk is inside of.
    trail: Vec<&'a str>,
    variable_arguments: VariableArguments,
}

impl<'a> Walk<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet) -> Result<Weight, ServerError> {
        let mut total = Weight::default();
        for selection in &set.items {
            self.note_directives(selection.node.directives());
            let weight = match &selection.node {
                Selection::Field(field) => {
                    self.note_arguments(&field.node);
                    self.selection_set(&field.node.selection_set.node)?.in_field(field.node.alias.is_some())
                }
                Selection::InlineFragment(fragment) => {
                    self.selection_set(&fragment.node.selection_set.node)?.in_fragment()
                }
                Selection::FragmentSpread(spread) => {
                    self.fragment(&spread.node.fragment_name.node, spread.pos)?.in_fragment()
                }
            };
            total = total.then(weight);
        }
        Ok(total)
    }

    /// The weight of a named fragment; nothing for one that is not defined, which validation reports by its name.
    fn fragment(&mut self, name: &str, spread_at: Pos) -> Result<Weight, ServerError> {
        if let Some(weight) = self.fragments.get(name) {
            return Ok(*weight);
        }
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Ok(Weight::default());
        };
        if let Some(start) = self.trail.iter().position(|open| open == name) {
            return Err(cycle(&self.trail[start..], spread_at));
        }
        // Also bounds this walk's own recursion, before there is a weight to compare.
        if self.trail.len() >= self.limits.nesting_max {
            let what = "fragments inside each other";
            return Err(exceeded("nesting_max", self.trail.len() + 1, self.limits.nesting_max, what));
        }
        self.trail.push(name);
        self.note_directives(&fragment.node.directives);
        let weight = self.selection_set(&fragment.node.selection_set.node)?;
        self.trail.pop();
        self.fragments.insert(name, weight);
        Ok(weight)
    }

    fn note_directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives {
            for (name, value) in &directive.node.arguments {
                self.note_argument(name.pos, value.node.clone().into_const().is_none(), &value.node);
            }
        }
    }

    fn note_arguments(&mut self, field: &Field) {
        for (name, value) in &field.arguments {
            self.note_argument(name.pos, value.node.clone().into_const().is_none(), &value.node);
        }
    }

    fn note_argument(&mut self, at: Pos, variable: bool, value: &impl ToString) {
        if variable {
            self.variable_arguments.insert(at, value.to_string());
        }
    }
}

fn cycle(trail: &[&str], at: Pos) -> ServerError {
    let first = trail.first().copied().unwrap_or_default();
    coded(
        code::GRAPHQL_VALIDATION_FAILED,
        format!("Fragments may not contain themselves: {} → {first}. Remove one of these spreads.", trail.join(" → ")),
        (at != Pos::default()).then_some(at),
    )
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    /// Every limit out of the way but the one that a test sets.
    fn roomy() -> Limits {
        let far = 1_000_000;
        Limits {
            tokens_max: far,
            nesting_max: 60,
            depth_max: far,
            selections_max: far,
            aliases_max: far,
            root_fields_max: far,
            directives_max: far,
            ..Limits::default()
        }
    }

    fn check(document: &str, limits: &Limits) -> Result<(), ServerError> {
        check_text(document, limits)?;
        check_document(&parse_query(document).expect("the test's document parses"), limits).map(|_| ())
    }

    fn code_of(error: &ServerError) -> String {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        code.map(|code| code.to_string().trim_matches('"').to_owned()).unwrap_or_default()
    }

    /// The document counts exactly `count`: it passes at that limit, and one below refuses it by that limit's name.
    fn counts(document: &str, limit: &str, count: usize, set: impl Fn(&mut Limits, usize)) {
        let mut limits = roomy();
        set(&mut limits, count);
        assert_eq!(check(document, &limits).map_err(|error| error.message), Ok(()), "at the limit");
        set(&mut limits, count - 1);
        let error = check(document, &limits).expect_err("one past the limit");
        assert_eq!(code_of(&error), code::QUERY_TOO_EXPENSIVE);
        assert!(error.message.contains(limit), "{}", error.message);
        assert!(error.message.contains(&format!("has {count} ")), "{}", error.message);
        assert!(error.message.contains(&format!("at most {} ", count - 1)), "{}", error.message);
    }

    #[test]
    fn counts_tokens_like_the_grammar() {
        let document = "query Q($a: [Int!] = 1) { # {{{ a comment\n x: f(s: \"{ \\\" (\", b: \"\"\"\n[[ \\\"\"\" {\n\"\"\") ...on Query @skip(if: $a) { y } }";
        counts(document, "tokens_max", 40, |limits, maximum| limits.tokens_max = maximum);
        assert_eq!(Lexer::measure("{a}").expect("closed").tokens, 3);
        assert_eq!(Lexer::measure("\u{feff}, {\r\n...A...B}").expect("closed").tokens, 6);
        assert_eq!(Lexer::measure("f(n:-1.5,m:2)").expect("closed").tokens, 9);
    }

    #[test]
    fn counts_brackets_open_at_once() {
        counts("{ a { b(x: [[1], [2]]) { c } } }", "nesting_max", 5, |limits, maximum| limits.nesting_max = maximum);
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_nest() {
        let mut limits = roomy();
        limits.nesting_max = 2;
        let text = "{ a(s: \"[[[[\", b: \"\"\"{{{{ \\\"\"\" {{{\"\"\") # ((((\n b }";
        assert_eq!(check_text(text, &limits), Ok(()));
    }

    #[test]
    fn counts_directives() {
        let document = "query @a { x @b @c ...F } fragment F on Query @d { y }";
        counts(document, "directives_max", 4, |limits, maximum| limits.directives_max = maximum);
    }

    #[test]
    fn counts_depth_through_fragments() {
        let document = "{ a { ...F } } fragment F on T { b { ... on U { c { d } } } }";
        counts(document, "depth_max", 4, |limits, maximum| limits.depth_max = maximum);
    }

    #[test]
    fn counts_levels_with_fragments_where_they_are_spread() {
        // As text these are three brackets at most; put together they are five levels below the first.
        let document = "{ a { ...F } } fragment F on T { b { ...G } } fragment G on U { c { d } }";
        counts(document, "nesting_max", 5, |limits, maximum| limits.nesting_max = maximum);
    }

    #[test]
    fn counts_selections_wherever_they_are_spread() {
        let document = "{ a { ...F } b { ...F } } fragment F on T { x y { z } }";
        counts(document, "selections_max", 10, |limits, maximum| limits.selections_max = maximum);
    }

    #[test]
    fn counts_aliases_wherever_they_are_spread() {
        let document = "{ p: a { ...F } q: b { ...F } c } fragment F on T { r: x }";
        counts(document, "aliases_max", 4, |limits, maximum| limits.aliases_max = maximum);
    }

    #[test]
    fn counts_root_fields_of_the_larger_operation() {
        let document = "query A { a b ...F ... on Query { d { x y z } } } query B { a } fragment F on Query { c e }";
        counts(document, "root_fields_max", 5, |limits, maximum| limits.root_fields_max = maximum);
    }

    #[test]
    fn a_bomb_of_fragments_is_refused_at_once() {
        let mut document = "{ ...F0 }".to_owned();
        for number in 0..30 {
            let next = number + 1;
            document.push_str(&format!(" fragment F{number} on Q {{ a {{ ...F{next} ...F{next} ...F{next} }} }}"));
        }
        document.push_str(" fragment F30 on Q { a }");
        let limits = Limits { nesting_max: 100, depth_max: 100, ..Limits::default() };
        let error = check(&document, &limits).expect_err("three to the thirtieth");
        assert!(error.message.contains("selections_max"), "{}", error.message);
    }

    #[test]
    fn a_bomb_of_spreads_without_any_field_is_refused_too() {
        let mut document = "{ ...F0 }".to_owned();
        for number in 0..70 {
            let next = number + 1;
            document.push_str(&format!(" fragment F{number} on Q {{ ...F{next} ...F{next} }}"));
        }
        let error = check(&document, &Limits { nesting_max: 100, ..Limits::default() }).expect_err("a bomb");
        assert!(error.message.contains("far too many selections"), "{}", error.message);
    }

    #[test]
    fn a_fragment_that_contains_itself_is_named() {
        let document = "{ ...A } fragment A on Q { x { ...B } } fragment B on Q { ...A }";
        let error = check(document, &Limits::default()).expect_err("a cycle");
        assert_eq!(code_of(&error), code::GRAPHQL_VALIDATION_FAILED);
        assert!(error.message.contains("A → B → A"), "{}", error.message);
        let unused = check("{ a } fragment U on Q { ...U }", &Limits::default()).expect_err("a cycle that nobody uses");
        assert!(unused.message.contains("U → U"), "{}", unused.message);
    }

    #[test]
    fn a_long_chain_of_fragments_does_not_exhaust_the_stack() {
        let mut document = "{ ...F0 }".to_owned();
        for number in 0..600 {
            document.push_str(&format!(" fragment F{number} on Q {{ ...F{} }}", number + 1));
        }
        let error = check(&document, &Limits::default()).expect_err("a chain");
        assert!(error.message.contains("nesting_max"), "{}", error.message);
    }

    #[test]
    fn a_string_that_is_never_closed_is_a_parse_error_with_its_place() {
        for document in
            ["{\n  a(s: \"abc\n[[[[ }", "{\n  a(s: \"\"\" x \" [[[[ }", "{\n  a(s: \"abc\\\"", "{\n  a(s: \"abc\\"]
        {
            let error = check_text(document, &Limits::default()).expect_err("not closed");
            assert_eq!(code_of(&error), code::GRAPHQL_PARSE_FAILED);
            assert!(error.message.contains("line 2, column 8"), "{}", error.message);
        }
    }

    #[test]
    fn tells_arguments_with_variables_from_literals() {
        let document = parse_query("query($v: Int) { a(x: 1, y: [{ z: $v }]) @skip(if: $v) }").expect("parses");
        let arguments = check_document(&document, &Limits::default()).expect("small");
        let mut written: Vec<_> = arguments.into_values().collect();
        written.sort();
        assert_eq!(written, ["$v", "[{z: $v}]"]);
    }

    #[test]
    fn the_parser_survives_the_deepest_text_that_passes() {
        let nesting = Limits::default().nesting_max;
        let selections = format!("{}a{}", "{a".repeat(nesting), "}".repeat(nesting));
        let lists = format!("{{a(x:{}1{})}}", "[".repeat(nesting - 2), "]".repeat(nesting - 2));
        for document in [selections, lists] {
            assert_eq!(check_text(&document, &Limits::default()), Ok(()));
            // A worker of the runtime has 2 MiB of stack; a quarter of that must do.
            let parse = move || drop(parse_query(document));
            let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(parse).expect("a thread");
            thread.join().expect("no overflow, no panic");
        }
    }
}
