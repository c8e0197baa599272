//! Schemas, compiled, and what they say of a refused payload. Cold. Invariant: a [`Schema`] needs nothing
//! outside its own text: references to other documents do not compile.

use super::Body;
use super::decode::read::{Fault, Wrong};
use super::refusal::{Reason, Refusal, one_line, shown};
use crate::domain::json::{self, What, tree};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// A schema that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SchemaError {
    /// No event of ours has a schema of this name.
    #[error("{file}: no event has a schema of this name; one that has is {example}")]
    UnknownEvent {
        /// File, as `<stream>/<event>.v<version>.json`.
        file: String,
        /// The name of a schema that there is.
        example: String,
    },
    /// The file is no JSON.
    #[error("{file}: no JSON: {what}")]
    BadJson {
        /// File, as above.
        file: String,
        /// The parser's words.
        what: String,
    },
    /// The file is no JSON Schema, or refers to another document.
    #[error("{file}: no usable JSON Schema: at {path}: {what}")]
    BadSchema {
        /// File, as above.
        file: String,
        /// JSON pointer into it.
        path: String,
        /// The schema crate's words.
        what: String,
    },
}

/// One compiled schema.
pub(crate) struct Schema {
    validator: Validator,
}

impl Schema {
    pub(crate) fn compile(file: &str, text: &str) -> Result<Self, SchemaError> {
        let document: Value = serde_json::from_str(text).map_err(|error| SchemaError::BadJson {
            file: file.to_owned(),
            what: error.to_string(),
        })?;
        let validator = jsonschema::options().offline().build(&document).map_err(|error| {
            SchemaError::BadSchema {
                file: file.to_owned(),
                path: error.instance_path().to_string(),
                what: error.to_string(),
            }
        })?;
        Ok(Self { validator })
    }

    /// Refuses a body that the decoder took but this schema does not.
    pub(crate) fn admit(&self, body: &Body<'_>) -> Result<(), Refusal> {
        let tree = tree(body.as_str()).map_err(no_json)?;
        if self.validator.is_valid(&tree) {
            return Ok(());
        }
        match self.validator.iter_errors(&tree).next() {
            None => Ok(()),
            Some(error) => Err(worded(Reason::OwnSchema, &error)),
        }
    }

    /// Says what is wrong with a body that the decoder refused.
    pub(crate) fn refusal(&self, fault: Fault, body: &Body<'_>) -> Refusal {
        let tree = match tree(body.as_str()) {
            Ok(tree) => tree,
            Err(fault) => return no_json(fault),
        };
        let wrong = match fault {
            Fault::Json(_) => Wrong::new(Reason::WrongType, ""),
            Fault::Wrong(wrong) => wrong,
        };
        let path = wrong.path();
        if wrong.reason == Reason::CompanyMismatch {
            return company_mismatch(path, &tree);
        }
        let mut first = None;
        for error in self.validator.iter_errors(&tree) {
            if is_at(&error, &path) {
                return worded(wrong.reason, &error);
            }
            first = first.or(Some(error));
        }
        match first {
            Some(error) => worded(wrong.reason, &error),
            None => unworded(wrong.reason, path, &tree),
        }
    }
}

/// Whether an error is about the value at a path, be it absent.
fn is_at(error: &ValidationError<'_>, path: &str) -> bool {
    let at = error.instance_path().as_str();
    match error.kind() {
        ValidationErrorKind::Required { property } => path
            .strip_prefix(at)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| property.as_str() == Some(name)),
        _ => at == path || is_inside(at, path),
    }
}

/// A rule of a free object may be broken deep inside it.
fn is_inside(at: &str, path: &str) -> bool {
    !path.is_empty() && at.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

fn worded(reason: Reason, error: &ValidationError<'_>) -> Refusal {
    let at = error.instance_path().as_str();
    let (path, value) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            let value = error.instance().get(name).map(|value| shown(&path, value));
            (path, value.unwrap_or_else(|| "absent".to_owned()))
        }
        _ => (at.to_owned(), shown(at, error.instance())),
    };
    let words = one_line(&error.masked_with("the value").to_string());
    let rule = one_line(error.schema_path().as_str());
    Refusal { reason, path: one_line(&path), rule, value, words }
}

fn company_mismatch(path: String, tree: &Value) -> Refusal {
    let value = tree.pointer(&path).map(|value| shown(&path, value)).unwrap_or_default();
    let words = "the value is not the company in the subject".to_owned();
    Refusal { reason: Reason::CompanyMismatch, path, rule: "company".to_owned(), value, words }
}

/// The decoder refuses what the schema accepts. The differential test knows one such body: a free object
/// with a doubled member, of which the first holds U+0000. The schema sees the last; PostgreSQL reads both.
fn unworded(reason: Reason, path: String, tree: &Value) -> Refusal {
    let value = tree.pointer(&path).map(|value| shown(&path, value)).unwrap_or_default();
    let words = match reason {
        Reason::Nul => "a doubled member inside the value holds U+0000",
        _ => "the value cannot be held",
    };
    Refusal { reason, path, rule: "decoder".to_owned(), value, words: words.to_owned() }
}

fn no_json(fault: json::Fault) -> Refusal {
    let reason = if fault.what == What::TooDeep { Reason::TooDeep } else { Reason::BadJson };
    let words = format!("{} at offset {}", fault.what, fault.at);
    Refusal { reason, path: String::new(), rule: "json".to_owned(), value: String::new(), words }
}

/// A body that no cursor can go over.
pub(crate) fn too_large(body: &Body<'_>) -> Refusal {
    Refusal {
        reason: Reason::TooLarge,
        path: String::new(),
        rule: "size".to_owned(),
        value: format!("{} bytes", body.as_str().len()),
        words: "the body is too large to be read".to_owned(),
    }
}
