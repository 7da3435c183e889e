"""Where a network calls its modules, read from graphs of `torch.fx`.

Each module's own forward is traced, with every module that it calls as a node: a child that a
parent calls alone, a slice of an nn.Sequential and a loop over layers appear as what they are.
"""

from collections import defaultdict
from inspect import signature
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy, Tracer
from torch.utils._pytree import tree_leaves

from neuroconv.core.counting import is_watched

_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"}


class Source(NamedTuple):
    """The module whose output a batch norm takes at each call, and that nothing else takes."""

    name: str  # "" where there is none
    reason: str  # why there is none
    rectified: bool = False  # whether rectifiers alone take the norm's output


class Calls:
    """All calls of a network's modules, except within modules of the types `closed`."""

    def __init__(self, network: nn.Module, closed: tuple[type[nn.Module], ...]) -> None:
        self._names = {module: name for name, module in network.named_modules()}
        self._calls: dict[nn.Module, list[Node]] = defaultdict(list)
        self._callee: dict[Node, nn.Module] = {}
        self._read: set[int] = set()
        self._kept: set[Node] = set()
        self._untraced: dict[nn.Module, str] = {}
        inside = {part for m in network.modules() if isinstance(m, closed) for part in m.modules()}
        for module in network.modules():
            if module in inside or not [*module.children()]:
                continue
            if type(module).forward is not nn.Module.forward or "forward" in vars(module):
                self._trace(module)  # others, such as nn.ModuleList, cannot be called

    def _trace(self, module: nn.Module) -> None:
        attributes = [vars(part) for part in module.modules()]
        try:
            for graph in self._graphs(module):
                for node in graph.nodes:
                    if node.op == "call_module":
                        callee = module.get_submodule(node.target)
                        self._callee[node] = callee
                        self._calls[callee].append(node)
            self._kept.update(x.node for x in tree_leaves(attributes) if isinstance(x, Proxy))
        except Exception as error:  # whatever a forward may raise at what is no tensor
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            reason = f"{type(module).__name__}.forward cannot be traced ({message})"
            held = [x for x in tree_leaves(attributes) if isinstance(x, nn.Module)]
            callees = [part for x in (module, *held) for part in x.modules()]
            self._untraced.update(dict.fromkeys(callees, reason))

    def _graphs(self, module: nn.Module) -> list[Graph]:
        """Traces all ways through a forward that depend on which arguments are None or tensors."""
        parameters = signature(module.forward).parameters
        optional = [name for name, parameter in parameters.items() if parameter.default is None]
        if len(optional) > 6:
            raise ValueError(f"{len(optional)} arguments may be None, in too many combinations")
        graphs = []
        ways: Any = product((Proxy, _TensorProxy), *[(False, True)] * len(optional))
        for proxy, *given in ways:
            absent = {name: None for name, here in zip(optional, given, strict=True) if not here}
            graphs.append(_OwnForward(proxy, self._read).trace(module, absent))
        return graphs

    def source(self, norm: nn.Module) -> Source:
        nodes = self._calls[norm]
        inputs: Any = [[*node.args, *node.kwargs.values()][0] for node in nodes]
        modules: Any = {self._callee.get(node) for node in inputs}
        if norm in self._untraced:
            return Source("", self._untraced[norm])
        if len(modules) != 1 or None in modules:
            return Source("", "its input is not always the output of the same module")
        (module,) = modules
        name = self._names[module]
        if module in self._untraced:
            return Source("", self._untraced[module])
        outputs = self._calls[module]
        if any({self._callee.get(x) for x in node.users} != {norm} for node in outputs):
            return Source("", f"something else takes the output of {name!r} too")
        if not self._kept.isdisjoint(outputs):
            return Source("", f"a module keeps the output of {name!r}")
        tensors = [t for m in (module, norm) for t in (*m.parameters(), *m.buffers())]
        if any(id(t) in self._read for t in tensors):
            return Source("", f"a forward reads tensors of {name!r} or of the norm")
        after = [user for node in nodes for user in node.users]
        return Source(name, "", bool(after) and all(map(self._is_relu, after)))

    def _is_relu(self, node: Node) -> bool:
        callee = self._callee.get(node)
        return node.target in _RELUS or (type(callee) is nn.ReLU and not is_watched(callee))


class _OwnForward(Tracer):
    """Traces a forward without those of the modules that it calls; notes tensors that it reads."""

    def __init__(self, kind: type[Proxy], read: set[int]) -> None:
        super().__init__()
        self._kind, self._read = kind, read

    def proxy(self, node: Node) -> Proxy:
        return self._kind(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and not isinstance(a, Proxy):
            self._read.add(id(a))
        return a.node if isinstance(a, Proxy) else super().create_arg(a)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if m in (self.submodule_paths or {}):
            return super().call_module(m, forward, args, kwargs)
        return forward(*args, **kwargs)  # built within the forward, such as a slice

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, Tensor):
            self._read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _TensorProxy(Proxy):
    """A proxy that is an instance of Tensor, for a forward that asks."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return Tensor
