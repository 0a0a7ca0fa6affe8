"""Floor 1, report: a machine and a plan as text for people, each number beside the formula it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from highrise.compute.machine import Machine
from highrise.compute.memory import FORMAT_BITS
from highrise.compute.plan import Plan
from highrise.core.progress import human_bytes, human_seconds

__all__ = ["describe_machine", "describe_plan"]

Row = tuple[str, str, str]


def _table(title: str, rows: Sequence[Row], *, align: str = ">") -> str:
    name = max(len(row[0]) for row in rows)
    value = max(len(row[1]) for row in rows)
    lines = [title, *(f"  {left:<{name}}  {middle:{align}{value}}  {right}".rstrip() for left, middle, right in rows)]
    return "\n".join(lines)


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.0f} TFLOP/s" if rate >= 1e13 else f"{rate / 1e9:.0f} GFLOP/s"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    days = seconds / 86_400
    return f"{days:,.1f} days" if days >= 2 else human_seconds(seconds)


def describe_machine(machine: Machine) -> str:
    """Several lines about this machine."""
    rows: list[Row] = [
        ("processor", machine.cpu, machine.architecture),
        ("cores", f"{machine.cores}", f"usable of {machine.cores_present} (affinity and control group counted)"),
        ("instruction sets", " ".join(machine.isa), ""),
        ("memory", human_bytes(machine.memory_bytes), f"{human_bytes(machine.memory_available_bytes)} available"),
        ("disk", human_bytes(machine.disk_free_bytes), "free here"),
    ]
    if machine.bandwidth is not None:
        rows.append(("memory bandwidth", f"{machine.bandwidth / 1e9:.1f} GB/s", "measured, all usable cores reading"))
    if machine.matmul_flops is not None:
        rows.append(("matrix product", _flops(machine.matmul_flops), "measured, numpy float32"))
    rows.extend(
        (
            f"gpu {gpu.index}",
            gpu.name,
            f"sm {gpu.compute_capability}, {gpu.multiprocessors} SMs, {human_bytes(gpu.memory_bytes)}",
        )
        for gpu in machine.gpus
    )
    if machine.no_gpu_reason:
        rows.append(("gpu", "none", machine.no_gpu_reason))
    return _table("This machine", rows, align="<")


def _memory_rows(plan: Plan) -> list[Row]:
    question, shape = plan.question, plan.shape
    rows: list[Row] = [
        (f"weights, {name}", human_bytes(size), f"matrices at {FORMAT_BITS[name]:g} bits, vectors at 16 or more")
        for name, size in plan.weight_bytes.items()
        if name in ("bf16", "int8", "int4", question.weights)
    ]
    rows += [
        (
            "keys and values, a token",
            f"{plan.kv_bytes_per_token:,} B",
            f"2 x {shape.num_hidden_layers} layers x {shape.num_key_value_heads} heads x {shape.head_dim} x 2 B",
        ),
        ("keys and values, served", human_bytes(plan.kv_bytes), f"{question.batch} x {question.context:,} tokens"),
        ("training state", human_bytes(plan.optimizer_bytes), "18 B a parameter: AdamW, mixed precision, not sharded"),
        (
            "activations",
            human_bytes(plan.activation_bytes),
            f"one sequence of {question.sequence:,}: layers x (8h + 4q + 4kv + 6f + 4a) + 10 x vocabulary, a token",
        ),
    ]
    return rows


def _training_rows(plan: Plan) -> list[Row]:
    question, layout, device = plan.question, plan.training, plan.device
    rows: list[Row] = []
    if layout is None:
        rows.append(
            ("layout", "none fits", f"{question.devices} x {device.title}: give more devices or a shorter --sequence")
        )
    else:
        shared = {"none": "nothing sharded", "optimizer": "optimiser sharded", "full": "fully sharded (FSDP)"}
        rows += [
            (
                "layout",
                f"DP {layout.data_parallel} x TP {layout.tensor_parallel} x PP {layout.pipeline_parallel}",
                f"{shared[layout.sharding]}, activations {'recomputed' if layout.recompute else 'kept'}",
            ),
            (
                "memory, fullest device",
                human_bytes(layout.total_bytes),
                f"of {human_bytes(device.memory_bytes - device.reserved_bytes)}: "
                f"state {human_bytes(layout.state_bytes)}, activations {human_bytes(layout.activation_bytes)}, "
                f"gathered {human_bytes(layout.gathered_bytes)}",
            ),
        ]
    if plan.training_seconds is not None and question.tokens is not None and plan.device_hours is not None:
        rows.append(
            (
                "time",
                _duration(plan.training_seconds),
                f"6 x {plan.parameters / 1e9:.3g}e9 x {question.tokens:.3g} operations / ({question.devices} x "
                f"{_flops(device.peak_16bit)} x {question.utilisation:.0%})",
            )
        )
        price = device.price_hour if question.price is None else question.price
        money = "no price known" if plan.money is None else f"${plan.money:,.0f}"
        note = "give --price" if price is None else f"{plan.device_hours:,.1f} device hours at ${price:g}"
        rows.append(("money", money, note))
    return rows


def _serving_rows(plan: Plan) -> list[Row]:
    question, layout = plan.question, plan.serving
    if layout is None:
        row = ("layout", "none fits", f"{question.devices} x {plan.device.title}: give more devices or fewer bits")
        return [row]
    step = plan.decode.seconds
    return [
        (
            "layout, one replica",
            f"TP {layout.tensor_parallel} x PP {layout.pipeline_parallel}",
            f"{human_bytes(layout.weight_bytes)} weights, {human_bytes(layout.kv_bytes)} keys and values a device; "
            f"room for {layout.max_tokens:,} tokens",
        ),
        (
            "decode, at most",
            f"{question.batch / step:,.0f} tokens/s",
            f"{_duration(step)} a step of {question.batch}, {plan.decode.limit}: "
            f"{human_bytes(plan.decode.bytes)} at {question.bandwidth_share:.0%} of the bandwidth",
        ),
        (
            "prefill, at least",
            _duration(plan.prefill.seconds),
            f"{question.context:,} tokens, {plan.prefill.limit}: {plan.prefill.flops:.3g} operations at "
            f"{question.prefill_share:.0%} of the peak",
        ),
    ]


def describe_plan(plan: Plan) -> str:
    """Four short tables: memory, training, serving, and where the device's figures come from."""
    device, question = plan.device, plan.question
    head = (
        f"{plan.model}: {plan.parameters:,} parameters ({plan.active_parameters:,} multiplied a token)\n"
        f"{question.devices} x {device.title}: {_flops(device.peak_16bit)}, {human_bytes(device.memory_bytes)} at "
        f"{device.bandwidth / 1e9:,.1f} GB/s, scale-up domain of {device.scale_up_devices}"
    )
    blocks = [
        head,
        _table("Memory", _memory_rows(plan)),
        _table("Training", _training_rows(plan)),
        _table(f"Serving, {question.weights} weights", _serving_rows(plan)),
        "Bounds from peak and bandwidth at the stated shares, not measurements; communication is not counted.",
        "\n".join(f"source: {source}" for source in device.sources),
    ]
    return "\n\n".join(blocks)
