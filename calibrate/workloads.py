"""Steps made ready to run: the network built, its batch drawn, and what is done before and after the ranks talk.

Like a stage set behind the curtain: :mod:`calibrate.steps` only has to raise it and look at the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from calibrate.microbenchmarks.group import Group
from calibrate.step_suite import Step


@dataclass(frozen=True, slots=True)
class Running:
    """A step ready to run: what each rank computes before and after it talks to the others."""

    device: str
    before: Callable[[], Any]
    exchange: Callable[[], Any] | None
    after: Callable[[], Any] | None

    def once(self) -> None:
        """One step."""
        self.before()
        if self.exchange is not None:
            self.exchange()
        if self.after is not None:
            self.after()


def make(torch: Any, step: Step, device: str, group: Group | None) -> Running:
    """A step of the list, its network built and its data drawn.

    Raises:
        RuntimeError: the device refuses (memory, a number format).
    """
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = step.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = step.precision == "tf32"
    if step.workload in ("prefill", "decode"):
        return _serving(torch, step, device)
    loss, dense, sparse = _network(torch, step, device)
    return _training(torch, step, device, group, loss, dense, sparse)


def _mixed(torch: Any, step: Step, device: str) -> AbstractContextManager[Any]:
    formats = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if step.precision not in formats:
        return nullcontext()
    mixed: AbstractContextManager[Any] = torch.autocast(
        device.partition(":")[0], dtype=formats[step.precision]
    )
    return mixed


@contextmanager
def _default_format(torch: Any, kind: Any) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _network(torch: Any, step: Step, device: str) -> tuple[Callable[[], Any], list[Any], list[Any]]:
    """(loss of a fixed batch, dense parameters, tables) of a training step."""
    from calibrate import networks

    if step.workload == "decoder":
        shape = networks.Shape(
            step.hidden, step.heads, step.kv_heads, step.ffn_hidden, step.experts, step.topk
        )
        stream = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(step.precision)
        again = step.recompute == "full"
        with torch.device(
            device
        ):  # built where it runs: drawing billions of numbers on the host takes minutes
            model = networks.Decoder(shape, step.layers, step.vocab, recompute=again, stream=stream)
        words = torch.randint(0, step.vocab, (step.micro_batch, step.seq_len + 1), device=device)
        return lambda: model.loss(words), list(model.parameters()), []
    if step.workload == "cnn":
        with torch.device(device):
            net = networks.ResNet50()
        images = torch.randn(step.micro_batch, 3, 224, 224, device=device)
        labels = torch.randint(0, 1000, (step.micro_batch,), device=device)
        return lambda: net.loss(images, labels), list(net.parameters()), []
    one = step.recommender
    with torch.device(device):
        rec = networks.Recommender(one.tables, one.rows, one.dim, one.bottom, one.top)
    indices = torch.randint(0, one.rows, (8, one.tables, step.micro_batch, one.lookups), device=device)
    features = torch.randn(step.micro_batch, one.bottom[0], device=device)
    clicks = torch.randint(0, 2, (step.micro_batch,), device=device).float()
    turn = iter(range(1 << 62))
    tables = list(rec.tables.parameters())
    dense = [*rec.bottom.parameters(), *rec.top.parameters()]
    return lambda: rec.loss(features, indices[next(turn) % 8], clicks), dense, tables


def _training(
    torch: Any,
    step: Step,
    device: str,
    group: Group | None,
    loss: Callable[[], Any],
    dense: list[Any],
    tables: list[Any],
) -> Running:
    """Forward, backward, one all-reduce of all gradients, update."""
    from calibrate import networks

    gradients = networks.FlatGradients(dense)
    optimizer = networks.adam(dense)

    def before() -> None:
        with _mixed(torch, step, device):
            value = loss()
        value.backward()
        for table in tables:  # the sparse update goes with the look-ups
            with torch.no_grad():
                table.add_(table.grad, alpha=-1e-3)
            table.grad = None

    def after() -> None:
        optimizer.step()
        gradients.clear()

    def exchange() -> None:
        torch.distributed.all_reduce(gradients.values)
        gradients.values.div_(step.ranks)

    return Running(device, before, exchange if group is not None else None, after)


def _serving(torch: Any, step: Step, device: str) -> Running:
    """A prefill of whole prompts, or one token for each sequence of a batch with a full cache."""
    from calibrate import networks

    shape = networks.Shape(step.hidden, step.heads, step.kv_heads, step.ffn_hidden)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(step.precision, torch.float32)
    with torch.device(device), _default_format(torch, kind):  # never held in fp32, which might not fit
        model = networks.Decoder(shape, step.layers, step.vocab).eval()
    length = 1 if step.workload == "decode" else step.seq_len
    words = torch.randint(0, step.vocab, (step.micro_batch, length), device=device)
    kept = None
    if step.workload == "decode":
        kept = networks.caches(shape, step.layers, step.micro_batch, step.seq_len, device, kind)

    def before() -> None:
        with torch.inference_mode():
            model.serve(words, kept)

    return Running(device, before, None, None)
