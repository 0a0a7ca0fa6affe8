"""Floor 6, metrics: what /metrics tells Prometheus, under vLLM's names, so that its dashboards work unchanged.

One registry a server, none of the global state of prometheus-client. Knows nothing of engines: a backend reports to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics", "MetricsPage", "RequestTimer"]

M = TypeVar("M", Counter, Gauge, Histogram)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class MetricsPage:
    """One registry and the metrics in it, which several models of a server share; each is a label of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._families: dict[str, Any] = {}
        self._refreshes: list[Callable[[], None]] = []
        self.adapters = Gauge(
            "vllm:lora_requests_info",
            "When requests under these adapters were last seen.",
            ["max_lora", "waiting_lora_adapters", "running_lora_adapters"],
            registry=self.registry,
        )

    def family(self, kind: type[M], name: str, text: str, *labels: str, **options: Any) -> M:
        """The metric of that name, made when it is asked for the first time."""
        if name not in self._families:
            self._families[name] = kind(name, text, ["model_name", *labels], registry=self.registry, **options)
        family: M = self._families[name]
        return family

    def refresh_with(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each page."""
        self._refreshes.append(refresh)

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        self.adapters.clear()
        for refresh in self._refreshes:
            refresh()
        return generate_latest(self.registry)


class Metrics:
    """Counters and histograms of one model; `text()` is the page, on which other models may stand as well."""

    def __init__(self, model: str, page: MetricsPage | None = None) -> None:
        self.page = page or MetricsPage()
        self.model = model

        def gauge(name: str, text: str, owner: str = "vllm") -> Gauge:
            return self.page.family(Gauge, f"{owner}:{name}", text).labels(model)

        def counter(name: str, text: str, owner: str = "vllm") -> Counter:
            return self.page.family(Counter, f"{owner}:{name}", text).labels(model)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return self.page.family(Histogram, f"vllm:{name}", text, buckets=buckets).labels(model)

        self.running = gauge("num_requests_running", "Requests in the batch.")
        self.waiting = gauge("num_requests_waiting", "Requests that wait for room.")
        self.cache_usage = gauge("kv_cache_usage_perc", "Used part of the key-value pages, 1 is all.")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.prefix_queries = counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self.prefix_hits = counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self.preemptions = counter("num_preemptions", "Requests sent back to the queue for want of pages.")
        self.drafted = counter("spec_decode_num_draft_tokens", "Tokens guessed ahead by prompt look-up.")
        self.accepted = counter("spec_decode_num_accepted_tokens", "Guesses that were right.")
        self.up = gauge("engine_up", "Whether the engine answers requests: 1 or 0.", "highrise")
        self.restarts = counter("engine_restarts", "How often the engine's process was started again.", "highrise")
        self.first_token = histogram("time_to_first_token_seconds", "From arrival to the first token.", _SECONDS)
        self.between_tokens = histogram("inter_token_latency_seconds", "Between two tokens of a request.", _BETWEEN)
        self.queue = histogram("request_queue_time_seconds", "From arrival to the first step.", _SECONDS)
        self.prefill = histogram("request_prefill_time_seconds", "From the first step to the first token.", _SECONDS)
        self.decode = histogram("request_decode_time_seconds", "From the first token to the last.", _SECONDS)
        self.inference = histogram("request_inference_time_seconds", "From the first step to the last token.", _SECONDS)
        self.latency = histogram("e2e_request_latency_seconds", "From arrival to the last token.", _SECONDS)
        self.request_prompt = histogram("request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
        self.request_generation = histogram("request_generation_tokens", "Generated tokens of a request.", _TOKENS)
        self._success = self.page.family(
            Counter, "vllm:request_success", "Finished requests by reason.", "finished_reason"
        )

    def refresh_with(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each page, to set the gauges."""
        self.page.refresh_with(refresh)

    def timer(self) -> RequestTimer:
        """Start the clock of one request."""
        return RequestTimer(self)

    def finished(self, reason: str) -> None:
        """Count a finished request."""
        self._success.labels(self.model, reason).inc()

    def adapters(self, most: int, *, running: Sequence[str], waiting: Sequence[str]) -> None:
        """Which adapters the requests in the batch and in the queue ask for, of `most` that may be loaded."""
        self.page.adapters.labels(str(most), ",".join(waiting), ",".join(running)).set_to_current_time()

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        return self.page.text()


class RequestTimer:
    """The clock of one request; tell it of each delivery and of the end."""

    __slots__ = ("_last", "_metrics", "_started", "first", "generated", "seconds")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._started = time.perf_counter()
        self._last = 0.0
        self.generated = 0
        self.first: float | None = None
        """Seconds to the first token."""
        self.seconds = 0.0
        """Seconds to the end."""

    def tokens(self, count: int) -> None:
        """`count` tokens were delivered."""
        if not count:
            return
        now = time.perf_counter()
        if self.generated:
            self._metrics.between_tokens.observe((now - self._last) / count)
        else:
            self.first = now - self._started
            self._metrics.first_token.observe(self.first)
        self._last = now
        self.generated += count
        self._metrics.generation_tokens.inc(count)

    def stop(self) -> None:
        """The request is over; `count` says how it ended."""
        self.seconds = time.perf_counter() - self._started

    def end(self, reason: str, *, prompt_tokens: int, cached_tokens: int) -> None:
        """`stop` and `count`."""
        self.stop()
        self.count(reason, prompt_tokens=prompt_tokens, cached_tokens=cached_tokens)

    def count(self, reason: str, *, prompt_tokens: int, cached_tokens: int, queue_seconds: float | None = None) -> None:
        """Count what is over, for whatever reason; `queue_seconds` of it nothing was computed, if that is known."""
        metrics = self._metrics
        metrics.finished(reason)
        metrics.prompt_tokens.inc(prompt_tokens)
        metrics.prefix_queries.inc(prompt_tokens)
        metrics.prefix_hits.inc(cached_tokens)
        metrics.latency.observe(self.seconds)
        metrics.request_prompt.observe(prompt_tokens)
        metrics.request_generation.observe(self.generated)
        if self.first is None or queue_seconds is None:
            return
        metrics.queue.observe(queue_seconds)
        metrics.prefill.observe(self.first - queue_seconds)
        metrics.decode.observe(self.seconds - self.first)
        metrics.inference.observe(self.seconds - queue_seconds)
