"""The manifest of a made-up model: nothing loads it."""

from pdswitch.model import ModelManifest

MODEL = ModelManifest(
    name="m",
    path="m",
    revision=None,
    digest="d",
    architecture="a",
    context_length=4096,
    vocabulary_size=10,
)
