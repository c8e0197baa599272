//! Columns that the old service did not know, for the metric that counts them (contract cdc.md 5.1 and 9).
//! Off unless asked for: it walks every row once more.

use super::change::Change;
use super::row::for_each_column;
use super::rules::Table;

/// Columns of the old service's typed shapes, contract 5.1.
fn handled(table: Table) -> &'static [&'static str] {
    match table {
        Table::Messages => &[
            "id",
            "message_id",
            "chat_id",
            "agent_id",
            "company_id",
            "from_user",
            "to_user",
            "jid",
            "flow",
            "type",
            "status",
            "is_deleted",
            "message_timestamp",
            "message_date",
            "message_obj",
            "edited_message_obj",
            "key",
            "created_at",
            "updated_at",
            "last_metadata",
        ],
        Table::Chats => &[
            "id",
            "chat_id",
            "agent_id",
            "company_id",
            "jid",
            "custom_name",
            "push_name",
            "group_name",
            "assigned_to",
            "phone_number",
            "is_group",
            "unread_count",
            "conversation_timestamp",
            "last_message",
            "created_at",
            "updated_at",
            "last_metadata",
        ],
        Table::Agents => &[
            "id",
            "agent_id",
            "company_id",
            "qr_code",
            "status",
            "agent_name",
            "host_name",
            "version",
            "created_at",
            "updated_at",
            "last_metadata",
        ],
        Table::Contacts => &[
            "id",
            "phone_number",
            "company_id",
            "agent_id",
            "custom_name",
            "assigned_to",
            "created_at",
            "updated_at",
        ],
    }
}

impl Change<'_> {
    /// Names of the row's columns that the old service did not know, in the row's order.
    pub fn for_each_unhandled(&self, mut visit: impl FnMut(&[u8])) {
        let known = handled(self.table());
        // The row was checked when the change was made: it is a valid object.
        let _valid = for_each_column(self.row(), |column| {
            if !known.iter().any(|name| name.as_bytes() == column.key) {
                visit(column.key);
            }
        });
    }
}
