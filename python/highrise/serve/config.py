"""Floor 6, configuration: the keys of `[serve]` in an assistant file. Knows no engine; None is derived and printed."""

from __future__ import annotations

from typing import Literal

import msgspec

from highrise.core.config import Config, parse_duration, parse_size
from highrise.core.cores import MAX_THREADS
from highrise.core.errors import ConfigError

__all__ = ["ServeConfig"]


class ServeConfig(Config, frozen=True, kw_only=True):
    """How to run a model and where to listen."""

    weights: Literal["stored", "int8", "int4"] = "int4"
    """"stored" keeps the bits of the file; "int8" and "int4" quantise again at load."""
    kernels: str = "auto"
    """Instruction set: auto, portable, avx2, avx512, avx512vnni or amx. Or llama.cpp's order of operations, to get the
    same bits as it from a stored GGUF file, slowly: llama-avx512 or llama-avx2, as its build for this CPU has it."""
    engine: Literal["process", "thread"] = "process"
    """Where the engine runs: a process of its own, which is started again when it dies, or a thread of the server."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 lets the system choose."""
    threads: int | None = None
    """Threads of the kernels; None takes the physical cores of this machine."""
    max_context: int | None = None
    """Longest prompt plus answer in tokens; None takes what the model and the memory allow."""
    kv_cache_dtype: Literal["auto", "fp16", "fp32", "int8"] = "auto"
    """How keys and values are kept in the pages: half precision (auto), or 8 bits in little more than half of that."""
    cache_memory: str | None = None
    """Memory of the page pool, such as "512 MB"; None derives it from the free memory."""
    step_tokens: int = 128
    """At most this many tokens are computed in one step, prompts and answers together."""
    max_running: int = 16
    """Requests computed at the same time."""
    max_waiting: int = 256
    """Requests that may wait; more are refused with 429."""
    answer_timeout: str | None = None
    """Longest time of one answer, such as "10 min": it then ends as it is. None sets no limit."""
    step_timeout: str = "5 min"
    """An engine process whose step takes longer is killed and started again; the requests it had are told so."""
    drain: str = "30 s"
    """At SIGTERM new requests are refused, and those in flight may take so long to finish."""
    log_format: Literal["none", "text", "json"] = "none"
    """One line a request on the standard output; never with a word of a prompt or an answer."""
    draft_model: str | None = None
    """A smaller model of the same vocabulary that guesses ahead where nothing can be looked up; no token changes."""
    otlp_traces_endpoint: str | None = None
    """Where OpenTelemetry spans go over HTTP, such as "http://localhost:4318"; None leaves it to OpenTelemetry's own
    variables, and without them nothing is traced."""
    models: dict[str, str] = msgspec.field(default_factory=dict)
    """Models beside the first, by the name under which requests ask for them: a name of the catalogue, a file or a
    folder. Threads and page memory are shared out evenly."""
    lora_modules: dict[str, str] = msgspec.field(default_factory=dict)
    """LoRA adapters in PEFT's format by the name under which requests ask for them as `model`: name and folder."""
    allow_runtime_lora_updating: bool = False
    """Whether /v1/load_lora_adapter and /v1/unload_lora_adapter exist; whoever calls them names folders to read."""
    upstream: str | None = None
    """Base URL of an OpenAI-compatible server to use in place of the own engine."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; it must be between 0 and 65535")
        for name in ("step_tokens", "max_running", "max_waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("threads", "max_context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1, or left out to be derived")
        if self.threads is not None and self.threads > MAX_THREADS:
            raise ConfigError(f"threads is {self.threads}; it may be at most {MAX_THREADS}")
        for name, folder in self.lora_modules.items():
            if not name or not folder:
                raise ConfigError(f'lora_modules has "{name}" = "{folder}"; both the name and the folder must be given')
        for name, model in self.models.items():
            if not name or not model:
                raise ConfigError(f'models has "{name}" = "{model}"; both the name and the model must be given')
        for name in ("answer_timeout", "step_timeout", "drain"):
            if getattr(self, name) is not None:
                parse_duration(getattr(self, name), where=f"serve.{name}")
        if self.cache_memory is not None:
            parse_size(self.cache_memory, where="serve.cache_memory")

    @property
    def answer_seconds(self) -> float | None:
        """`answer_timeout` in seconds."""
        return (
            None if self.answer_timeout is None else parse_duration(self.answer_timeout, where="serve.answer_timeout")
        )

    @property
    def step_seconds(self) -> float:
        """`step_timeout` in seconds."""
        return parse_duration(self.step_timeout, where="serve.step_timeout")

    @property
    def drain_seconds(self) -> float:
        """`drain` in seconds."""
        return parse_duration(self.drain, where="serve.drain")
