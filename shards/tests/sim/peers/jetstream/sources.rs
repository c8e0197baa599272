//! Streams that copy from others, rewriting subjects (2.10 and newer). A copy is made in the moment the
//! original is stored: a real server's comes a little later, and in the same order. Older servers drop
//! `subject_transforms` and copy everything as it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::peers::subject::matches;
use crate::peers::version::Version;
use shards::id::fnv1a32;

/// A stream to copy from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StreamSource {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) subject_transforms: Vec<SubjectTransform>,
    /// Not modelled; a source that has any is refused.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// A rewriting: which subjects are taken, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SubjectTransform {
    pub(crate) src: String,
    pub(crate) dest: String,
}

impl StreamSource {
    /// Forgets what `version` does not know.
    pub(crate) fn complete(&mut self, version: Version) {
        if !version.since(10) {
            self.subject_transforms.clear();
        }
    }

    /// Under which subject a message is copied; `None` if it is not.
    pub(crate) fn subject_of(&self, subject: &[u8]) -> Option<Bytes> {
        if self.subject_transforms.is_empty() {
            return Some(Bytes::copy_from_slice(subject));
        }
        let mut fitting =
            self.subject_transforms.iter().filter(|t| matches(t.src.as_bytes(), subject));
        fitting.next().map(|transform| transform.apply(subject))
    }
}

impl SubjectTransform {
    fn apply(&self, subject: &[u8]) -> Bytes {
        let subject = String::from_utf8_lossy(subject);
        let pairs = self.src.split('.').zip(subject.split('.'));
        let stars: Vec<&str> =
            pairs.filter(|(pattern, _)| *pattern == "*").map(|(_, token)| token).collect();
        let tokens: Vec<String> = self.dest.split('.').map(|token| mapped(token, &stars)).collect();
        tokens.join(".").into()
    }
}

// `{{wildcard(2)}}`, `{{partition(4,1)}}`, or itself. Wildcards count from 1; the hash is FNV-1a, 32 bits.
fn mapped(token: &str, stars: &[&str]) -> String {
    let call = token.strip_prefix("{{").and_then(|rest| rest.strip_suffix(")}}"));
    let Some((function, arguments)) = call.and_then(|call| call.split_once('(')) else {
        return token.to_owned();
    };
    let numbers: Vec<usize> =
        arguments.split(',').map(|n| n.trim().parse().unwrap_or(usize::MAX)).collect();
    match (function, numbers.as_slice()) {
        ("wildcard", [star]) => stars[star - 1].to_owned(),
        ("partition", [count, star]) => {
            (fnv1a32(stars[star - 1].as_bytes()) as usize % count).to_string()
        }
        _ => panic!("not modelled by this peer: {token}"),
    }
}

#[test]
fn subjects_are_rewritten_as_a_server_does() {
    let transform = |src: &str, dest: &str| SubjectTransform { src: src.into(), dest: dest.into() };
    let first = transform("cdc.*.*", "p.{{partition(256,1)}}.cdc.{{wildcard(1)}}.{{wildcard(2)}}");
    let second = transform("sequin.>", "p.0.sequin");
    let subject_transforms = vec![first, second];
    let mut source =
        StreamSource { name: "S".into(), subject_transforms, ..StreamSource::default() };
    let subject_of = |source: &StreamSource, subject: &str| source.subject_of(subject.as_bytes());
    // The number was observed on real servers: the test of `shard_of`.
    assert_eq!(subject_of(&source, "cdc.acme.chats"), Some("p.175.cdc.acme.chats".into()));
    assert_eq!(subject_of(&source, "other.acme"), None);
    source.complete(Version::V2_9);
    assert_eq!(subject_of(&source, "other.acme"), Some("other.acme".into()));
}
