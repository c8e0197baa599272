//! Claims about batches, on the calls they make.
