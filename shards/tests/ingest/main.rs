//! Ingest events from outside: the files of `schemas/`, their examples, and the decoder held against the
//! schema crate. The schemas are read and compiled here once more, and payloads parsed by `serde_json`, so
//! that nothing of the code under test judges itself.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod differential;
mod events;
mod examples;
mod mutate;

use serde_json::Value;
use shards::domain::ingest::{Body, Catalog, Refusal};
use std::fs;
use std::path::{Path, PathBuf};

/// Company that the examples belong to.
const COMPANY: &str = "ACME";

/// One event as the folder of schemas describes it.
struct Described {
    /// `chats.upsert`
    base: String,
    document: Value,
    validator: jsonschema::Validator,
    valid: Vec<Example>,
    invalid: Vec<Example>,
}

struct Example {
    name: String,
    payload: Vec<u8>,
}

impl Described {
    fn subject(&self) -> String {
        format!("v1.{}.{COMPANY}", self.base)
    }
}

/// Every schema with its examples.
fn described() -> Vec<Described> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let files = entries(&root).into_iter().flat_map(|stream| entries(&stream));
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let document = serde_json::from_str(&text).unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let folder = path.with_extension("");
            Described {
                base: stem.strip_suffix(".v1").expect("version 1").to_owned(),
                validator: jsonschema::validator_for(&document).unwrap(),
                document,
                valid: examples(&folder.join("valid")),
                invalid: examples(&folder.join("invalid")),
            }
        })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn examples(folder: &Path) -> Vec<Example> {
    let example = |path: PathBuf| Example {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        payload: fs::read(path).unwrap(),
    };
    entries(folder).into_iter().map(example).collect()
}

/// What the schema crate says; `None` if the payload is no JSON.
fn schema_accepts(event: &Described, payload: &[u8]) -> Option<bool> {
    let body = Body::of(payload);
    // A double holds no 1e400. Where it stands in an example, any number of any size is meant.
    let text = body.as_str().replace("1e400", "1e300");
    let value: Value = serde_json::from_str(&text).ok()?;
    Some(event.validator.is_valid(&value))
}

/// What the decoder says.
fn decode(catalog: &Catalog, event: &Described, payload: &[u8]) -> Result<(), Refusal> {
    let (body, subject) = (Body::of(payload), event.subject());
    if event.base == "dlq" {
        return catalog.decode_dlq(&subject, &body).map(drop);
    }
    catalog.route(&subject)?.decode(&body).map(drop)
}
