"""What /metrics counts, under vLLM's names."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from highrise.serve.metrics import Metrics


def values(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if "le" not in sample.labels}


def test_a_request_is_counted_once() -> None:
    metrics = Metrics("m")
    timer = metrics.timer()
    timer.tokens(0)
    timer.tokens(1)
    timer.tokens(2)
    timer.end("stop", prompt_tokens=10, cached_tokens=4)
    seen = values(metrics)
    assert seen["vllm:prompt_tokens_total"] == 10
    assert seen["vllm:generation_tokens_total"] == 3
    assert seen["vllm:prefix_cache_queries_total"] == 10
    assert seen["vllm:prefix_cache_hits_total"] == 4
    assert seen["vllm:time_to_first_token_seconds_count"] == 1
    assert seen["vllm:inter_token_latency_seconds_count"] == 1
    assert seen["vllm:e2e_request_latency_seconds_count"] == 1
    assert seen["vllm:request_success_total"] == 1


def test_gauges_are_refreshed_and_registries_are_apart() -> None:
    first, second = Metrics("a"), Metrics("b")
    first.refresh_with(lambda: first.running.set(3))
    assert values(first)["vllm:num_requests_running"] == 3
    assert values(second)["vllm:num_requests_running"] == 0
