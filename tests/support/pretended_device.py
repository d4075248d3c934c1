"""A GPU that is not there: tensors on the CPU of which some claim to be on "cuda", under the rules that torch has.

    with pretended_gpu():
        model.to("cuda")(torch.ones(2, 3))        # RuntimeError: two devices

Values are real, so a whole stage runs and learns. Every call of torch is seen before it is made: its tensors must be
on one device, but for what torch allows (numbers of 0 dimensions on the CPU, copies, a CPU index into a GPU tensor);
what a GPU tensor refuses (`numpy()`) is refused. The backward pass computes on the CPU and is not looked at: its
devices follow from the forward pass.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
FACTORIES = {
    "tensor",
    "as_tensor",
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "rand",
    "randn",
    "randint",
    "randperm",
    "linspace",
    "eye",
    "scalar_tensor",
    "from_numpy",
    "frombuffer",
    "tril_indices",
    "triu_indices",
    "normal",
    "empty_strided",
}
COPIES = {
    "copy_",
    "to",
    "cpu",
    "cuda",
    "type",
    "set_",
    "__deepcopy__",
    "_has_compatible_shallow_copy_type",
}
STRICT = {
    "cat",
    "stack",
    "concat",
    "index_select",
    "gather",
    "embedding",
    "linear",
    "matmul",
    "cross_entropy",
    "scatter",
    "scatter_",
    "index_add",
    "index_add_",
    "masked_scatter",
    "scaled_dot_product_attention",
    "addmm",
    "bmm",
    "mm",
}
"""Calls that take no number from the CPU in a tensor's place."""
REFUSED = {"numpy", "__array__"}
GETTERS = {"device", "is_cuda", "is_cpu"}


class _PretendedGpu(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # by identity, for tensors compare element by element; what is not among them is on the CPU
        self._on_gpu: dict[int, weakref.ref] = {}

    def is_on_gpu(self, tensor: Tensor) -> bool:
        found = self._on_gpu.get(id(tensor))
        return found is not None and found() is tensor

    def mark(self, tensor: Tensor, device: torch.device) -> Tensor:
        if device.type == "cuda":
            self._on_gpu[id(tensor)] = weakref.ref(tensor)
        else:
            self._on_gpu.pop(id(tensor), None)
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = _name_of(func), dict(kwargs or {})
        if name in GETTERS and _is_getter(func):
            on_gpu = {"device": GPU, "is_cuda": True, "is_cpu": False}
            return on_gpu[name] if self.is_on_gpu(args[0]) else func(*args)
        if name == "data" and func.__name__ == "__set__":
            self.mark(args[0], GPU if self.is_on_gpu(args[1]) else CPU)
            return func(*args)
        tensors = [*_tensors_in(args), *_tensors_in(kwargs.values())]
        where = self._check(name, args, tensors)
        if name in REFUSED and where is GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return self._call(func, name, args, kwargs, where)

    def _check(self, name: str, args: tuple, tensors: list[Tensor]) -> torch.device:
        """-> the device of a call's result; RuntimeError for a call that torch would refuse."""
        on_gpu = [tensor for tensor in tensors if self.is_on_gpu(tensor)]
        on_cpu = [tensor for tensor in tensors if not self.is_on_gpu(tensor)]
        if not on_gpu:
            return CPU
        first_on_gpu = isinstance(args[0], Tensor) and self.is_on_gpu(args[0]) if args else False
        if name in COPIES:
            return GPU if first_on_gpu else CPU
        if name in ("__getitem__", "__setitem__", "index_put_") and first_on_gpu:
            on_cpu = [value for value in args[2:] if isinstance(value, Tensor) and not self.is_on_gpu(value)]
        wrong = [tensor for tensor in on_cpu if tensor.dim() or name in STRICT]
        if wrong:
            shapes = [tuple(tensor.shape) for tensor in wrong]
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but got {name} of cuda:0 and of cpu {shapes}"
            )
        return GPU

    def _call(self, func: Any, name: str, args: tuple, kwargs: dict, where: torch.device) -> Any:
        device = _device_asked(name, args, kwargs)
        if name in ("to", "cuda", "cpu", "type") and isinstance(args[0], Tensor):
            return self._move(func, name, args, kwargs, device)
        if "device" in kwargs and kwargs["device"] is not None:
            device = torch.device(kwargs["device"])
            kwargs["device"] = CPU if device.type == "cuda" else device
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type != device.type:
                raise RuntimeError(f"Expected a '{device.type}' device type for generator")
        result = func(*args, **kwargs)
        if device is None:
            device = CPU if name in FACTORIES else where
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place and args and result is args[0]:
            return result
        for tensor in _tensors_in((result,)):
            self.mark(tensor, device)
        return result

    def _move(self, func: Any, name: str, args: tuple, kwargs: dict, device: torch.device | None) -> Tensor:
        """`.to` and its like: to another device it is a copy, as it is in life."""
        before = GPU if self.is_on_gpu(args[0]) else CPU
        if name == "to" and any(isinstance(arg, Tensor) for arg in args[1:]):
            device = GPU if self.is_on_gpu(args[1]) else CPU
        device = device or before
        if name in ("cuda", "cpu"):
            result = args[0]
        else:
            rest = [CPU if _is_device(arg) and torch.device(arg).type == "cuda" else arg for arg in args[1:]]
            if device.type == "cuda" and "device" in kwargs:
                kwargs["device"] = CPU
            result = func(args[0], *rest, **kwargs)
        if device.type != before.type and result is args[0]:
            result = result.clone()
        return self.mark(result, device) if result is not args[0] else result


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Arguments or results of a call -> their tensors; torch takes and gives no deeper containers than these."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)
        elif isinstance(value, dict):
            yield from _tensors_in(value.values())


def _name_of(func: Any) -> str:
    if _is_getter(func) or getattr(func, "__name__", "") == "__set__":
        return func.__self__.__name__
    return getattr(func, "__name__", str(func))


def _is_getter(func: Any) -> bool:
    return getattr(func, "__name__", "") == "__get__"


def _is_device(value: Any) -> bool:
    names = ("cpu", "cuda", "meta")
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in names)


def _device_asked(name: str, args: tuple, kwargs: dict) -> torch.device | None:
    """Arguments of a call -> the device that they name, if they do."""
    if name in ("cuda", "cpu"):
        return GPU if name == "cuda" else CPU
    named = kwargs.get("device")
    if named is None and name == "to":
        named = next((arg for arg in args[1:] if _is_device(arg)), None)
    return None if named is None else torch.device(named)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within it torch has one GPU."""
    original = PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: Any, *args: Any, device_map: Any = None, **kwargs: Any) -> Any:
        # weights are read in threads of their own, which the mode does not see: they are moved when all are there
        model = original(cls, *args, **kwargs)
        return model if device_map is None else model.to(device_map[""])

    make_subclass = torch.Tensor._make_subclass

    def make_parameter(cls: Any, data: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return mode.mark(make_subclass(cls, data, *args, **kwargs), GPU if mode.is_on_gpu(data) else CPU)

    with pytest.MonkeyPatch.context() as patch, _PretendedGpu() as mode:
        patch.setattr(torch.Tensor, "_make_subclass", staticmethod(make_parameter))  # no call that a mode sees
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)  # one generator draws for both
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # a CUDA build asks the driver
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (80 * 10**9, 80 * 10**9))
        patch.setattr(PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
        yield
