"""Floor 5, align. In: base weights and feedback. Out: tuned weights or adapters, guardrails, a report."""
