//! NATS client protocol and JetStream on the wire.
