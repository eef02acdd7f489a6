"""Settings of the prompts stage."""

import dataclasses
from typing import Any

MODES = ("instruction", "few_shot")
FORMS = ("strict", "loose")
DTYPES = ("bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config.prompts` and the seed, checked; configs/stages/base.py documents each key."""

    seed: int
    model: str
    revision: str
    gguf: str
    dtype: str
    mode: str
    form: str
    count: int
    min_per_class: int
    batch: int
    max_texts: int
    temperature: float
    top_p: float
    max_new_tokens: int

    def __post_init__(self):
        for key, allowed in {"mode": MODES, "form": FORMS, "dtype": DTYPES}.items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"config.prompts.{key} is {getattr(self, key)!r}; it must be one of:"
                    f" {', '.join(allowed)}."
                )
        for key in ("count", "batch", "max_texts", "max_new_tokens"):
            if getattr(self, key) < 1:
                raise ValueError(f"config.prompts.{key} is {getattr(self, key)}; it must be >= 1.")
        if not 0 <= self.min_per_class <= self.count:
            raise ValueError(
                f"config.prompts.min_per_class is {self.min_per_class}; it must be from 0 to"
                f" config.prompts.count, {self.count}."
            )
        if not self.temperature > 0:
            raise ValueError(
                f"config.prompts.temperature is {self.temperature}; it must be > 0, since texts"
                " must differ to be sampled until enough of them pass."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"config.prompts.top_p is {self.top_p}; it must be in (0, 1].")

    def parameters(self) -> dict[str, Any]:
        """All that the prompts depend on besides the model; not `max_texts`."""
        own = dataclasses.asdict(self)
        for key in ("model", "revision", "gguf", "max_texts"):
            del own[key]
        return own
