"""Floor 4, pretrain: a packed token file in, base weights, metrics and a loss curve out.

Windows are drawn by (seed, step), so that a resumed run sees what an uninterrupted one would have seen and ends with
the same bits. Knows nothing of documents or prompts.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from highrise.compute.machine import detect
from highrise.compute.memory import activation_bytes
from highrise.core.catalogue import locate
from highrise.core.config import dump, parse_duration
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import Progress, human_bytes, human_seconds
from highrise.core.shape import DecoderShape
from highrise.core.weights import open_weights
from highrise.encode import Tokenizer
from highrise.encode.packed import PackedTokens
from highrise.train.chart import draw_losses, read_metrics
from highrise.train.checkpoint import read_checkpoint, write_checkpoint
from highrise.train.config import TrainConfig, derive_shape
from highrise.train.corpus import TRAIN_FILE, VALIDATION_FILE
from highrise.train.device import choose_device, choose_precision, keep_freed_memory, use_threads
from highrise.train.evaluate import mean_loss
from highrise.train.model import Decoder
from highrise.train.optimiser import adamw
from highrise.train.schedule import rate_at
from highrise.train.step import MicroBatch, Sample, accumulate, train_step
from highrise.train.weights_io import load_decoder, save_decoder

__all__ = ["draw_batches", "pretrain"]

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
CURVE = "loss.png"
_TOKENS_PER_PARAMETER = 20
_REPLAN_EVERY = 10
_EVALUATION_TOKENS = 1 << 15
_FEWEST_STEPS = 150


def pretrain(
    config: TrainConfig,
    tokens_folder: Path,
    out: Path,
    *,
    say: Callable[[str], None] = print,
    stop_after: int | None = None,
) -> dict[str, int | float | str]:
    """Train on `tokens_folder` (made by `build_corpus`) and leave a Hugging Face folder in `out`; returns the counts.

    A run that was killed goes on from its checkpoint in `out`. `stop_after` ends the process's part early (tests).
    """
    packed = PackedTokens(tokens_folder / TRAIN_FILE)
    tokens = packed.tokens
    if len(tokens) <= config.sequence:
        raise InputError(
            f"{tokens_folder / TRAIN_FILE} holds {len(tokens):,} tokens, one window needs {config.sequence + 1:,}; "
            "give more text, or lower train.sequence"
        )
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    device = choose_device(config.device)
    saved = read_checkpoint(out / CHECKPOINT)
    precision = saved["precision"] if saved else choose_precision(config.precision, device)
    shape = (
        open_weights(locate(config.base)).shape if config.base else derive_shape(config, vocab_size=packed.vocab_size)
    )
    check_memory(config, shape, device)
    with use_threads(config.threads) as threads:
        decoder = _start(config, packed.vocab_size).to(device)
        optimiser = adamw(
            decoder.parameters(),
            learning_rate=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        run = _Run(config, decoder, optimiser, tokens, out, device, precision)
        if saved is not None:
            run.restore(saved)
            say(f"train: goes on at step {run.step:,} of {run.num_steps:,}")
        say(
            f"train: {decoder.shape.num_parameters / 1e6:.1f} M parameters ({_sizes(decoder)}), "
            f"{len(tokens):,} tokens, "
            f"{run.num_steps:,} steps of {config.batch_tokens:,}, {precision} on {device} with {threads} threads"
        )
        run.fit_step(say)
        run.loop(stop_after)
        if stop_after is not None and run.step < run.num_steps:
            return {"steps": run.step}
        counts = run.finish(tokens_folder)
    say(_sentence(counts))
    return counts


def _sentence(counts: dict[str, int | float | str]) -> str:
    loss = f"loss {counts['loss']:.3f}" if "loss" in counts else "nothing to learn from in this time"
    held_out = "no document is held out, so nothing says how well it does on unseen text"
    if "bits_per_byte" in counts:
        held_out = f"held-out {counts['validation_loss']:.3f} nats a token, {counts['bits_per_byte']:.3f} bits per byte"
    took = human_seconds(float(counts["seconds"]))
    return f"train: {loss}; {held_out}; {counts['tokens_per_second']:,.0f} tokens/s, {took}"


def check_memory(config: TrainConfig, shape: DecoderShape, device: str) -> None:
    """Refuse, before anything is allocated, what does not fit: 16 bytes a parameter, and the activations of one window.

    The parameter is held in float32 with its gradient and two moments.
    """
    states = 16 * shape.num_parameters
    activations = activation_bytes(shape, tokens=config.sequence) * 2
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else detect().memory_available_bytes
    if states + activations > free:
        raise ConfigError(
            f"{shape.num_hidden_layers:,} layers of width {shape.hidden_size:,}, {shape.num_parameters:,} parameters: "
            f"training takes {human_bytes(states + activations)}, {human_bytes(free)} are free; lower train.depth"
            + (" or take smaller weights" if config.base else "")
        )


def draw_batches(
    tokens: npt.NDArray[np.unsignedinteger], *, sequence: int, windows: int, micro_batch: int, seed: int, step: int
) -> list[MicroBatch]:
    """The micro-batches of `step`: windows of `sequence` tokens at random places, and the tokens that follow each."""
    places = np.random.default_rng([seed, step]).integers(0, len(tokens) - sequence, size=windows)
    rows = torch.from_numpy(np.stack([np.asarray(tokens[p : p + sequence + 1], dtype=np.int64) for p in places]))
    parts = [rows[begin : begin + micro_batch] for begin in range(0, windows, micro_batch)]
    return [MicroBatch(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in parts]


def _start(config: TrainConfig, vocab_size: int) -> Decoder:
    if config.base is not None:
        decoder = load_decoder(locate(config.base))
        if decoder.shape.vocab_size < vocab_size:
            raise InputError(
                f"the tokens are of a vocabulary of {vocab_size:,}, {config.base} knows {decoder.shape.vocab_size:,}; "
                "encode the documents with its tokenizer"
            )
        return decoder
    torch.manual_seed(config.seed)
    return Decoder(derive_shape(config, vocab_size=vocab_size))


def _sizes(decoder: Decoder) -> str:
    shape = decoder.shape
    return (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, {shape.num_attention_heads} heads, "
        f"{shape.num_key_value_heads} of keys, inner width {shape.intermediate_size}, vocabulary {shape.vocab_size:,}"
    )


class _Run:
    """The state of a run: where it is, and how far it goes."""

    def __init__(
        self,
        config: TrainConfig,
        decoder: Decoder,
        optimiser: torch.optim.Optimizer,
        tokens: npt.NDArray[np.unsignedinteger],
        out: Path,
        device: str,
        precision: str,
    ) -> None:
        self.config, self.decoder, self.optimiser, self.tokens, self.out = config, decoder, optimiser, tokens, out
        self.device, self.precision = device, precision
        self.step, self.seconds = 0, 0.0
        self.windows = config.batch_tokens // config.sequence
        wanted = config.tokens
        if wanted is None:
            wanted = 0 if config.base is not None and config.budget is None else self._default_tokens()
        self.num_steps = -(-wanted // config.batch_tokens)
        self._budget = parse_duration(config.budget, where="train.budget") if config.budget is not None else None
        self._checkpoint_every = parse_duration(config.checkpoint_every, where="train.checkpoint_every")

    def _default_tokens(self) -> int:
        return _TOKENS_PER_PARAMETER * self.decoder.shape.num_parameters

    @property
    def step_tokens(self) -> int:
        """Tokens of one step; `batch_tokens`, unless the budget is too short for that many."""
        return self.windows * self.config.sequence

    def fit_step(self, say: Callable[[str], None]) -> None:
        """Take fewer windows a step when the budget does not hold enough steps of the size that was asked for.

        A few windows are measured and their gradients thrown away. Few large steps learn less than many small ones
        and start without a warm-up; the rate goes with the square root of the step's size.
        """
        if self._budget is None or self.step or not self.num_steps:
            return
        seconds = self._window_seconds()
        if self.seconds + seconds < 0.02 * self._budget:  # the first one pays for everything that is done once
            seconds = self._window_seconds()
        left, asked = max(0.0, self._budget - self.seconds), self.windows
        self.windows = min(asked, max(1, int(left / seconds / _FEWEST_STEPS)))
        self.num_steps = min(self.num_steps, max(1, int(left / seconds / self.windows)))
        if self.windows < asked:
            say(
                f"train: steps have {self.step_tokens:,} instead of {self.config.batch_tokens:,} tokens, so that about "
                f"{self.num_steps:,} fit into {self.config.budget} at {self.config.sequence / seconds:,.0f} tokens/s"
            )

    def _window_seconds(self) -> float:
        started = time.monotonic()
        accumulate(self.decoder, self._batches(windows=1), device=self.device, precision=self.precision)
        self.optimiser.zero_grad(set_to_none=True)
        seconds = time.monotonic() - started
        self.seconds += seconds
        return seconds

    def _rate(self) -> float:
        asked = self.config.batch_tokens // self.config.sequence
        return rate_at(self.config, self.step, self.num_steps) * math.sqrt(self.windows / asked)

    def _batches(self, windows: int) -> list[MicroBatch]:
        config = self.config
        return draw_batches(
            self.tokens,
            sequence=config.sequence,
            windows=windows,
            micro_batch=config.micro_batch,
            seed=config.seed,
            step=self.step,
        )

    def restore(self, saved: dict[str, object]) -> None:
        if saved["config"] != _as_text(self.config):
            raise InputError(
                f"{self.out / CHECKPOINT} is of a run with other settings; delete {self.out} to start this one"
            )
        self.decoder.load_state_dict(saved["decoder"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(saved["optimiser"])  # type: ignore[arg-type]
        self.step, self.num_steps = int(saved["step"]), int(saved["num_steps"])  # type: ignore[call-overload]
        self.seconds = float(saved["seconds"])  # type: ignore[arg-type]
        self.windows = int(saved["windows"])  # type: ignore[call-overload]

    def checkpoint(self) -> None:
        write_checkpoint(
            self.out / CHECKPOINT,
            {
                "config": _as_text(self.config),
                "decoder": self.decoder.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "num_steps": self.num_steps,
                "seconds": self.seconds,
                "windows": self.windows,
                "precision": self.precision,
            },
        )

    def loop(self, stop_after: int | None) -> None:
        kept = [line for line in read_metrics(self.out / METRICS) if line["step"] < self.step]
        config, last_save = self.config, time.monotonic()
        with (
            (self.out / METRICS).open("wb") as metrics,
            Progress("train", unit="tokens", total=self.num_steps * self.step_tokens) as progress,
        ):
            for line in kept:
                _write_line(metrics, line)
            progress.done = self.step * self.step_tokens
            while self.step < self.num_steps and self.step != stop_after:
                started = time.monotonic()
                result = train_step(
                    self.decoder,
                    self.optimiser,
                    self._batches(self.windows),
                    rate=(rate := self._rate()),
                    clip=config.clip,
                    device=self.device,
                    precision=self.precision,
                )
                seconds = time.monotonic() - started
                self.step, self.seconds = self.step + 1, self.seconds + seconds
                line = {
                    "step": float(self.step - 1),
                    "loss": result.loss,
                    "rate": rate,
                    "norm": result.norm,
                    "tokens": float(self.step * self.step_tokens),
                    "tokens_per_second": round(self.step_tokens / seconds, 1),
                }
                _write_line(metrics, line)
                self._replan(progress)
                progress.advance(self.step_tokens, note=f"loss {result.loss:.3f}")
                if time.monotonic() - last_save >= self._checkpoint_every:
                    self.checkpoint()
                    last_save = time.monotonic()

    def _replan(self, progress: Progress) -> None:
        """Fit the number of steps into the budget, from the mean time of a step so far."""
        if self._budget is None or (self.step > 3 and self.step % _REPLAN_EVERY):
            return
        fits = int(self._budget / (self.seconds / self.step))
        self.num_steps = max(self.step, min(self.num_steps if self.step > 3 else fits, fits))
        progress.total = self.num_steps * self.step_tokens

    def finish(self, tokens_folder: Path) -> dict[str, int | float | str]:
        save_decoder(self.decoder, self.out, tokenizer_files_from=tokens_folder)
        metrics = read_metrics(self.out / METRICS)
        if metrics:
            draw_losses(metrics, self.out / CURVE, title=f"{self.decoder.shape.num_parameters / 1e6:.1f} M parameters")
        last = [line["loss"] for line in metrics[-20:]]
        counts: dict[str, int | float | str] = {
            "parameters": self.decoder.shape.num_parameters,
            "steps": self.step,
            "tokens": self.step * self.step_tokens,
        }
        if last:
            counts["loss"] = sum(last) / len(last)
        counts |= self._held_out(tokens_folder)
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        return counts | {
            "tokens_per_second": self.step * self.step_tokens / self.seconds if self.seconds else 0.0,
            "seconds": round(self.seconds, 1),
            "precision": self.precision,
            "device": self.device,
        }

    def _held_out(self, tokens_folder: Path) -> dict[str, int | float | str]:
        """Loss and bits per byte on held-out documents, at most some windows of each; nothing when there are none."""
        packed = PackedTokens(tokens_folder / VALIDATION_FILE)
        tokenizer, length = Tokenizer.from_file(tokens_folder / "tokenizer.json"), self.config.sequence
        chosen = list(itertools.pairwise(packed.offsets))[: self.config.evaluation_documents]
        windows = max(1, _EVALUATION_TOKENS // length // max(1, len(chosen)))
        samples: list[Sample] = []
        num_bytes = 0
        for begin, end in chosen:
            for at in range(int(begin), int(end) - 1, length)[:windows]:
                ids = packed.tokens[at : min(at + length + 1, int(end))].astype(np.int64).tolist()
                samples.append((ids, [True] * len(ids)))
                num_bytes += len(tokenizer.decode_bytes(ids[1:]))
        if not samples:
            return {}
        loss, num_targets = mean_loss(
            self.decoder, samples, length=length + 1, device=self.device, precision=self.precision
        )
        return {"validation_loss": loss, "bits_per_byte": loss * num_targets / math.log(2) / max(1, num_bytes)}


def _as_text(config: TrainConfig) -> str:
    return msgspec.json.encode(dump(config), order="sorted").decode()


def _write_line(file: BinaryIO, line: dict[str, float]) -> None:
    file.write(msgspec.json.encode(line) + b"\n")
    file.flush()
