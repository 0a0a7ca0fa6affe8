"""Floor 5, tune: the methods one after another on one adapter, each kept only if its held-out loss falls.

What cannot work is skipped with a sentence before anything is loaded; what fits into a budget is planned from measured
steps (`tuner.py`). CARD.md says what came out either way. Knows no arithmetic of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from highrise.align.card import MethodReport, write_card
from highrise.align.choice import choose
from highrise.align.config import DpoConfig, MethodConfig, SftConfig
from highrise.align.dpo import DpoTask
from highrise.align.lora import adapter_state, add_adapter, save_adapter, set_adapter_state
from highrise.align.outcome import Outcome, Skipped, judge
from highrise.align.records import read_pair_lines
from highrise.align.reuse import write_learnt
from highrise.align.sft import SftTask
from highrise.align.tuner import Task, run_task
from highrise.compute.machine import Machine, detect
from highrise.compute.plan import tuning_tokens
from highrise.core.config import convert, dump, fingerprint, parse_duration
from highrise.core.errors import ConfigError
from highrise.core.progress import human_seconds
from highrise.core.shape import DecoderShape
from highrise.core.weights import open_weights
from highrise.encode import Tokenizer
from highrise.encode.prompt import PromptFormat
from highrise.train.checkpoint import read_checkpoint
from highrise.train.device import choose_device, choose_precision, keep_freed_memory, use_threads
from highrise.train.model import Decoder
from highrise.train.weights_io import load_decoder

__all__ = ["ADAPTER", "tune"]

ADAPTER = "adapter"
_CHECKPOINT = "checkpoint.pt"
_HOPELESS = 10
_SMALL = 50_000_000

Counts = dict[str, int | float | str]


def tune(
    methods: Sequence[MethodConfig],
    base: Path,
    data_folder: Path,
    out: Path,
    machine: Machine | None = None,
    *,
    say: Callable[[str], None] = print,
) -> Counts:
    """Tune an adapter for `base` (GGUF file or folder) on a data folder's documents; returns the counts.

    Writes `out/CARD.md`, and `out/adapter` when a method was kept. A killed run goes on from its checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    machine = detect() if machine is None else machine
    shape = open_weights(base).shape
    for method in methods:
        if isinstance(method, DpoConfig) and method.feedback != "auto":
            read_pair_lines(Path(method.feedback))
    reports = [_first_look(method, shape, base, machine) for method in methods]
    for report in reports:
        if report.skipped:
            say(f"align: {report.method} skipped: {report.skipped}")
    kept = False
    if any(not report.skipped for report in reports):
        kept = _Tuning(methods, reports, base, data_folder, out, machine, say).run()
    if any(report.outcome for report in reports):
        write_learnt(out, (document for side in choose(data_folder) for document in side))
    write_card(out, base=base, machine=machine, reports=reports, kept=kept)
    (out / _CHECKPOINT).unlink(missing_ok=True)
    counts: Counts = {"kept": int(kept)}
    for report in reports:
        counts[f"{report.method}_tokens"] = report.outcome.tokens if report.outcome else 0
        if report.outcome:
            counts[f"{report.method}_before"] = round(report.outcome.before, 4)
            counts[f"{report.method}_after"] = round(report.outcome.after, 4)
            counts[f"{report.method}_planned"] = report.outcome.planned_tokens
            counts[f"{report.method}_seconds"] = round(report.outcome.seconds, 1)
    return counts


def _first_look(method: MethodConfig, shape: DecoderShape, base: Path, machine: Machine) -> MethodReport:
    name = "sft" if isinstance(method, SftConfig) else "dpo"
    seconds = parse_duration(method.budget, where="align.budget")
    report = MethodReport(method=name, config=dump(method))
    need = shape.num_parameters * 2
    guess = tuning_tokens(shape, seconds, machine)
    if guess * _HOPELESS < method.minimum_tokens:
        report.skipped = (
            f"about {guess:,} tokens of {base.name} fit into {method.budget} on {machine.cores} cores (estimated), "
            f"fewer than {method.minimum_tokens:,} teach nothing; raise the budget, or lower minimum_tokens"
        )
    elif need > 0.7 * machine.memory_available_bytes:
        report.skipped = (
            f"the weights alone take {need / 1e9:.1f} GB, {machine.memory_available_bytes / 1e9:.1f} GB are free; "
            "take smaller weights, or tune on another machine"
        )
    return report


class _Tuning:
    """Everything the methods share: the decoder with its adapter, the documents, the checkpoint."""

    def __init__(
        self,
        methods: Sequence[MethodConfig],
        reports: Sequence[MethodReport],
        base: Path,
        data_folder: Path,
        out: Path,
        machine: Machine,
        say: Callable[[str], None],
    ) -> None:
        self._methods, self._reports, self._base, self._out = methods, reports, base, out
        self._machine, self._say = machine, say
        self._train, self._held_out = choose(data_folder)
        first = next(m for m, r in zip(methods, reports, strict=True) if not r.skipped)
        if any(m.lora != first.lora for m in methods):
            raise ConfigError("the methods of align share one adapter: give all of them the same lora settings")
        self._lora = first.lora
        self._key = fingerprint(_normal(methods), str(base.resolve()), str(data_folder.resolve()))
        keep_freed_memory()
        self._device = choose_device("auto")
        self._precision = choose_precision(first.precision, self._device)

    def run(self) -> bool:
        """Run every method that was not skipped; True when an adapter was saved."""
        if not self._train or not self._held_out:
            side = "to train on" if not self._train else "held out"
            for report in self._reports:
                report.skipped = report.skipped or (
                    f"the data folder has no documents {side}; give more sources (20 files are the least)"
                )
                self._say(f"align: {report.method} skipped: {report.skipped}")
            return False
        tokenizer = Tokenizer.for_weights(self._base)
        prompts = PromptFormat.for_weights(self._base, tokenizer)
        decoder = self._load()
        saved = read_checkpoint(self._out / _CHECKPOINT)
        if saved is not None and saved["key"] != self._key:
            saved = None
        done = list(saved["done"]) if saved else []
        good: dict[str, torch.Tensor] | None = saved["good"] if saved else None
        for index, (method, report) in enumerate(zip(self._methods, self._reports, strict=True)):
            if report.skipped:
                continue
            if index < len(done) and done[index] is not None:
                _fill(report, msgspec.convert(done[index], Outcome | Skipped))
                continue
            set_adapter_state(decoder, good)
            resumed = saved if saved and saved["index"] == index else None
            keep = {"key": self._key, "index": index, "done": done, "good": good}
            with use_threads(method.threads):
                outcome = self._method(method, prompts, decoder, good, resumed, keep)
            _fill(report, outcome)
            if report.kept:
                good = {name: tensor.clone() for name, tensor in adapter_state(decoder).items()}
            done += [None] * (index - len(done))
            done.append(msgspec.to_builtins(outcome))
            self._say(_sentence(report))
        if good is None:
            return False
        set_adapter_state(decoder, good)
        save_adapter(decoder, self._out / ADAPTER, self._lora, base=str(self._base))
        return True

    def _load(self) -> Decoder:
        small = open_weights(self._base).shape.num_parameters < _SMALL
        half = self._precision == "bfloat16" and not small
        decoder = load_decoder(self._base, dtype=torch.bfloat16 if half else torch.float32, device=self._device)
        torch.manual_seed(self._methods[0].seed)
        add_adapter(decoder, self._lora)
        wide = 8 * decoder.shape.hidden_size + 5 * decoder.shape.intermediate_size
        a_token = decoder.shape.num_hidden_layers * wide * (2 if half else 4)
        room = int(0.25 * self._machine.memory_available_bytes / a_token)
        sequence = max(method.sequence for method in self._methods)
        decoder.recompute = sequence > room
        self._row = max(sequence, min(room, max(method.batch_tokens for method in self._methods)))
        return decoder

    def _method(
        self,
        method: MethodConfig,
        prompts: PromptFormat,
        decoder: Decoder,
        good: dict[str, torch.Tensor] | None,
        resumed: dict[str, Any] | None,
        keep: dict[str, Any],
    ) -> Outcome | Skipped:
        sequence = min(method.sequence, decoder.shape.max_position_embeddings)
        task: Task
        if isinstance(method, DpoConfig):
            sequence = min(sequence, decoder.shape.max_position_embeddings // 2)
            task = DpoTask(
                method, prompts, train=self._train, held_out=self._held_out, sequence=sequence, reference=good
            )
        else:
            row = min(self._row, decoder.shape.max_position_embeddings)
            task = SftTask(method, prompts, train=self._train, held_out=self._held_out, sequence=sequence, row=row)
        return run_task(
            task,
            decoder,
            budget=parse_duration(method.budget, where="align.budget"),
            minimum_tokens=method.minimum_tokens,
            start=good,
            rate=method.learning_rate or task.default_rate,
            device=self._device,
            precision=self._precision,
            checkpoint=self._out / _CHECKPOINT,
            checkpoint_every=parse_duration(method.checkpoint_every, where="align.checkpoint_every"),
            saved=resumed,
            keep=keep,
            say=self._say,
        )


def _normal(methods: Sequence[MethodConfig]) -> object:
    """The settings as plain data in the types they are declared with: 16 and 16.0 are one rank's alpha."""
    plain = [dump(method) for method in methods]
    return [dump(method) for method in convert(plain, list[MethodConfig], where="align")]


def _fill(report: MethodReport, outcome: Outcome | Skipped) -> None:
    if isinstance(outcome, Skipped):
        report.skipped = outcome.reason
        return
    verdict = judge(outcome)
    report.outcome, report.kept, report.reason = outcome, verdict.kept, verdict.reason


def _sentence(report: MethodReport) -> str:
    outcome = report.outcome
    if outcome is None:
        return f"align: {report.method} skipped: {report.skipped}"
    change = 100 * (outcome.after / outcome.before - 1) if outcome.before else 0.0
    return (
        f"align: {report.method}: held-out loss {outcome.before:.4f} -> {outcome.after:.4f} ({change:+.1f} %) after "
        f"{outcome.tokens:,} tokens in {human_seconds(outcome.seconds)}: "
        f"{'kept' if report.kept else f'not kept: {report.reason}'}"
    )
