"""Measures the time that a training step waits for data, by way of loading.

Run ``python -m experiments.bench.pipeline --help`` for the options. A generated archive
with FairVLMed's schema has fundus images and notes of very unequal lengths.
``fairjax.data.FairVLMed`` prepares the archive, and a small multimodal classifier reads
decoded batches. Batches are loaded on request or ahead, and notes are padded to one
length or to several.
"""

import itertools
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorflow_datasets as tfds
from flax import nnx

from experiments.bench import timing
from experiments.bench.timing import Cell, Limit, median
from fairjax import training
from fairjax.data import FairVLMed, buckets, decode
from fairjax.data.prefetch import prefetch
from fairjax.models import MultimodalClassifier, TextEncoder, ViT, functional

VOCABULARY = 4096
LONGEST = 512
_HEADS = 4
# The time at which batches are loaded, in words.
_LOADED = ("when asked for", "ahead")


@dataclass(frozen=True)
class Options(timing.Options):
    """Measure how long steps wait for data.

    Attributes:
      subjects: Subjects of the generated archive; a tenth each are for validation and
        test.
      side: Side of the archive's images, in pixels.
      image_size: Side to which images are resized, in pixels.
      num_buckets: Number of lengths to which notes are padded, if several.
      batch_size: Examples of a step.
      epochs: Epochs of the training split in each run.
      runs: Runs of each setting, in turns; medians are reported.
      width: Features of the model's tokens, a multiple of its four heads.
      depth: Blocks of each of the model's transformers.
      seed: Seed of the archive and the batches.
      quick: Use a small archive, once.
    """

    subjects: Annotated[int, Limit(10, quick=60)] = 320
    side: Annotated[int, Limit(quick=32)] = 200
    image_size: Annotated[int, Limit(quick=16)] = 128
    num_buckets: int = 4
    batch_size: int = 32
    epochs: Annotated[int, Limit(quick=1)] = 2
    runs: Annotated[int, Limit(quick=1)] = 3
    width: Annotated[int, Limit(quick=16)] = 128
    depth: Annotated[int, Limit(quick=1)] = 2
    seed: Annotated[int, Limit(0)] = 0


@dataclass(frozen=True)
class Row(timing.Row):
    """One way of loading.

    Attributes:
      ahead: Whether batches are prefetched.
      lengths: Number of lengths to which notes are padded.
      padding: Fraction of positions that are padding.
      examples: Examples of a run.
      steps: Steps of a run.
      wall: Seconds of each run.
      waited: Seconds of each run in which steps waited for data.
    """

    ahead: Annotated[bool, Cell("loaded", of=lambda row: _LOADED[row.ahead], left=True)]
    lengths: Annotated[int, Cell("lengths")]
    padding: Annotated[
        float, Cell("padding %", ".0f", of=lambda row: 100 * row.padding)
    ]
    examples: int
    steps: int
    wall: Annotated[
        list[float],
        Cell("examples/s", ".0f", of=lambda row: row.examples / median(row.wall)),
        Cell("step and wait ms", ".1f", of=lambda row: row.each(row.wall)),
    ]
    waited: Annotated[
        list[float],
        Cell("wait ms", ".1f", of=lambda row: row.each(row.waited)),
        Cell(
            *("waiting %", ".1f"),
            of=lambda row: 100 * median(row.waited) / median(row.wall),
        ),
    ]

    def each(self, seconds: list[float]) -> float:
        """Computes the milliseconds of a step."""
        return 1000 * median(seconds) / self.steps


def write_archive(folder: Path, subjects: int, side: int, seed: int) -> None:
    """Writes files with FairVLMed's schema, with notes of log-normal length."""
    rng = np.random.default_rng(seed)
    tenth = max(1, subjects // 10)
    sizes = {"Training": subjects - 2 * tenth, "Validation": tenth, "Test": tenth}
    subject = itertools.count()
    for split, number in sizes.items():
        (folder / split).mkdir(parents=True)
        for _ in range(number):
            words = int(np.clip(rng.lognormal(np.log(90), 0.8), 8, LONGEST))
            grey = rng.normal(size=(side, side)).cumsum(0).cumsum(1)
            low, high = grey.min(), grey.max()
            np.savez(
                folder / split / f"data_{next(subject):05d}.npz",
                slo_fundus=(255 * (grey - low) / (high - low)).astype(np.uint8),
                glaucoma=rng.integers(2),
                age=rng.uniform(20, 90),
                gender=rng.integers(2),
                race=rng.integers(3),
                ethnicity=rng.integers(-1, 2),
                language=rng.integers(-1, 3),
                maritalstatus=rng.integers(-1, 5),
                note=" ".join(f"word{w}" for w in rng.integers(0, 999, words)),
            )


def numbered(note: str) -> list[int]:
    """Returns a number for each word of a note."""
    words = note.split()[:LONGEST]
    return [zlib.crc32(word.encode()) % VOCABULARY for word in words]


def load(
    source: Any, options: Options, plan: Iterable[buckets.BucketBatch]
) -> Iterator:
    """Yields batches of decoded images and padded notes."""
    for rows, mask, length in plan:
        records = [decode(source[int(row)], options.image_size) for row in rows]
        words, own = buckets.pad([numbered(r["note"]) for r in records], length)
        yield {
            "image": np.stack([record["image"] for record in records]),
            "words": words.astype(np.int32),
            "own": own,
            "label": np.stack([record["label"] for record in records]),
            "counts": mask,
        }


def make_step(options: Options) -> tuple[Callable[..., Any], Any]:
    """Makes a training step of the model, and its initial state."""
    rngs, width, depth = nnx.Rngs(options.seed), options.width, options.depth
    size = options.image_size
    patch = next(p for p in range(max(1, size // 8), size + 1) if size % p == 0)
    encoders = {
        "image": ViT(size, patch, width, depth, _HEADS, num_channels=1, rngs=rngs),
        "note": TextEncoder(
            VOCABULARY, width, depth, _HEADS, max_length=LONGEST, rngs=rngs
        ),
    }
    widths = dict.fromkeys(encoders, width)
    model = MultimodalClassifier(
        encoders, widths, width=width, depth=depth, num_heads=_HEADS, rngs=rngs
    )
    apply, params = functional(model)

    def loss(params: Any, batch: Mapping[str, Any], opt_state: Any):
        del opt_state
        inputs = {"image": (batch["image"],), "note": (batch["words"], batch["own"])}
        logits = apply(params, inputs).logits[:, 0]
        each = optax.sigmoid_binary_cross_entropy(logits, batch["label"])
        return jnp.sum(each * batch["counts"]) / jnp.sum(batch["counts"]), {}

    transform = optax.adam(1e-3)
    step = training.make_loss_step(loss, transform)
    return jax.jit(step), training.init_state(params, transform, key=options.seed)


def timed(
    step: Callable[..., Any], state: Any, batches: Iterator
) -> tuple[float, float]:
    """Measures seconds of all steps, and the seconds that they waited for batches."""
    start = time.perf_counter()
    waited = 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        jax.block_until_ready(batch)
        waited += time.perf_counter() - asked
        if batch is None:
            return time.perf_counter() - start, waited
        state, _ = jax.block_until_ready(step(state, batch))


def measure(source: Any, options: Options) -> Iterator[Row]:
    """Measures every way of loading, in turns."""
    lengths = [len(numbered(record["note"].decode())) for record in source]
    step, state = make_step(options)
    bounds = {
        number: buckets.bucket_boundaries(lengths, number)
        for number in (1, options.num_buckets)
    }

    def plan(number: int, epochs: int, seed: int) -> Iterator[buckets.BucketBatch]:
        size = options.batch_size
        return buckets.batches(
            lengths, bounds[number], size, seed=seed, num_epochs=epochs
        )

    for number in bounds:
        shapes = {batch.length: batch for batch in plan(number, 1, options.seed)}
        for batch in load(source, options, shapes.values()):
            step(state, jax.device_put(batch))
    settings = list(itertools.product((False, True), bounds))
    found: dict[tuple[bool, int], list[tuple[float, float]]] = {s: [] for s in settings}
    for run, (ahead, number) in itertools.product(range(options.runs), settings):
        loader = load(source, options, plan(number, options.epochs, run))
        batches = prefetch(loader) if ahead else map(jax.device_put, loader)
        found[ahead, number].append(timed(step, state, batches))
    for (ahead, number), taken in found.items():
        padding = buckets.padding_share(lengths, bounds[number])
        examples = options.epochs * len(lengths)
        steps = sum(1 for _ in plan(number, options.epochs, 0))
        wall, waited = map(list, zip(*taken, strict=True))
        yield Row(ahead, len(bounds[number]), padding, examples, steps, wall, waited)


def tasks(options: Options) -> Iterator[Iterator[Row]]:
    """Prepares an archive, and measures every way of loading the archive's examples."""
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        write_archive(raw, options.subjects, options.side, options.seed)
        builder: Any = FairVLMed(data_dir=Path(name) / "prepared")
        config = tfds.download.DownloadConfig(manual_dir=raw)
        tfds.disable_progress_bar()
        builder.download_and_prepare(download_config=config)
        yield measure(builder.as_data_source("train"), options)


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    kinds = {f"pipeline-{jax.default_backend()}": Row}
    (rows,) = timing.run(options, kinds, tasks, width=120)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
