//! Durable job queues with priorities, leases, fencing, keys, dedup and bounds.
