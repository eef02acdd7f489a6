"""Input of the language model: an instruction for chat models, or examples to continue."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from porting.stages.prompts.grammar import CLASSES
from porting.stages.prompts.settings import Settings

LINE_TOKENS = 48  # largest number of new tokens in few-shot mode, where a text is one line

# The content is that of CLOUDS (supplement, section A), the wording is ours.
INSTRUCTION = """\
I make photographs of city streets with a text-to-image model and need prompts for it. Write 100 \
of them, all different, varied and simple, one per line, and nothing else.

Each line has the form "a photo of X in Z".

X is an everyday scene on an urban street that shows one or more things of this list: road, \
building, sidewalk, wall, fence, pole, traffic light, traffic sign, vegetation, grass, sky, \
person, rider, car, truck, bus, train, motorcycle, bicycle. You may use synonyms, and over all \
lines each thing of the list should appear several times.

Z is a short description of ordinary light and weather, such as people see every day."""

EXAMPLES = """
a photo of a red car parked beside a brick wall in soft morning light
a photo of a narrow road between old buildings in light rain
a photo of two people waiting at a traffic light in bright sunshine
a photo of a cyclist riding past a row of parked cars in warm evening light
a photo of a bus stopping next to a crowded sidewalk in cloudy weather
a photo of tall trees along a wide street in clear midday light
a photo of a delivery truck in front of a small shop in thin fog
a photo of a wooden fence around a green lawn in late afternoon sun
a photo of a tram passing a tall office building in overcast weather
a photo of a motorcycle parked near a lamppost in golden sunset light
a photo of a bicycle leaning against a fence in the early morning
a photo of a traffic sign at a quiet intersection in heavy rain
a photo of a blue sky above apartment buildings in clear weather
a photo of a woman walking a dog along a wall in light snow
a photo of a patch of grass between the road and the sidewalk in hazy sunlight
a photo of a train crossing a street near some houses in gray weather
a photo of poles and wires above a busy street in dim evening light
a photo of a motorcyclist waiting behind a taxi in drizzling rain
""".split("\n")[1:-1]

# Beginnings of a line about each class, in the order of CLASSES.
_OPENINGS = """
a road, a street, an avenue, an intersection
a sidewalk, a pavement, people on a sidewalk
a building, an apartment building, some houses, an office tower
a wall, a brick wall, an old wall
a fence, a metal fence, an iron railing
a pole, a utility pole, a lamppost
a traffic light, an amber traffic light, some traffic lights
a traffic sign, a stop sign, an old street sign
a tree, some trees, a hedge, some bushes
some grass, a small lawn, a strip of grass
the sky, some clouds, an open sky
a person, a man, an old woman, some pedestrians
a cyclist, a motorcyclist, some cyclists
a car, a taxi, some cars, an old car
a truck, a delivery truck, some trucks
a bus, a city bus, some buses
a train, a tram, a passenger train
a motorcycle, a scooter, some motorcycles
a bicycle, an old bicycle, some bicycles
"""
OPENINGS = {
    name: tuple(line.split(", "))
    for name, line in zip(CLASSES, _OPENINGS.split("\n")[1:-1], strict=True)
}
_SHOWN = 5  # examples before a new line


def wording() -> str:
    """A hash of all texts given to a model, for the parameters of a run."""
    texts = json.dumps([INSTRUCTION, EXAMPLES, OPENINGS, _SHOWN])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def openings(chunk: int, size: int, seed: int) -> list[tuple[str, str]]:
    """Examples and the beginning of the line after them, for each text of a chunk.

    Consecutive texts of the whole run cycle through all 19 classes, so that none is missing,
    whatever beginning a model prefers.

    Args:
        chunk: number of the chunk.
        size: number of texts in a chunk.
        seed: seed of the run.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, chunk, 1)))
    out = []
    for text in range(chunk * size, (chunk + 1) * size):
        shown = rng.choice(len(EXAMPLES), _SHOWN, replace=False)
        begin = rng.choice(OPENINGS[CLASSES[text % len(CLASSES)]])
        examples = "".join(f"{EXAMPLES[i]}\n" for i in shown)
        out.append((examples, f"a photo of {begin}"))
    return out


class Model(Protocol):
    """The interface of `language_model.LanguageModel`."""

    def sample(
        self,
        prompts: Sequence[str],
        *,
        chat: bool,
        one_line: bool,
        seed: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
    ) -> list[str]: ...

    def memory(self) -> Mapping[str, float]: ...


def sample(settings: Settings, model: Model, chunk: int) -> list[str]:
    """Samples the texts of a chunk, which depend on the settings and its number alone."""
    few_shot = settings.mode == "few_shot"
    if few_shot:
        pairs = openings(chunk, settings.batch, settings.seed)
        prompts = [examples + opening for examples, opening in pairs]
        starts = [opening for _, opening in pairs]
        tokens = min(settings.max_new_tokens, LINE_TOKENS)
    else:
        prompts, starts = [INSTRUCTION] * settings.batch, [""] * settings.batch
        tokens = settings.max_new_tokens
    state = np.random.SeedSequence((settings.seed, chunk)).generate_state(1, np.uint64)
    texts = model.sample(
        prompts,
        chat=not few_shot,
        one_line=few_shot,
        seed=int(state[0]),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=tokens,
    )
    return [start + text for start, text in zip(starts, texts, strict=True)]
