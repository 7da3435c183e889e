"""Models larger than a device: their parameters, or their neurons, spread over processes."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch.distributed as dist
from torch import Tensor, nn

from neuroconv.core.checks import check_choice
from neuroconv.core.shares import NeuronShare, share_of
from neuroconv.kernels.cache import FilterCache
from neuroconv.layers.soma import GatheredRate
from neuroconv.neurons import GranuleConv2d
from neuroconv.neurons.population import Population
from neuroconv.training.checkpoint import save_tensors, save_weights
from neuroconv.training.device import choose_device
from neuroconv.training.distributed import Ranks, broadcast, is_sharded
from neuroconv.zoo.circuit import GranularLayer

Split = Literal["none", "neurons"]
_UNITS = (GranularLayer, Population, GranuleConv2d)
_LARGE = 1 << 20  # weights of a linear layer that is a unit of its own
# What of a population has rows for each neuron.
_STAGES = ("synapses", "threshold_norm", "dendrites", "dendritic_norm", "soma_norm", "bias")


def shard(
    model: nn.Module | Callable[[], nn.Module], *, split: Split = "none", device: str = "auto"
) -> nn.Module:
    """Spreads a model over the processes of torch.distributed; in one process it is left as it is.

    All processes must call this, from the same state of their generators. Make the optimiser of the
    result's parameters, and clip by `clip_gradients`. The gradient is that of the mean of all
    processes' losses.

    split="none": each holds a part of every parameter, its gradient and the optimiser's state, by
    torch's `fully_shard`, and takes its part of a batch. A population, a granular layer, an image
    layer or a large linear layer is whole while it runs; buffers, as wiring, always are.

    split="neurons": each process holds, and computes for the whole batch, its equal part of the
    neurons of every population whose number the processes divide; the rates alone are gathered.
    The rest of the model is whole in each.

    Args:
        model: a model, which is changed; or a function that builds it, which for split="neurons"
            never builds a population whole: each process draws the weights that its neurons have in
            the whole model, on the CPU to the bit.
        device: where `fully_shard` puts its parts: "auto" is CUDA if there is one, else the CPU.

    Raises:
        ValueError: no population can be split, or not a stage of one; `fully_shard` does not take a
            parameter, as a scalar.
    """
    check_choice("split", split, get_args(Split))
    ranks = Ranks.current()
    rank, size = (ranks.rank, ranks.size) if split == "neurons" else (0, 1)
    if not isinstance(model, nn.Module):
        with share_of(0, rank, size):
            model = model()
    elif ranks.size > 1:
        broadcast(model.state_dict(keep_vars=True).values())
    if size > 1:
        split_neurons(model, rank, size)
    elif ranks.size > 1:
        _shard_parameters(model, choose_device(device).type)
    return model


# --- parameters


def units(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the modules whose parameters are put together at once, for as long as they run."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        large = isinstance(module, nn.Linear) and module.weight.numel() >= _LARGE
        if module not in inside and (large or isinstance(module, _UNITS)):
            inside.update(module.modules())
            yield module


def _shard_parameters(model: nn.Module, device: str) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Populations return views, to which nothing is written.
    warnings.filterwarnings("ignore", ".*returned a view tensor", UserWarning)
    modules, mesh = list(units(model)), _mesh(device, dist.group.WORLD)
    for module in (*modules, *([] if model in modules else [model])):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        if hasattr(module, "stream"):
            register_fsdp_forward_method(module, "stream")
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, FilterCache):  # it would keep whole filters
                vars(value)["get"] = lambda *_, **__: None


@cache
def _mesh(device: str, group: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device, (dist.get_world_size(group),))


# --- neurons


def split_neurons(model: nn.Module, rank: int, size: int) -> None:
    """Leaves to a model its neurons of one process, and makes gradients those of all losses."""
    built = local_names(model)
    populations = [module for module in model.modules() if isinstance(module, Population)]
    stages: set[nn.Module | None] = set()
    for cells in populations:
        draws = any(getattr(stage, "mean_wait", 0) for stage in cells.unit_dropout.modules())
        if draws or getattr(cells.soma, "neurons", None):
            raise ValueError(
                f'split = "neurons" with unit_dropout={cells.unit_dropout}, soma={cells.soma}: '
                "expected no draws for each position of a sheet, and a soma that neurons share"
            )
        if cells.out_features % size == 0 and cells.share.size == 1:
            cells.share = NeuronShare(cells.out_features, rank, size)
            cells.firing = GatheredRate(cells.share)
            stages.update(cells.modules())
    stages |= {
        layer.inhibition for layer in model.modules()
        if isinstance(layer, GranularLayer) and layer.granule in stages
    }  # fmt: skip
    for stage in stages - {None}:
        for key in {"neurons", "features", "num_features"} & vars(stage).keys():
            vars(stage)[key] = vars(stage)[key] and vars(stage)[key] // size
    names = local_names(model)
    if not names:
        raise ValueError(
            f'split = "neurons" over {size} processes: {type(model).__name__} has populations of '
            f"{[cells.out_features for cells in populations]} neurons: expected one of a multiple "
            f"of {size}: take another number of processes, or shard = true"
        )
    for name in names - built:
        path, _, name = name.rpartition(".")
        module = model.get_submodule(path)
        tensor = getattr(module, name)
        rows = tensor.detach().chunk(size)[rank].clone()
        learns = isinstance(tensor, nn.Parameter)
        setattr(module, name, nn.Parameter(rows, tensor.requires_grad) if learns else rows)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(partial(_mean_gradient, size, name in names))


def _mean_gradient(size: int, local: bool, grad: Tensor) -> Tensor:
    """Returns the mean over processes of a gradient, to which that of a process's neurons is what
    all have sent."""
    mean = grad / size
    if not local:
        dist.all_reduce(mean)
    return mean


def local_names(model: nn.Module) -> set[str]:
    """Returns the names in the state_dict of tensors of a process's neurons alone."""
    names = set()
    for path, module in model.named_modules():
        cells = module.granule if isinstance(module, GranularLayer) else module
        if isinstance(cells, Population) and cells.share.size > 1:
            stages = ("inhibition",) if cells is not module else _STAGES
            names |= {
                f"{path}.{name}".removeprefix(".")
                for name, tensor in (*module.named_parameters(), *module.named_buffers())
                if name.partition(".")[0] in stages and tensor.dim() and not name.endswith("signs")
            }
    return names


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scales gradients so that their norm over all processes is at most `max_norm`; returns the
    norm before. For any model, spread or not."""
    parameters, names = dict(model.named_parameters()), local_names(model)
    if not names:
        total: Any = nn.utils.clip_grad_norm_(parameters.values(), max_norm)
        return total.full_tensor() if is_sharded(model) else total
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    here, everywhere = (
        nn.utils.get_total_norm([g for n, g in grads.items() if (n in names) == local]).square()
        for local in (True, False)
    )
    dist.all_reduce(here)
    norm = (here + everywhere).sqrt()
    nn.utils.clip_grads_with_norm_(parameters.values(), max_norm, norm)
    return norm


# --- checkpoints


def as_parts(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by names of the state_dict, those of a process's neurons as DTensors."""
    names = local_names(model)
    if not names:
        return dict(tensors)
    from torch.distributed.tensor import DTensor, Shard

    return {
        name: DTensor.from_local(
            tensor.detach(), _mesh(tensor.device.type, dist.group.WORLD), [Shard(0)]
        ) if name in names and tensor.dim() else tensor
        for name, tensor in tensors.items()
    }  # fmt: skip


def count_weights(model: nn.Module) -> int:
    """Returns the number of trained floats, those of all processes."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return sum(p.numel() for p in as_parts(model, trained).values())


def save_whole(model: nn.Module, path: Path, ranks: Ranks) -> None:
    """Writes all weights, as `save_weights` does. All processes must call this: the first gathers
    them, tensor by tensor, in the memory of its machine, which must hold them."""
    if not (is_sharded(model) or local_names(model)):
        ranks.first(lambda: save_weights(model, path))
        return
    whole, tied = {}, {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    for name, part in as_parts(model, model.state_dict()).items():
        tensor: Tensor = part.full_tensor() if hasattr(part, "full_tensor") else part
        if ranks.leads and name in tied:
            whole[name] = tensor.cpu()
    ranks.first(lambda: save_tensors(path, whole))
