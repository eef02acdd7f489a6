"""CamVid on two CPU cores: the Mask2Former head against a plain FPN head, one frozen encoder.

Both rows read the same frozen ImageNet features (EfficientNet-Lite0) of the same 367 training
images and are scored on the 233 test images at their own size, 11 classes.

    python -m experiments.run table_camvid --shards shards
"""

from experiments.tables import Row, Table

_TEST = ("camvid/test",)

TABLE = Table(
    title="CamVid, two heads on the frozen ImageNet features of EfficientNet-Lite0.",
    columns={"camvid/test": _TEST},
    rows={
        "FPN head": Row("camvid_fpn", "configs/warmup_camvid_fpn.py", _TEST, "native"),
        "Mask2Former head": Row("camvid", "configs/warmup_camvid.py", _TEST, "native"),
    },
)
