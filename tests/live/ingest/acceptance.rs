//! The contract's acceptance list (ingest.md section 10), and the tests that hold it. `live` is this binary,
//! `database` and `loadtest` are others; a name without a path is of a module below.
//!
//! | id | test |
//! |---|---|
//! | IV-01, 02, 03, 05; SV-01, 02, 03; SM-01; PD-05 | `refused::what_does_not_keep_to_its_schema_stores_nothing` |
//! | IV-04, SV-04 | `refused::what_the_server_refuses_or_nobody_captures_is_never_processed` |
//! | DI-03; TI-01, 02, 03; AG-3 | `refused::another_companys_event_changes_neither_company` |
//! | SM-02, 04; DI-01, orphan; RC-04; RM-1 | `values::messages_are_one_row_a_day_and_need_no_chat` |
//! | PD-01, 02, 03; DI-conflict, 05; RH-1 | `values::updates_change_what_they_name_and_nothing_else` |
//! | AG-1, 2, 4; RA-1, 2; RH-2; RK-1 to 4; RM-2 | `values::agents_and_contacts_are_upserted_and_seen_by_their_company_alone` |
//! | OB-1 to 3 | `values::onboarding_is_logged_once_an_agent_and_phone` |
//! | DB-01, 03, 05; RC-02 | `live` `ingest::away::postgresql_stopped_for_seconds_delays_and_loses_nothing` |
//! | DB-02 | `away::a_database_without_a_free_session_delays_and_loses_nothing` |
//! | DB-04 | `away::a_locked_table_delays_its_event_and_the_next` |
//! | MQ-01 to 04 | `away::nats_may_stop_and_streams_and_consumers_may_go` |
//! | RC-01 | `away::a_restart_in_the_middle_of_a_history_batch_loses_none_of_it` |
//! | RC-03 | `live` `ingest::letters::a_letter_is_tried_given_up_and_never_lost` |
//! | RI-1 to 4 | `database` `migrations::a_new_company_gets_every_table_month_and_index_once` |
//!
//! Of the rules below that list, U-1 and U-11 are held by `live` `ingest::letters`, U-2 and U-3 by
//! `ingest::rows::streams_that_exist_keep_what_the_operator_chose` and the units of `domain::ingest::subject`, which
//! hold U-4 too, U-5 and U-6 by those of `pipeline::commit::class` and `ingest::away`, U-7 by `database`
//! `migrations::racing_replicas_migrate_once`, U-8 and U-9 by `database`
//! `contacts::an_incoming_message_onboards_its_contact_once`, U-10 by `refused` and `database`
//! `messages::a_history_event_with_a_bad_item_is_refused_whole`.
//!
//! Beyond the list: `hostile` (input that means harm), `converge` (a stream disturbed in every way comes to the
//! same rows), `burst` (many new companies at once).

mod away;
mod burst;
mod converge;
mod hostile;
mod refused;
mod stage;
mod values;
