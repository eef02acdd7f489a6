"""Models of transformers under the names of their files.

Transformers 5 gives some tensors other names in memory than in its files.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

State = Mapping[str, torch.Tensor]


class Saved(nn.Module):
    """A module whose state dict is that of its files.

    Args:
        module: a model of transformers.
        to_files: state dict of the module -> state dict of the file.
        from_files: the inverse.
    """

    def __init__(
        self,
        module: Any,
        to_files: Callable[[State], dict[str, torch.Tensor]],
        from_files: Callable[[State], dict[str, torch.Tensor]],
    ):
        super().__init__()
        self.module = module
        self.to_files = to_files
        self.from_files = from_files

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return self.to_files(self.module.state_dict(*args, **kwargs))

    def load_state_dict(self, state_dict: State, strict: bool = True, assign: bool = False) -> Any:
        return self.module.load_state_dict(self.from_files(state_dict), strict, assign)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def saved(model: Any) -> Saved:
    """Wraps a model of transformers so that its names are those of `save_pretrained`."""
    from transformers.core_model_loading import revert_weight_conversion

    names = {
        own: next(iter(revert_weight_conversion(model, {own: tensor})))
        for own, tensor in model.state_dict().items()
    }
    back = {name: own for own, name in names.items()}
    return Saved(
        model,
        lambda state: {names[own]: tensor for own, tensor in state.items()},
        lambda state: {back[name]: tensor for name, tensor in state.items()},
    )
