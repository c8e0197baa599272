//! Imports point down: the table of layers in `ARCHITECTURE.md`, held against the code of `shards/src`. Read
//! from the text without comments and literals: every `crate::` and `super::` path counts, not only `use`.
#![allow(clippy::expect_used, reason = "a test")]

mod source;

use source::Source;

/// A layer, what it is made of, which modules of ours it may name, and what it must not touch.
struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

/// Sockets, clocks, files, threads and async: the edge's, and nobody's below it.
const OUTSIDE: &[&str] = &[
    "glommio",
    "tokio",
    "rustls",
    "async",
    ".await",
    "std::net",
    "std::os",
    "std::fs",
    "std::thread",
    "std::time",
    "std::process",
    "crossbeam_channel",
    "crossbeam_queue",
    "tracing_subscriber",
];
/// A counter is read by another thread, and the fault points end the process: that is what they are for.
const VOCABULARY_NEVER: &[&str] =
    &["glommio", "tokio", "rustls", "async", ".await", "std::net", "std::fs", "std::time"];

const LAYERS: [Layer; 6] = [
    Layer {
        name: "vocabulary",
        modules: &["clock", "columns", "fault", "id", "metrics", "sabotage", "slow"],
        may_use: &["clock", "columns", "fault", "id", "metrics", "sabotage", "slow"],
        never: VOCABULARY_NEVER,
    },
    Layer {
        name: "wire",
        modules: &["wire"],
        may_use: &["clock", "columns", "fault", "id", "metrics", "sabotage", "slow", "wire"],
        never: OUTSIDE,
    },
    Layer {
        name: "domain",
        modules: &["domain"],
        may_use: &["clock", "columns", "fault", "id", "metrics", "sabotage", "slow", "domain"],
        never: OUTSIDE,
    },
    Layer {
        name: "pipeline",
        modules: &["pipeline"],
        may_use: &[
            "clock", "columns", "fault", "id", "metrics", "sabotage", "slow", "wire", "domain",
            "pipeline",
        ],
        never: OUTSIDE,
    },
    Layer {
        name: "edge",
        modules: &["edge"],
        may_use: &[
            "clock", "columns", "fault", "id", "metrics", "sabotage", "slow", "wire", "pipeline",
            "edge",
        ],
        never: &["tokio", "tracing_subscriber"],
    },
    Layer {
        name: "shard",
        modules: &["shard", "pool"],
        may_use: &[
            "clock", "columns", "fault", "id", "metrics", "sabotage", "slow", "wire", "pipeline",
            "edge", "shard", "pool",
        ],
        never: &["tokio", "tracing_subscriber"],
    },
];

/// Files that may name what their layer must not, what, and why.
const EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "shards/src/edge/pg/stream.rs",
    "tokio",
    "tokio-postgres reads and writes through its IO traits",
)];

/// Where the clock may be asked.
const CLOCKED: [&str; 8] = [
    "shards/src/edge/",
    "shards/src/shard.rs",
    "shards/benches/",
    "shards/tests/",
    "src/",
    "loadtest/",
    "benches/",
    "tests/",
];

fn layer_of(module: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.modules.contains(&module))
}

#[test]
fn every_module_of_a_shard_has_a_layer() {
    for source in source::all() {
        if let Some(path) = module_path(&source.path)
            && let Some(module) = path.first()
        {
            assert!(layer_of(module).is_some(), "{}: give `{module}` a layer here", source.path);
        }
    }
}

#[test]
fn imports_point_down() {
    let faults: Vec<String> = source::all().iter().flat_map(faults_of).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn only_the_edge_and_the_process_ask_a_clock() {
    let mut faults = Vec::new();
    for source in source::all() {
        if CLOCKED.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for clock in ["Instant::now", "SystemTime::now"] {
            for at in source::occurrences(&source.code, clock) {
                faults.push(format!(
                    "{}:{}: {clock}",
                    source.path,
                    source::line_of(&source.code, at)
                ));
            }
        }
    }
    assert!(faults.is_empty(), "time is an argument below the edge\n{}", faults.join("\n"));
}

#[test]
fn the_load_test_knows_the_codec_and_nothing_else_of_a_shard() {
    let mut faults = Vec::new();
    for source in source::all().iter().filter(|source| source.path.starts_with("loadtest/src/")) {
        for (at, module) in heads_after(&source.code, "shards::") {
            if !["wire", "clock", "id"].contains(&module) {
                let line = source::line_of(&source.code, at);
                faults.push(format!("{}:{line}: shards::{module}", source.path));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "a checker that asks daisi cannot find it wrong\n{}",
        faults.join("\n")
    );
}

#[test]
fn a_step_up_or_aside_is_seen() {
    let found = |path: &str, text: &str| -> Vec<String> {
        let code = source::bare(text);
        faults_of(&Source { path: path.to_owned(), text: text.to_owned(), code })
    };
    let wire = "shards/src/wire/nats/conn.rs";
    assert_eq!(found(wire, "use crate::domain::cdc;").len(), 1);
    assert_eq!(found(wire, "use crate::{clock::Now, domain::{cdc, retry}, wire};").len(), 1);
    assert_eq!(found(wire, "fn f() { super::super::super::edge::g() }").len(), 1);
    assert_eq!(found(wire, "use super::super::Step; // crate::domain").len(), 0);
    assert_eq!(found(wire, "let now = std::time::Instant::now();").len(), 1);
    assert_eq!(found("shards/src/domain/retry.rs", "use crate::wire::Step;").len(), 1);
    assert_eq!(found("shards/src/pipeline/mod.rs", "use super::edge::Clock; x.await").len(), 2);
    assert_eq!(
        found("shards/src/edge/mod.rs", "use crate::domain::cdc; use glommio::net;").len(),
        1
    );
    assert_eq!(found("shards/src/id.rs", "use crate::pipeline::Mail;").len(), 1);
    assert_eq!(found("shards/src/lib.rs", "pub mod clock;").len(), 0);
}

fn faults_of(source: &Source) -> Vec<String> {
    let Some(path) = module_path(&source.path) else { return Vec::new() };
    let Some(layer) = path.first().and_then(|module| layer_of(module)) else { return Vec::new() };
    let (code, mut faults) = (source.code.as_str(), Vec::new());
    let mut tell = |at: usize, what: &str| {
        let line = source::line_of(code, at);
        faults.push(format!("{}:{line}: {} must not use {what}", source.path, layer.name));
    };
    for (at, module) in named_modules(code, &path) {
        if layer_of(module).is_some() && !layer.may_use.contains(&module) {
            tell(at, module);
        }
    }
    let is_excepted = |word: &str| {
        EXCEPTIONS.iter().any(|(path, excepted, _)| *path == source.path && *excepted == word)
    };
    for word in layer.never.iter().filter(|word| !is_excepted(word)) {
        source::occurrences(code, word).for_each(|at| tell(at, word));
    }
    faults
}

/// Modules of the crate's top level that `code` names, whether from the root or by climbing to it.
fn named_modules<'a>(code: &'a str, path: &[&str]) -> Vec<(usize, &'a str)> {
    let mut named = heads_after(code, "crate::");
    // A file `a/b.rs` is the module a::b: as many `super` as that has parts reach the root.
    let climb = "super::".repeat(path.len());
    let climbed = heads_after(code, &climb);
    named.extend(climbed.into_iter().filter(|(_, module)| *module != "super"));
    named
}

/// First names after each `prefix`; of a group in braces, the first name of every member.
fn heads_after<'a>(code: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    let mut heads = Vec::new();
    for at in source::occurrences(code, prefix) {
        let start = at + prefix.len();
        if code[start..].starts_with('{') {
            heads.extend(group_heads(code, start + 1));
        } else {
            heads.push((start, word_at(code, start)));
        }
    }
    heads
}

fn group_heads(code: &str, start: usize) -> Vec<(usize, &str)> {
    let (mut heads, mut depth, mut is_head) = (Vec::new(), 1, true);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => break,
            b'}' => depth -= 1,
            b',' if depth == 1 => is_head = true,
            _ if is_head && source::is_word(byte) => {
                heads.push((at, word_at(code, at)));
                is_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word_at(code: &str, start: usize) -> &str {
    let length = code[start..].bytes().take_while(|byte| source::is_word(*byte)).count();
    &code[start..start + length]
}

/// `shards/src/wire/nats/mod.rs` is `[wire, nats]`; `None` outside `shards/src`.
fn module_path(path: &str) -> Option<Vec<&str>> {
    let inside = path.strip_prefix("shards/src/")?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    Some(inside.split('/').filter(|part| *part != "lib").collect())
}
