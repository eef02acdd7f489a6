"""Types that training programs save beside the weights, all read as one object that does nothing.

Command-line arguments, configs, paths, times and devices: their names are known to be those of
plain values, so that a file with them need not be refused. Neither they nor their content matter to
the weights; nothing of them is imported or called.
"""

from typing import Any


class Ignored:
    """Substitute for a value that is not read: takes any arguments, state and items, keeps none."""

    __slots__ = ()

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """A pickle sets the state of an object with this."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """A pickle fills a subclass of dict with this."""

    def append(self, item: Any) -> None:
        """A pickle fills a subclass of list with this."""

    def extend(self, items: Any) -> None:
        """As `append`."""

    def add(self, item: Any) -> None:
        """A pickle fills a set with this."""


_TYPES = {
    "addict.addict": ("Dict",),
    "argparse": ("Namespace",),
    "builtins": (
        "bool",
        "bytearray",
        "bytes",
        "complex",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "long",
        "object",
        "range",
        "set",
        "slice",
        "str",
        "tuple",
        "unicode",
    ),
    "collections": ("deque",),
    "copyreg": ("_reconstructor",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "detectron2.config.config": ("CfgNode",),
    "easydict": ("EasyDict",),
    "fractions": ("Fraction",),
    "fvcore.common.config": ("CfgNode",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "ml_collections.config_dict.config_dict": ("ConfigDict", "FrozenConfigDict"),
    "mmengine.config.config": ("Config", "ConfigDict"),
    "mmcv.utils.config": ("Config", "ConfigDict"),
    "numpy": ("bool", "bool_", "float16", "float32", "float64", "int32", "int64", "uint8"),
    "omegaconf.base": ("ContainerMetadata", "Metadata", "SCMode"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": (
        "AnyNode",
        "BooleanNode",
        "BytesNode",
        "FloatNode",
        "IntegerNode",
        "PathNode",
        "StringNode",
    ),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "torch": ("device",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
    "yacs.config": ("CfgNode",),
    **{
        module: ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
        for module in ("pathlib", "pathlib._local")
    },
}
HARMLESS: dict[tuple[str, str], type[Ignored]] = {
    (module, name): Ignored for module, names in _TYPES.items() for name in names
}
