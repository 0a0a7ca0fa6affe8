"""Floor 5, align. In: base weights and feedback. Out: tuned weights or adapters, guardrails, a report."""

from __future__ import annotations

from highrise.train.threads import wait_briefly

__all__: list[str] = []

wait_briefly()
