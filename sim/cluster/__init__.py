"""Many jobs on many nodes for months: queues, placement, sharing, failures. See docs/architecture.md."""
