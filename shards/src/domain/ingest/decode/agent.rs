//! Agents and their connection. Source: contract `ingest.md` section 2.7.

use super::read::{Fault, Source, slots};
use crate::domain::ingest::event::{Agent, Event};

slots!(AgentSlots {
    agent_id: b"agent_id",
    company_id: b"company_id",
    qr_code: b"qr_code",
    status: b"status",
    agent_name: b"agent_name",
    host_name: b"host_name",
    version: b"version",
    phone_number: b"phone_number",
});

/// `v1.connection.update`
pub(crate) fn update(source: Source<'_>) -> Result<Event<'_>, Fault> {
    let s: AgentSlots = source.members()?;
    let agent = Agent {
        agent_id: source.required(s.agent_id, "/agent_id")?,
        qr_code: source.text(s.qr_code, "/qr_code")?,
        status: source.text(s.status, "/status")?,
        agent_name: source.text(s.agent_name, "/agent_name")?,
        host_name: source.text(s.host_name, "/host_name")?,
        version: source.text(s.version, "/version")?,
        phone_number: source.text(s.phone_number, "/phone_number")?,
    };
    source.company(s.company_id, "/company_id")?;
    Ok(Event::ConnectionUpdate(agent))
}
