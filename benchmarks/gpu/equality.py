"""Parts that compare the results of a GPU with those of the CPU, and of a graph with those of eager calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu.device import Device, counted, different, name_of
from side_by_side import Row
from torch import Tensor

from dropkit import functional, kernels, random
from dropkit.kernels.key import HIGHEST, LOWEST
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import inverted

DTYPES = sorted(kernels.FLOATS, key=str)


def masks(device: Device) -> Iterator[Row]:
    """Are masks and noise those of the CPU?

    Dropout of elements, dropout of channels, alpha dropout and noise of contiguous, channels-last and transposed
    tensors; dropout from mask elements on whose numbers need more than 32 bits, and the end of a tensor that needs
    them for its elements.
    """
    size = device.size
    layouts = (
        torch.ones(size(1000), size(4099)),
        torch.ones(8, 32, 17, 19).to(memory_format=torch.channels_last),
        torch.ones(300, size(700)).t(),
    )
    dropouts = functional.dropout, by_channel, functional.alpha_dropout
    noises = functional.gaussian_dropout, functional.gaussian_noise
    for what, layers in (("dropout", dropouts), ("noise", noises)):
        for dtype in DTYPES:
            yield different(
                f"{what}, {name_of(dtype)}: values that differ",
                (
                    (layer(x.to(dtype), 0.3, key=11), layer(x.to(device.type, dtype), 0.3, key=11))
                    for layer in layers
                    for x in layouts
                ),
            )
    for base in (2**32 - 64, 2**40):
        mask = Mask(5, inverted(0.3), (1,), base)
        yield different(
            f"dropout from mask element {base} on: values that differ",
            iter([tuple(dropped(torch.ones(size(2**20), device=place), mask) for place in ("cpu", device.type))]),
        )

    whole = functional.dropout(torch.ones(size(2**31 + 5), device=device.type, dtype=torch.float16), 0.3, key=5)
    end = torch.ones(size(2**20), dtype=torch.float16)
    mask = Mask(5, inverted(0.3), (1,), len(whole) - len(end))
    yield different(
        "dropout of 2**31 + 5 elements: last values that differ", iter([(dropped(end, mask), whole[-len(end) :])])
    )


def by_channel(x: Tensor, p: float, key: int) -> Tensor:
    return functional.dropout1d(x.reshape(x.shape[0], 1, -1), p, key=key)


def dropped(input: Tensor, mask: Mask) -> Tensor:
    output = torch.empty_like(input)
    kernels.drop(output, input, mask)
    return output


def values(device: Device) -> Iterator[Row]:
    """Are the results of unusual calls and of fused functions those of the CPU?

    Unaligned, short, sliced and in-place calls on numbers, infinities and NaN are compared bit for bit, and calls on a
    stream whose work before them takes longer than launching them. The fused
    functions sum in another order: their row has the largest error of results and gradients relative to the largest
    value, for rows of 5 to 16,384 columns.
    """
    for dtype in DTYPES:
        x = torch.randn(70_001).to(dtype)
        x[::97], x[5::89] = torch.nan, torch.inf
        there = x.to(device.type)
        yield different(
            f"unusual calls, {name_of(dtype)}: values that differ",
            ((call(x), call(there)) for call in UNUSUAL),
        )
    x = torch.randn(70_001)
    there = x.to(device.type)
    device.wait()
    with device.slow_stream():
        late = torch.empty_like(there).copy_(there).requires_grad_()
        output = functional.dropout(late, 0.3, key=3)
        (gradient,) = torch.autograd.grad(output, late, late.detach())
    device.wait()
    expected = functional.dropout(x, 0.3, key=3)
    yield different("another stream: values that differ", iter([(expected, output.detach()), (expected, gradient)]))
    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.004)):
        for name, call in FUSED.items():
            worst = 0.0
            for columns in (5, 64, 1000, 4096, 16384)[: device.times(5)]:
                here, there = (outputs_and_gradients(call, columns, dtype, place) for place in ("cpu", device.type))
                worst = max(worst, *map(relative_error, here, there))
            yield counted(f"{name}, {name_of(dtype)}: largest error", worst, "", f"<= {allowed:g}")


UNUSUAL: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: functional.dropout(x[1:], 0.3, key=3),
    lambda x: functional.dropout(x[5:6], 0.3, key=3),
    lambda x: functional.dropout(x[1:16], 0.3, key=3),
    lambda x: functional.dropout(x[:70_000].view(100, 700)[:, 1:650], 0.3, key=3),
    lambda x: functional.dropout(x.clone(), 0.3, inplace=True, key=3),
    lambda x: functional.dropout(x[:0], 0.3, key=3),
    lambda x: functional.dropout(x, 1.0, key=3),
    lambda x: functional.dropout_add(x, x.flip(0), 0.3, key=3),
)
FUSED: dict[str, Callable[..., Any]] = {
    "dropout_add_norm, layer": lambda x, r, w, b: functional.dropout_add_norm(x, r, w, b, 0.3, key=5)[0],
    "dropout_add_norm, rms": lambda x, r, w, b: functional.dropout_add_norm(
        x, r, w, None, 0.3, norm="rms", row_scale=torch.linspace(0, 2, len(x)).to(x), key=5
    )[0],
    "bias_act_dropout_add": lambda x, r, w, b: functional.bias_act_dropout_add(x, b, r, 0.3, key=5),
}


def outputs_and_gradients(call: Callable[..., Tensor], columns: int, dtype: torch.dtype, place: str) -> list[Tensor]:
    """Return the output, and the gradient of each input that has one."""
    generator = torch.Generator().manual_seed(columns)
    shapes = ((37, columns), (37, columns), (columns,), (columns,), (37, columns))
    *inputs, upstream = (torch.randn(shape, generator=generator).to(place, dtype) for shape in shapes)
    for input in inputs:
        input.requires_grad_()
    output = call(*inputs)
    gradients = torch.autograd.grad(output, inputs, upstream, allow_unused=True)
    return [output.detach(), *(gradient for gradient in gradients if gradient is not None)]


def relative_error(here: Tensor, there: Tensor) -> float:
    """The largest error relative to the largest value; NaN counts as infinity."""
    here, there = here.double(), there.cpu().double()
    error = (here - there).abs().max() / here.abs().max().clamp(min=1e-9)
    return float(error.nan_to_num(torch.inf))


def keys(device: Device) -> Iterator[Row]:
    """Are keys those that torch's generator draws?

    Keys that dropout calls draw one after the other, on the host, are compared with `torch.randint` on the device from
    the same state of the generator, in bits and in the state that follows: so seeds and restored states keep their
    masks.
    """
    count, x = device.times(1000), torch.empty(1, device=device.type)
    for what, seed, offset in (("seed 0", 0, 0), ("seed 2**64 - 1", 2**64 - 1, 0), ("offset 2**40 + 4", 5, 2**40 + 4)):
        ours, theirs = (
            drawn(device, seed, offset, count, draw)
            for draw in (
                lambda: random.choose_key(None, None, x, 0.5),
                lambda: torch.randint(LOWEST, HIGHEST, (), device=device.type),
            )
        )
        yield different(f"{what}: keys and numbers of the state that differ", iter(zip(ours, theirs, strict=True)))


def drawn(device: Device, seed: int, offset: int, count: int, draw: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """Return keys that are drawn from a seed, on a GPU from this offset on, and the generator's state afterwards."""
    torch.manual_seed(seed)
    if device.is_gpu:
        torch.cuda.default_generators[torch.cuda.current_device()].set_offset(offset)
    drawn = torch.tensor([int(draw()) for _ in range(count)])
    return drawn, torch.cuda.get_rng_state() if device.is_gpu else torch.get_rng_state()


def graphs(device: Device) -> Iterator[Row]:
    """Does every replay of a CUDA graph draw a new mask, that of the eager call?

    100 replays of `dropout` and 100 eager calls, both from the same seed.
    """
    yield from replays(device, 0.5)


def graphs_of_tensor_rates(device: Device) -> Iterator[Row]:
    """Can the rate of a CUDA graph be a tensor on the device?

    The same with a tensor as `p`, which is captured at 0.5; then the tensor is filled with another rate, and the same
    graph is replayed.
    """
    p = torch.tensor(0.25, device=device.type)
    yield from replays(device, p)
    p.fill_(0.75)
    yield from replays(device, p)


def replays(device: Device, p: float | Tensor) -> Iterator[Row]:
    x = torch.ones(2**16 if device.is_gpu else 256, device=device.type)
    y = torch.empty_like(x)

    def work() -> None:
        y.copy_(functional.dropout(x, p))

    replay, count = device.replayed(work), device.times(100)
    torch.manual_seed(3)
    replayed = [y.clone() for _ in range(count) if replay() or True]
    torch.manual_seed(3)
    eager = [functional.dropout(x, p) for _ in range(count)]
    rate = f"p = {float(p):g}"
    yield counted(f"{rate}: different masks", len({tuple(y[:256].tolist()) for y in replayed}), count, f">= {count}")
    yield different(f"{rate}: values that differ from eager calls", iter(zip(replayed, eager, strict=True)))
