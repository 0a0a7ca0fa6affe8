"""The commands of floor `serve`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("serve",),
        help="floor 6: run one model, or several, over the OpenAI protocol until Ctrl-C",
        example="highrise serve smollm2-135m --port 8080 --threads 2 --weights int4",
        run="highrise.serve.cli:serve",
        arguments=(
            Argument(names=("model",), help="a name of the catalogue, a GGUF file, or a folder with safetensors"),
            Argument(
                names=("--model",),
                help="models beside it, each with its share of threads and memory; requests ask for one by its name",
                nargs="+",
                default=(),
                metavar="NAME=PATH",
                dest="models",
            ),
            Argument(names=("--host",), help="address to listen on (127.0.0.1)", default="127.0.0.1"),
            Argument(
                names=("--port",), help="port to listen on, 0 lets the system choose (8080)", type=int, default=8080
            ),
            Argument(names=("--threads",), help="threads of the kernels (the physical cores)", type=int, metavar="N"),
            Argument(
                names=("--weights",),
                help="keep the stored bits, or quantise again at load (stored)",
                choices=("stored", "int8", "int4"),
                default="stored",
            ),
            Argument(
                names=("--kernels",),
                help=(
                    "instruction set: auto, portable, avx2, avx512, avx512vnni, amx. With any but amx (which auto "
                    "takes where there is one) tokens do not depend on what else is in the batch. llama-avx512 and "
                    "llama-avx2 keep llama.cpp's order of operations, to compare with it (auto)"
                ),
                default="auto",
            ),
            Argument(
                names=("--adapter",),
                help="a LoRA adapter in PEFT's format that all requests run under that name no other",
                metavar="FOLDER",
            ),
            Argument(
                names=("--lora-modules",),
                help="LoRA adapters beside the model; requests ask for one by its name as the model",
                nargs="+",
                default=(),
                metavar="NAME=PATH",
            ),
            Argument(
                names=("--allow-runtime-lora-updating",),
                flag=True,
                help="offer /v1/load_lora_adapter and /v1/unload_lora_adapter, which read folders of this machine",
            ),
            Argument(
                names=("--draft-model",),
                help="a smaller model of the same vocabulary that guesses ahead; answers stay the same",
                metavar="MODEL",
            ),
            Argument(names=("--embedder",), help="an embedding model for /v1/embeddings, such as minilm-l6"),
            Argument(
                names=("--kv-cache-dtype",),
                help="keys and values in the pages: auto (fp16), fp32, or int8, which is little more than half of fp16",
                choices=("auto", "fp16", "fp32", "int8"),
                default="auto",
            ),
            Argument(
                names=("--cache-memory",),
                help='memory of the pages, such as "2 GB" (a quarter of what is free, at most 512 MB)',
                metavar="SIZE",
            ),
            Argument(names=("--max-context",), help="longest prompt plus answer in tokens", type=int, metavar="N"),
            Argument(
                names=("--max-running",),
                help="requests computed at the same time (16)",
                type=int,
                default=16,
                metavar="N",
            ),
            Argument(
                names=("--step-tokens",),
                help="most tokens of one step, prompts and answers together (128)",
                type=int,
                default=128,
                metavar="N",
            ),
            Argument(
                names=("--engine",),
                help="run the engine in a process of its own, started again when it dies, or in a thread (process)",
                choices=("process", "thread"),
                default="process",
            ),
            Argument(
                names=("--max-waiting",),
                help="requests held at a time, more get 429 (256)",
                type=int,
                default=256,
                metavar="N",
            ),
            Argument(names=("--answer-timeout",), help='longest time of one answer, such as "10 min" (none)'),
            Argument(
                names=("--step-timeout",),
                help="an engine process whose step takes longer is killed and started again (5 min)",
                default="5 min",
            ),
            Argument(names=("--drain",), help="time for requests in flight at SIGTERM (30 s)", default="30 s"),
            Argument(
                names=("--log-format",),
                help="one line a request on the standard output (none)",
                choices=("none", "text", "json"),
                default="none",
            ),
            Argument(
                names=("--otlp-traces-endpoint",),
                help="send OpenTelemetry spans there, such as http://localhost:4318 (OTEL_EXPORTER_OTLP_ENDPOINT)",
                metavar="URL",
            ),
            Argument(names=("--name",), help="the name in /v1/models (the model's own)"),
        ),
    ),
    Command(
        path=("quantise",),
        help="write a GGUF file with its matrices at 4 or 8 bits, and say what that costs in perplexity",
        example="highrise quantise qwen2.5-coder-0.5b coder-int4.gguf --method gptq --calibration src",
        run="highrise.serve.quantise_cli:quantise",
        arguments=(
            Argument(names=("model",), help="a name of the catalogue or a GGUF file"),
            Argument(names=("out",), help="the file to write; it appears only when it is whole"),
            Argument(
                names=("--weights",),
                help=(
                    "the matrices of the layers: 4 bits with a scale and a minimum per 32, 4 bits with a scale, which "
                    "are less exact and decode faster, or 8 bits (int4)"
                ),
                choices=("int4", "int4-symmetric", "int8"),
                default="int4",
            ),
            Argument(
                names=("--head",),
                help="the same for the head, and for the embedding where that is the head (int8)",
                choices=("int4", "int4-symmetric", "int8"),
                default="int8",
            ),
            Argument(
                names=("--method",),
                help=(
                    "without a text: the extremes of 32 weights are codes (round), a search for the least squared "
                    "error (clip), a minimum that leaves few weights far off (hqq); over a text: columns scaled by "
                    "their inputs (awq), later columns make up for errors (gptq), both (awq-gptq). (clip)"
                ),
                choices=("round", "clip", "hqq", "awq", "gptq", "awq-gptq"),
                default="clip",
            ),
            Argument(
                names=("--calibration",),
                help="files and folders of text like that which the model will see; every tenth file is held out",
                nargs="+",
                metavar="PATH",
            ),
            Argument(
                names=("--calibration-tokens",),
                help="tokens of it that go through the model (16384)",
                type=int,
                default=16_384,
                metavar="N",
            ),
            Argument(
                names=("--text",),
                help="text to measure the perplexity on, before and after (what was held out)",
                nargs="+",
                metavar="PATH",
            ),
            Argument(names=("--no-measure",), flag=True, help="measure no perplexity"),
            Argument(names=("--threads",), help="threads of the kernels (the physical cores)", type=int, metavar="N"),
            Argument(names=("--kernels",), help="instruction set of the kernels (auto)", default="auto"),
            Argument(names=("--json",), flag=True, help="print the figures as JSON"),
        ),
    ),
    Command(
        path=("bench", "serve"),
        help="load a model or a server as people do, and print what they feel: first token, gaps, throughput",
        example="highrise bench serve smollm2-135m --rates all,0.5,1,2 --requests 32 --plot load.svg",
        run="highrise.serve.load_cli:bench",
        arguments=(
            Argument(
                names=("target",), help="a model to run in this process, or the URL of an OpenAI-compatible server"
            ),
            Argument(
                names=("--rates",),
                help="requests a second, each a run of its own; all sends everything at once (all,1)",
                default="all,1",
            ),
            Argument(names=("--requests",), help="requests a run (32)", type=int, default=32, metavar="N"),
            Argument(
                names=("--prompt-tokens",), help="mean length of a prompt (256)", type=int, default=256, metavar="N"
            ),
            Argument(
                names=("--answer-tokens",), help="mean length of an answer (32)", type=int, default=32, metavar="N"
            ),
            Argument(
                names=("--shared",), help="share of prompts with one common beginning (0.5)", type=float, default=0.5
            ),
            Argument(
                names=("--typing",),
                help="share of requests that are typing: short and urgent (0.25)",
                type=float,
                default=0.25,
            ),
            Argument(names=("--source",), help="folder of Python files to cut prompts from (Highrise's own)"),
            Argument(names=("--seed",), help="of prompts, lengths and arrivals (0)", type=int, default=0),
            Argument(names=("--model",), help="name to ask a server for (its first)"),
            Argument(
                names=("--weights",),
                help="of a model in this process: stored, int8 or int4 (int4)",
                choices=("stored", "int8", "int4"),
                default="int4",
            ),
            Argument(names=("--threads",), help="threads of the kernels (the physical cores)", type=int, metavar="N"),
            Argument(names=("--kernels",), help="instruction set of the kernels (auto)", default="auto"),
            Argument(names=("--json",), flag=True, help="print the reports as JSON, the table to standard error"),
            Argument(names=("--plot",), help="write the latencies over the rate as an SVG file", metavar="FILE"),
        ),
    ),
)
