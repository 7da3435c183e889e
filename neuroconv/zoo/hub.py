"""Networks of the zoo in folders and repositories of Hugging Face."""

from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from neuroconv.zoo.registry import create_model


class HubNetwork(nn.Module, PyTorchModelHubMixin):
    """A network that `save_pretrained` and `from_pretrained` know; arguments of `create_model`."""

    def __init__(self, name: str, pretrained: bool | str = False, **keywords: Any) -> None:
        super().__init__()
        self.network = create_model(name, pretrained, **keywords)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)
