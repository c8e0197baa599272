//! What must become of an event, read from its bytes by the rules of the contract and by nothing of
//! daisi's: a checker that asked daisi could not find it wrong. Sources: contract cdc.md, sections 2 to 5;
//! ingest.md, sections 2 to 5.

pub mod cdc;
pub mod ingest;
mod json;

/// Whether a company may stand in a subject and be the name of a schema.
pub fn is_company(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=48).contains(&text.len()) && text.chars().all(is_plain)
}
