//! Documents that were seen before: parsed and measured once, and validated once where no variable can change that.
//!
//! A document is kept by the SHA-256 of its text, in bounded memory, after it has passed every check that depends on it
//! alone. Operation, variables and the cost of pages are checked for each request.
//!
//! *Persisted documents* are those that the operator loads at the start; a client names one by `documentId`, as the
//! appendix of GraphQL over HTTP has it. A service may accept nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::parser::types::BaseType;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::*;

/// How many documents are kept, about, and how many bytes of their text. Parsed they take some ten times as much.
const DOCUMENTS_MAX: usize = 2_000;
const TEXT_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// What a persisted document's id begins with.
const ID_PREFIX: &str = "sha256:";

/// The hash of a document's text.
pub type DocumentHash = [u8; 32];

/// A document that may be executed, as far as that can be said without its variables.
pub struct Document {
    pub hash: DocumentHash,
    pub parsed: ExecutableDocument,
    pub arguments: VariableArguments,
    text_bytes: usize,
    /// Whether variables of one type are as good as any other: none of an enum or an input object.
    plain: bool,
    validated: AtomicBool,
}

impl Document {
    fn new(query: &str, hash: DocumentHash, limits: &Limits) -> Result<Self, ServerError> {
        check_text(query, limits)?;
        let parsed = parse(query)?;
        let arguments = check_document(&parsed, limits)?;
        let mut variables = parsed.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions);
        let plain = variables.all(|definition| is_plain(&definition.node.var_type.node));
        Ok(Self { hash, parsed, arguments, text_bytes: query.len(), plain, validated: AtomicBool::new(false) })
    }

    /// Whether the schema has accepted it, and would whatever the variables are.
    pub fn is_valid(&self) -> bool {
        self.validated.load(Ordering::Relaxed)
    }

    /// The schema has accepted it.
    pub fn accepted(&self) {
        self.validated.store(self.plain, Ordering::Relaxed);
    }
}

/// Whether values of a type are judged by [`check_variables`] alone.
fn is_plain(wanted: &Type) -> bool {
    match &wanted.base {
        BaseType::List(item) => is_plain(item),
        BaseType::Named(name) => matches!(name.as_str(), "Int" | "Float" | "String" | "Boolean" | "ID"),
    }
}

#[derive(Clone)]
struct TextBytes;

impl Weighter<DocumentHash, Arc<Document>> for TextBytes {
    fn weight(&self, _: &DocumentHash, document: &Arc<Document>) -> u64 {
        document.text_bytes as u64
    }
}

/// The documents that this service knows.
pub struct Documents {
    /// Of requests.
    pub limits: Limits,
    known: Cache<DocumentHash, Arc<Document>, TextBytes>,
    persisted: HashMap<DocumentHash, Arc<Document>>,
    only_persisted: bool,
}

impl Documents {
    /// None yet, within these limits.
    pub fn new(limits: Limits) -> Self {
        let known = Cache::with_weighter(DOCUMENTS_MAX, TEXT_BYTES_MAX, TextBytes);
        Self { limits, known, persisted: HashMap::new(), only_persisted: false }
    }

    /// With the documents of a manifest: a JSON object of texts by their ids, `sha256:` and 64 hexadecimal digits (the
    /// prefix may be left out, as Relay's compiler does). With `only`, nothing else is answered.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn with_persisted(mut self, manifest: &str, only: bool) -> Result<Self, String> {
        let texts: BTreeMap<String, String> =
            serde_json::from_str(manifest).map_err(|error| format!("it is no JSON object of texts: {error}"))?;
        for (id, text) in texts {
            let hash = sha256(&text);
            if hash_of_id(&id) != Some(hash) {
                return Err(format!("{id:?} is not the SHA-256 of its document: that is {ID_PREFIX}{}", hex(&hash)));
            }
            let document = Document::new(&text, hash, &self.limits).map_err(|error| format!("{id}: {}", error.message));
            self.persisted.insert(hash, Arc::new(document?));
        }
        self.only_persisted = only;
        Ok(self)
    }

    /// The document that a request means.
    pub(super) fn find(&self, source: &Source) -> Result<Arc<Document>, ServerError> {
        let query = match source {
            Source::Id(id) => {
                let found = hash_of_id(id).and_then(|hash| self.persisted.get(&hash).cloned());
                return found.ok_or_else(|| {
                    let message = "There is no persisted document of this documentId. The operator of the service \
                                   loads them; send the document as `query` instead, if that is allowed here.";
                    coded(code::PERSISTED_DOCUMENT_NOT_FOUND, message, None)
                });
            }
            Source::Text(query) => query,
        };
        let hash = sha256(query);
        if let Some(document) = self.persisted.get(&hash) {
            return Ok(document.clone());
        }
        if self.only_persisted {
            let message = "Only persisted documents are answered here: send the documentId of one.";
            return Err(coded(code::PERSISTED_DOCUMENT_REQUIRED, message, None));
        }
        if let Some(document) = self.known.get(&hash) {
            return Ok(document);
        }
        let document = Arc::new(Document::new(query, hash, &self.limits)?);
        self.known.insert(hash, document.clone());
        Ok(document)
    }
}

fn sha256(text: &str) -> DocumentHash {
    Sha256::digest(text.as_bytes()).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_of_id(id: &str) -> Option<DocumentHash> {
    let digits = id.strip_prefix(ID_PREFIX).unwrap_or(id);
    let pairs = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.0.iter().map(byte).collect();
    bytes?.try_into().ok().filter(|_| pairs.1.is_empty())
}
