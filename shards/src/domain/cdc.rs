//! A row change (Sequin or Debezium envelope) becomes a routed event.
