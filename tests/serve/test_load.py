"""`highrise bench serve`: arrivals, percentiles and the command, over a free engine and a real server."""

from __future__ import annotations

import asyncio
import json
import xml.dom.minidom

import pytest

from highrise.cli import main
from highrise.serve.http import serve_app
from highrise.serve.load import Felt, Job, Workload, make_jobs, percentile, run_load, summarise
from highrise.serve.load_cli import http_target
from highrise.serve.load_plot import plot
from tests.serve.listening import listening
from tests.serve.tiny_backend import tiny_backend


@pytest.fixture(scope="module")
def tiny_server():
    with listening(serve_app(tiny_backend())) as url:
        yield url


TEXTS = ["".join(f"line {number}\n" for number in range(3000))]


def test_arrivals_are_those_of_the_rate_and_repeat_with_the_seed():
    workload = Workload(num_requests=2000, prompt_tokens=20, shared=0.5, typing=0.25)
    jobs = make_jobs(TEXTS, workload, 50.0)
    assert jobs == make_jobs(TEXTS, workload, 50.0)
    assert 35 < jobs[-1].arrival < 45
    assert {job.arrival for job in make_jobs(TEXTS, workload, None)} == {0.0}
    assert 0.2 < sum(job.typing for job in jobs) / 2000 < 0.3
    beginnings = [job.prompt[:80] for job in jobs]
    assert 0.45 < max(map(beginnings.count, set(beginnings))) / 2000 < 0.55
    assert 60 < sum(len(job.prompt) for job in jobs) / 2000 < 140


def test_percentiles_are_nearest_ranks():
    assert [percentile([5, 1, 4, 2, 3], share) for share in (0, 20, 50, 99, 100)] == [1, 1, 3, 5, 5]
    assert percentile([], 50) == 0.0


def test_a_run_measures_and_counts_what_failed():
    async def target(job: Job):
        await asyncio.sleep(0.02)
        if job.prompt == "bad":
            raise ValueError("no")
        for size in (1, 2, 1):
            yield size
            await asyncio.sleep(0.01)

    jobs = [Job(0.0, "a", 4, False), Job(0.01, "bad", 4, False), Job(0.02, "b", 4, True)]
    heard: list[Felt] = []
    felt = asyncio.run(run_load(target, jobs, heard.append))
    report = summarise(felt, 2.0, 0.5)
    assert len(heard) == 3
    assert (report.num_requests, report.num_failed, report.errors) == (3, 1, ("ValueError: no",))
    assert report.tokens_per_second == 16.0
    assert 15 < report.first_ms["typing"][0] < 200
    assert [len(one.gaps) for one in felt] == [3, 0, 3]
    assert felt[0].gaps[0] == felt[0].gaps[1]
    xml.dom.minidom.parseString(plot([report, report], "a <title>"))


def test_a_server_is_asked_by_its_protocol(tiny_server):
    async def run():
        target = http_target(tiny_server, None)
        return await run_load(target, [Job(0.0, "hello", 5, False), Job(0.0, "hello you", 5, True)])

    felt = asyncio.run(run())
    assert [one.error for one in felt] == ["", ""]
    assert all(one.num_tokens >= 1 and one.first > 0 for one in felt)


def test_the_command_prints_a_table_json_and_a_plot(tiny_server, tmp_path, capsys):
    file = tmp_path / "load.svg"
    options = ["--requests", "3", "--prompt-tokens", "5", "--answer-tokens", "4", "--rates", "all,50", "--json"]
    assert main(["bench", "serve", tiny_server, *options, "--plot", str(file)]) == 0
    printed = capsys.readouterr()
    reports = json.loads(printed.out)
    assert [(report["rate"], report["num_failed"]) for report in reports] == [(None, 0), (50.0, 0)]
    assert "| all at once | 3 | 0 |" in printed.err
    assert "<svg" in file.read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rates", "fast"], '--rates has "fast"'),
        (["--rates", "0"], '--rates has "0"'),
        (["--requests", "0"], "--requests is 0; it must be at least 1"),
        (["--shared", "2"], "--shared is 2.0; it is a share between 0 and 1"),
        (["--source", "/nowhere"], "there is no Python file in /nowhere"),
    ],
)
def test_wrong_options_are_sentences(options, sentence, capsys):
    assert main(["bench", "serve", "http://127.0.0.1:9", *options]) == 2
    assert sentence in capsys.readouterr().err
