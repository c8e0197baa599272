//! The schemas of ingest events: those built in, and those an operator put in place of them. Invariant: a
//! schema that cannot be used, or belongs to no event, stops the start and is named.
//!
//! The folder has the layout of `schemas/`: `<stream>/<event>.v<version>.json`. What lies deeper are
//! examples, which are not read. What a replaced schema costs and cannot do: `shards::domain::ingest::Catalog`.

use shards::domain::ingest::{Catalog, SchemaError, SchemaFile};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why the schemas cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemasError {
    /// The folder or a file in it cannot be read.
    #[error("{}: cannot read schemas: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a folder, but nothing in it.
    #[error("{}: no schema in it; one would be <stream>/<event>.v<version>.json", path.display())]
    NoSchema {
        /// The folder.
        path: PathBuf,
    },
    /// A file is no schema, or that of no event.
    #[error("{}: {source}", path.display())]
    Schema {
        /// The folder; the file is in the source.
        path: PathBuf,
        /// What is wrong with it.
        source: SchemaError,
    },
}

/// The built-in schemas, with those of `folder` in place of ours.
pub fn load(folder: Option<&Path>) -> Result<Catalog, SchemasError> {
    let files = match folder {
        None => Vec::new(),
        Some(folder) => read(folder)?,
    };
    Catalog::load(&files).map_err(|source| SchemasError::Schema {
        path: folder.unwrap_or(Path::new("schemas")).to_owned(),
        source,
    })
}

fn read(folder: &Path) -> Result<Vec<SchemaFile>, SchemasError> {
    let mut files = Vec::new();
    for stream in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&stream)? {
            if path.is_dir() || path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).map_err(|source| fault(&path, source))?;
            files.push(SchemaFile { name, text });
        }
    }
    if files.is_empty() {
        return Err(SchemasError::NoSchema { path: folder.to_owned() });
    }
    Ok(files)
}

/// What is in a folder, in order of names, so that of several faults always the same is told.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, SchemasError> {
    let list = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = list.map_err(|source| fault(folder, source))?;
    paths.sort();
    Ok(paths)
}

fn fault(path: &Path, source: io::Error) -> SchemasError {
    SchemasError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shards::domain::ingest::{Body, Reason};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn text_of_error(files: &[(&str, &str)]) -> String {
        load(Some(folder(files).path())).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_schema_in_the_folder_takes_the_place_of_ours() {
        let closed = r#"{"properties":{"chat_id":{"const":"only"}}}"#;
        let folder = folder(&[
            ("README.md", "not read"),
            ("wa_events_stream/chats.update.v1.json", closed),
            ("wa_events_stream/chats.update.v1/valid/sample.json", "{}"),
        ]);
        let body = Body::of(br#"{"chat_id":"c"}"#);
        let verdict = |catalog: &Catalog| {
            let route = catalog.route("v1.chats.update.ACME").unwrap();
            route.decode(&body).err().map(|refusal| refusal.reason)
        };
        assert_eq!(verdict(&load(None).unwrap()), None);
        assert_eq!(verdict(&load(Some(folder.path())).unwrap()), Some(Reason::OwnSchema));
    }

    #[test]
    fn the_shipped_folder_can_be_used_as_it_is() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        assert!(load(Some(&shipped)).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let file = "wa_events_stream/chats.update.v1.json";
        assert!(text_of_error(&[(file, "{")]).contains(file));
        assert!(text_of_error(&[(file, r#"{"type":5}"#)]).contains(file));
        let misspelt = text_of_error(&[("wa_events_stream/chat.update.v1.json", "{}")]);
        assert!(misspelt.contains("chat.update.v1.json"), "{misspelt}");
        assert!(text_of_error(&[("README.md", "")]).contains("no schema in it"));
        let missing = load(Some(Path::new("no/such/folder"))).err().map(|error| error.to_string());
        assert!(missing.unwrap_or_default().contains("cannot read schemas"));
    }
}
