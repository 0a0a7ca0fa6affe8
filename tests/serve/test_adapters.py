"""Several LoRA adapters in one batch: equal to each alone and to merged weights, loaded and dropped meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError, InputError
from highrise.core.safetensors import write_safetensors
from highrise.serve.engine import Engine
from highrise.serve.http import serve_app
from highrise.serve.http_adapters import adapter_routes
from highrise.serve.loaded_adapters import UnknownAdapterError
from highrise.serve.request import Request, Sampling
from highrise.serve.runner import EngineRunner
from tests.reference import decoder as reference
from tests.reference.paged_decoder import TINY, PagedDecoder
from tests.serve.engine_parts import Letters, alone, greedy, ids_of, tiny_engine
from tests.serve.engine_parts import weights as tiny_weights
from tests.serve.isas import each_isa
from tests.serve.listening import HTTP, listening
from tests.serve.test_decoder import QWEN, int32, make_decoder, random_weights, run_whole
from tests.serve.test_http_engine import STEADY
from tests.serve.tiny_backend import tiny_backend

PROMPT = [5, 9, 2, 40, 41, 7, 7, 13, 60, 21, 3]


def draw_parts(weights, seed: int, *, rank: int, share: float = 1.0, size: float = 0.5):
    """Random matrices for a share of the projections: name to A and B."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name in [name for name in weights if "_proj.weight" in name and rng.random() < share]:
        rows, cols = weights[name].shape
        a = (rng.standard_normal((rank, cols)) / np.sqrt(cols)).astype(np.float32)
        b = (rng.standard_normal((rows, rank)) * size / np.sqrt(rank)).astype(np.float32)
        parts[name] = (a, b)
    return parts


def merge(weights, parts, scale: float = 1.0):
    return {**weights, **{name: weights[name] + scale * b @ a for name, (a, b) in parts.items()}}


def put(decoder, parts, scale: float = 1.0, *, exact: bool = False) -> int:
    adapter = decoder.add_adapter()
    for name, (a, b) in parts.items():
        decoder.set_adapter(adapter, name, a, b, scale, exact)
    return adapter


def write_folder(folder: Path, parts, *, rank: int, alpha: float | None = None) -> Path:
    """A folder in PEFT's format."""
    folder.mkdir(exist_ok=True)
    settings_ = {"peft_type": "LORA", "r": rank, "lora_alpha": rank if alpha is None else alpha, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings_))
    tensors = {}
    for name, (a, b) in parts.items():
        module = name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


# ---------------------------------------------------------------------------------------------------------- kernels


@each_isa
@settings(max_examples=12)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_a_mixed_batch_is_each_sequence_with_merged_weights(isa: str, data: st.DataObject, seed: int) -> None:
    """Any adapters over any sequences in any order of rows, kept as floats: the logits of the merged weights."""
    weights = random_weights(QWEN)
    ranks = data.draw(st.lists(st.sampled_from([1, 3, 16, 40]), min_size=1, max_size=3))
    parts = [draw_parts(weights, seed + index, rank=rank, share=0.6) for index, rank in enumerate(ranks)]
    decoder = make_decoder(QWEN, weights, isa=isa)
    numbers = [put(decoder, one, 0.5, exact=True) for one in parts]
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    owners = data.draw(st.lists(st.integers(-1, len(parts) - 1), min_size=len(lengths), max_size=len(lengths)))
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, QWEN.vocab_size, length).tolist() for length in lengths]
    table = rng.permutation(decoder.num_pages)[: 2 * len(lengths)].astype(np.int32).reshape(-1, 2)
    entries = [(token, place, row) for row, tokens in enumerate(sequences) for place, token in enumerate(tokens)]
    if data.draw(st.booleans()):  # rows of several sequences among each other
        entries.sort(key=lambda entry: (entry[1], entry[2]))
    tokens, places, rows = (np.array(column, np.int32) for column in zip(*entries, strict=True))
    adapters = int32(*(-1 if owner < 0 else numbers[owner] for owner in owners))
    got = decoder.forward(tokens, places, rows, table, np.arange(len(entries), dtype=np.int32), adapters)
    for row, (sequence, owner) in enumerate(zip(sequences, owners, strict=True)):
        own = weights if owner < 0 else merge(weights, parts[owner], 0.5)
        np.testing.assert_allclose(got[rows == row], reference.logits(QWEN, own, sequence), atol=1e-3)


@each_isa
@pytest.mark.parametrize("exact", [False, True])
def test_company_changes_no_bit(isa: str, exact: bool) -> None:
    """Alone or beside adapters of other ranks, whose rows lay in the same buffers before: the very same logits."""
    weights = random_weights(QWEN)
    decoder = make_decoder(QWEN, weights, isa=isa, limit="int8")
    low, high = (put(decoder, draw_parts(weights, rank, rank=rank), exact=exact) for rank in (4, 40))
    fresh = run_whole(decoder, [7, 8, 9], low)
    sequences = [[7, 8, 9], [7, 8, 9], [1, 2, 3], [7, 8, 9]]
    adapters = [low, high, high, -1]
    apart = [run_whole(decoder, tokens, one) for tokens, one in zip(sequences, adapters, strict=True)]
    tokens = int32(*(token for one in sequences for token in one))
    rows = np.arange(12, dtype=np.int32)
    table = np.arange(4, dtype=np.int32)[:, None]
    together = decoder.forward(tokens, rows % 3, rows // 3, table, rows, int32(*adapters))
    np.testing.assert_array_equal(together, np.concatenate(apart))
    run_whole(decoder, [3, 1, 4, 1, 5, 9, 2, 6], high)
    np.testing.assert_array_equal(run_whole(decoder, [7, 8, 9], low), fresh)
    assert np.abs(apart[0] - apart[3]).max() > 0.1


def test_a_removed_adapter_leaves_nothing_and_its_number_is_used_again() -> None:
    weights = random_weights(QWEN)
    decoder = make_decoder(QWEN, weights)
    plain = run_whole(decoder, [1, 2, 3])
    first, second = (put(decoder, draw_parts(weights, seed, rank=8)) for seed in (1, 2))
    of_second = run_whole(decoder, [1, 2, 3], second)
    held = decoder.memory_bytes
    decoder.remove_adapter(first)
    assert decoder.memory_bytes < held
    np.testing.assert_array_equal(run_whole(decoder, [1, 2, 3], second), of_second)
    assert decoder.add_adapter() == first
    np.testing.assert_array_equal(run_whole(decoder, [1, 2, 3], first), plain)
    decoder.remove_adapter(first)
    with pytest.raises(ValueError, match="adapter 0 was not added, or was removed"):
        decoder.remove_adapter(first)
    with pytest.raises(ValueError, match="adapter 0 of sequence 0 was not added"):
        run_whole(decoder, [1], first)
    with pytest.raises(ValueError, match="adapter 7 was not added"):
        put_nothing = np.zeros((1, 64), np.float32)
        decoder.set_adapter(7, "model.layers.0.self_attn.q_proj.weight", put_nothing, put_nothing.T.copy(), 1.0)
    with pytest.raises(ValueError, match="adapters has 2 entries; the page table has 1 rows"):
        decoder.forward(int32(1), int32(0), int32(0), int32(0)[None], int32(0), int32(-1, -1))
    with pytest.raises(KeyError, match="takes no adapter"):
        head = np.zeros((1, 64), np.float32)
        decoder.set_adapter(second, "lm_head.weight", head, np.zeros((130, 1), np.float32), 1.0)


# ----------------------------------------------------------------------------------------------------------- engine


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    weights = tiny_weights()
    return {
        name: write_folder(tmp_path / name, draw_parts(weights, seed, rank=rank, size=1.5), rank=rank)
        for name, seed, rank in (("sql", 1, 2), ("poem", 2, 5), ("third", 3, 3))
    }


def merged_tokens(name: str, prompt: list[int], count: int = 12) -> list[int]:
    """What an engine over weights with the adapter inside says."""
    seed, rank = {"sql": (1, 2), "poem": (2, 5), "third": (3, 3)}[name]
    weights = merge(tiny_weights(), draw_parts(tiny_weights(), seed, rank=rank, size=1.5))
    decoder = PagedDecoder(TINY, weights, num_pages=64, page_size=4)
    engine = Engine(decoder, shape=TINY, tokenizer=Letters(), prompts=None, num_pages=64, page_size=4)  # type: ignore[arg-type]
    return ids_of(engine.generate([greedy(prompt, count)])[0])


def test_adapters_in_one_batch_answer_as_merged_weights_do(folders: dict[str, Path]) -> None:
    engine = tiny_engine(step_tokens=24)
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    names = ["sql", None, "poem", "sql", "third", None]
    results = engine.generate([greedy([kind, *PROMPT], adapter=name) for kind, name in enumerate(names)])
    expected = [
        merged_tokens(name, [kind, *PROMPT]) if name else ids_of(tiny_engine().generate([greedy([kind, *PROMPT])])[0])
        for kind, name in enumerate(names)
    ]
    assert [ids_of(outputs) for outputs in results] == expected
    assert len({tuple(ids) for ids in expected}) == len(names)
    assert engine.cache.num_free == engine.cache.num_pages


def test_preemption_and_the_cache_keep_to_their_adapter(folders: dict[str, Path]) -> None:
    engine = tiny_engine(num_pages=12, step_tokens=32)
    engine.load_adapter("sql", folders["sql"])
    engine.load_adapter("poem", folders["poem"])
    names = ["sql", "poem", "sql", "poem"]
    for _ in range(2):
        results = engine.generate([greedy(PROMPT, 20, adapter=name) for name in names])
        assert [ids_of(one) for one in results] == [merged_tokens(name, PROMPT, 20) for name in names]
    assert engine.stats().num_preemptions > 0


def test_nothing_cached_is_shared_with_another_adapter_not_even_of_the_same_name(folders: dict[str, Path]) -> None:
    engine = tiny_engine()
    engine.load_adapter("a", folders["sql"])
    engine.load_adapter("b", folders["poem"])

    def cached(adapter: str | None) -> int:
        return engine.generate([greedy(PROMPT, adapter=adapter)])[0][0].num_cached_tokens

    assert [cached(None), cached("a"), cached("b"), cached("a"), cached(None)] == [0, 0, 0, 10, 10]
    engine.unload_adapter("a")
    engine.load_adapter("a", folders["poem"])
    assert [cached("a"), cached("b")] == [0, 10]
    assert ids_of(engine.generate([greedy(PROMPT, adapter="a")])[0]) == merged_tokens("poem", PROMPT)
    engine.register_adapter(engine.adapters.prepare("a", folders["third"]), replace=True)
    assert cached("a") == 0
    assert ids_of(engine.generate([greedy(PROMPT, adapter="a")])[0]) == merged_tokens("third", PROMPT)


def test_an_adapter_in_use_is_freed_after_its_last_request(folders: dict[str, Path]) -> None:
    engine = tiny_engine(step_tokens=4)
    decoder = engine.decoder
    engine.load_adapter("sql", folders["sql"])
    first = engine.add(greedy(PROMPT, 8, adapter="sql"))
    second = engine.add(greedy([1, *PROMPT], 30, adapter="sql"))
    engine.step()
    engine.unload_adapter("sql")
    with pytest.raises(UnknownAdapterError, match='adapter "sql" is not loaded; loaded: none'):
        engine.add(greedy(PROMPT, adapter="sql"))
    engine.load_adapter("sql", folders["poem"])  # the name is free at once
    collected = {first: [], second: []}
    while first in engine._sequences:
        for output in engine.step():
            collected[output.request_id] += output.ids
    assert collected[first] == merged_tokens("sql", PROMPT, 8)
    assert decoder.adapters[0] is not None
    engine.cancel(second)
    assert decoder.adapters[0] is None
    assert ids_of(engine.generate([greedy(PROMPT, adapter="sql")])[0]) == merged_tokens("poem", PROMPT)


def test_a_default_adapter_answers_requests_that_name_none(folders: dict[str, Path]) -> None:
    engine = tiny_engine()
    engine.load_adapter("sql", folders["sql"], default=True)
    assert ids_of(engine.generate([greedy(PROMPT)])[0]) == merged_tokens("sql", PROMPT)
    with pytest.raises(InputError, match='"sql" is what model runs with'):
        engine.unload_adapter("sql")


def test_adapters_that_cannot_be_loaded_leave_nothing_behind(folders: dict[str, Path], tmp_path: Path) -> None:
    engine = tiny_engine()
    engine.load_adapter("sql", folders["sql"])
    with pytest.raises(InputError, match="no adapter folder"):
        engine.load_adapter("x", tmp_path)
    with pytest.raises(InputError, match=r'"sql" is loaded already, from .*sql; unload it first'):
        engine.load_adapter("sql", folders["poem"])
    with pytest.raises(InputError, match="is no name for an adapter"):
        engine.load_adapter("a\nb", folders["poem"])
    with pytest.raises(UnknownAdapterError, match='adapter "gone" is not loaded; loaded: sql'):
        engine.unload_adapter("gone")
    for number in range(63):
        engine.load_adapter(f"n{number}", folders["poem"])
    with pytest.raises(InputError, match="64 adapters are loaded, which is all"):
        engine.load_adapter("n64", folders["poem"])
    assert sum(one is not None for one in engine.decoder.adapters) == 64


@settings(max_examples=25)
@given(data=st.data())
def test_any_order_of_loading_asking_and_dropping(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a state machine: every answer is that of merged weights, and only adapters in use or by name are held."""
    folder = tmp_path_factory.mktemp("adapters")
    kinds = {"sql": (1, 2), "poem": (2, 5)}
    for kind, (seed, rank) in kinds.items():
        write_folder(folder / kind, draw_parts(tiny_weights(), seed, rank=rank, size=1.5), rank=rank)
    engine = tiny_engine(num_pages=24, step_tokens=16, max_running=3)
    loaded: dict[str, str] = {}
    asked: dict[str, tuple[str | None, list[int]]] = {}
    answers: dict[str, list[int]] = {}
    expected = {kind: merged_tokens(kind, PROMPT, 5) for kind in kinds}
    expected_plain = ids_of(tiny_engine().generate([greedy(PROMPT, 5)])[0])
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["load", "unload", "ask", "ask", "step", "step", "cancel"]))
        name = data.draw(st.sampled_from(["x", "y"]))
        if action == "load" and name not in loaded:
            loaded[name] = data.draw(st.sampled_from(sorted(kinds)))
            engine.load_adapter(name, folder / loaded[name])
        elif action == "unload" and name in loaded:
            engine.unload_adapter(name)
            del loaded[name]
        elif action == "ask":
            own = data.draw(st.sampled_from([None, *loaded]))
            request = engine.add(greedy(PROMPT, 5, adapter=own))
            asked[request] = (None if own is None else loaded[own], [])
            answers[request] = []
        elif action == "step":
            for output in engine.step():
                answers[output.request_id] += output.ids
        elif asked and action == "cancel":
            request = data.draw(st.sampled_from(sorted(asked)))
            if engine.cancel(request):
                del asked[request]
        used = {one.adapter.number for one in engine._sequences.values() if one.adapter is not None}
        used |= {engine.adapters.find(one).number for one in loaded}
        assert {number for number, one in enumerate(engine.decoder.adapters) if one is not None} == used
    while engine.has_work:
        for output in engine.step():
            answers[output.request_id] += output.ids
    for request, (kind, _) in asked.items():
        assert answers[request] == (expected_plain if kind is None else expected[kind])
    assert engine.cache.num_free == engine.cache.num_pages


def test_loading_while_the_engine_answers(folders: dict[str, Path]) -> None:
    engine = tiny_engine()
    runner = EngineRunner(engine)

    async def ask(adapter: str | None) -> list[int]:
        request = greedy(PROMPT, 30, adapter=adapter)
        return [token async for output in runner.generate(request) for token in output.ids]

    async def everything() -> list[list[int]]:
        plain = asyncio.ensure_future(ask(None))
        await runner.load_adapter("sql", folders["sql"])
        under = asyncio.ensure_future(ask("sql"))
        await asyncio.sleep(0)
        await runner.load_adapter("poem", folders["poem"])
        results = await asyncio.gather(plain, under, ask("poem"))
        await runner.unload_adapter("sql")
        with pytest.raises(UnknownAdapterError):
            await ask("sql")
        return results

    try:
        plain, sql, poem = asyncio.run(everything())
    finally:
        runner.close()
    assert plain == ids_of(tiny_engine().generate([greedy(PROMPT, 30)])[0])
    assert (sql, poem) == (merged_tokens("sql", PROMPT, 30), merged_tokens("poem", PROMPT, 30))


# ------------------------------------------------------------------------------------------------------- the server


def test_over_http(folders: dict[str, Path], tmp_path: Path) -> None:
    backend = tiny_backend()
    text = "".join(chr(32 + token) for token in PROMPT)
    with listening(serve_app(backend, more=adapter_routes(backend))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        def load(name: str, path: Path, **more: object) -> tuple[int, str]:
            answer = HTTP.post(f"{url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path), **more})
            return answer.status_code, answer.text

        def unload(name: str) -> tuple[int, str]:
            answer = HTTP.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name})
            return answer.status_code, answer.text

        assert load("sql", folders["sql"]) == (200, "Success: LoRA adapter 'sql' added successfully.")
        assert load("poem", folders["poem"])[0] == 200
        listed = HTTP.get(f"{url}/v1/models").json()["data"]
        assert [(one["id"], one["parent"]) for one in listed] == [("tiny", None), ("sql", "tiny"), ("poem", "tiny")]
        assert listed[1]["root"] == str(folders["sql"])
        assert HTTP.get(f"{url}/v1/models/poem").json()["parent"] == "tiny"

        for name in ("sql", "poem"):
            answer = client.completions.create(
                model=name, prompt=text, max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
            )
            assert answer.model == name
            assert answer.choices[0].text == "".join(chr(32 + token) for token in merged_tokens(name, PROMPT))
        messages = [{"role": "user", "content": "hello"}]
        chats = {
            name: client.chat.completions.create(model=name, messages=messages, max_tokens=8, temperature=0)  # type: ignore[arg-type]
            for name in ("tiny", "sql", "poem")
        }
        assert {chat.model for chat in chats.values()} == {"tiny", "sql", "poem"}
        assert len({chat.choices[0].message.content for chat in chats.values()}) == 3
        infill = HTTP.post(f"{url}/infill", json={"model": "sql", "input_prefix": "a", "input_suffix": "b"}).json()
        assert infill["model"] == "sql"
        vectors = [
            client.embeddings.create(model=name, input="hello", encoding_format="float").data[0].embedding
            for name in ("tiny", "sql")
        ]
        assert vectors[0] != vectors[1]
        assert "vllm:lora_requests_info{" in HTTP.get(f"{url}/metrics").text

        assert load("sql", folders["poem"])[0] == 400
        assert load("tiny", folders["poem"])[0] == 400
        assert load("third", folders["third"], load_inplace=True)[0] == 200
        assert load("sql", folders["third"], load_inplace=True)[0] == 200
        status, body = load("other", tmp_path)
        assert (status, json.loads(body)["error"]["param"]) == (400, "lora_path")
        assert HTTP.post(f"{url}/v1/load_lora_adapter", json={"lora_name": "x"}).status_code == 400
        assert unload("poem") == (200, "Success: LoRA adapter 'poem' removed successfully.")
        status, body = unload("poem")
        assert (status, json.loads(body)["error"]["param"]) == (404, "lora_name")
        with pytest.raises(openai.NotFoundError, match="'poem' does not exist here; this server runs 'tiny'"):
            client.completions.create(model="poem", prompt=text)


def test_without_being_asked_for_the_routes_do_not_exist() -> None:
    with listening(serve_app(tiny_backend())) as url:
        assert HTTP.post(f"{url}/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/"}).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--lora-modules", "sql"], "sql is not NAME=PATH"),
        (["--lora-modules", "=x"], "=x is not NAME=PATH"),
        (["--lora-modules", "a=x", "a=y"], 'names "a" twice: x and y'),
        (["--lora-modules", '{"name": "a"}'], "missing required field `path`"),
        (["--lora-modules", "smollm2-135m=x"], 'is called "smollm2-135m", as the model is'),
    ],
)
def test_bad_modules_are_one_sentence(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from highrise.cli import main

    assert main(["serve", "smollm2-135m", "--port", "0", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_real_weights_with_two_adapters_in_one_batch(tmp_path: Path) -> None:
    """Greedy tokens of two adapters and of none, alone and all in one batch, over smollm2-135m."""
    try:
        path = locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(5)
    folders = {}
    for name, rank in (("a", 4), ("b", 16)):
        parts = {}
        for layer in range(30):
            for module, rows in (("self_attn.q_proj", 576), ("self_attn.v_proj", 192), ("mlp.up_proj", 1536)):
                a = (rng.standard_normal((rank, 576)) / 24).astype(np.float32)
                b = (rng.standard_normal((rows, rank)) * 0.2).astype(np.float32)
                parts[f"model.layers.{layer}.{module}.weight"] = (a, b)
        folders[name] = write_folder(tmp_path / name, parts, rank=rank)
    engine = Engine.load(path, isa=STEADY, threads=2, max_context=512, adapters=folders)
    prompts = ["def add(a, b):\n", "The sun rises in the", "import os\n"]
    sampling = Sampling(temperature=0, max_tokens=16, ignore_eos=True)
    requests = [
        Request(prompt_ids=engine.tokenizer.encode(prompt), sampling=sampling, adapter=adapter)
        for prompt in prompts
        for adapter in (None, "a", "b")
    ]
    expected = alone(engine, requests)
    assert [ids_of(outputs) for outputs in engine.generate(requests)] == expected
    assert len({tuple(ids) for ids in expected}) == len(requests)
