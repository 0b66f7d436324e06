//! Machine topology, thread and memory placement, and node-local pools.
