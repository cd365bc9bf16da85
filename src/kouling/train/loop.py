"""The training loop: recipe in; checkpoint, log and curves out. Deterministic, and resumable at every epoch."""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN
from kouling.config import EncoderConfig
from kouling.encoder import Encoder, EncoderState, FrameNorm, Window
from kouling.train import int4, precision
from kouling.train.ahead import drawn_ahead
from kouling.train.augment import add_noise_features, filter_features, mask_features, warp_features
from kouling.train.curves import best_of, plot
from kouling.train.distill import Heard, HiddenStates, Teacher, divergence
from kouling.train.initial import frozen_parts, parameter_groups, start_from
from kouling.train.objective import accuracy, carried, map_state, of_labels, per_word
from kouling.train.precision import put
from kouling.train.recipe import Recipe, Training
from kouling.train.recompute import recompute_blocks
from kouling.train.scenes import Batches, SceneMaker
from kouling.train.stem_norm import NORMS, folded, normalize_stem
from kouling.train.unheard import freeze_unheard
from kouling.train.zeros import clear_gradients, kept_weights

STATISTICS_WORDS = 600  # in the scenes from which statistics are taken


class Trainer:
    """One run in the folder `out`: `state.pt` to go on from, `model.safetensors` (averaged weights), log and curves."""

    def __init__(
        self,
        recipe: Recipe,
        folders: Sequence[Path],
        out: Path,
        cache: Path,
        kept: Path | None = None,
        scenes: SceneMaker | None = None,
        device: str = "auto",
        workers: int = 0,
    ) -> None:
        """kept: folder in which drawn scenes are left for other runs on the same data. scenes: of that data, where
        they are loaded already. device: one of `precision.DEVICES`. workers: processes that draw scenes ahead in `run`.

        Raises: ValueError where data, the initial checkpoint or a C++ compiler that the recipe wants is missing, or
        `out` holds another recipe's run."""
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        self.recipe, self.out, self.kept = recipe, out, kept
        self.units = (BLANK, UNKNOWN, *recipe.units)
        torch.manual_seed(recipe.seed)
        self.device = precision.device_called(device)
        self.model = Encoder(recipe.config, len(self.units), recipe.training.dropout)
        loaded = scenes

        def all_scenes() -> SceneMaker:
            nonlocal loaded
            loaded = loaded or SceneMaker(recipe, self.units, folders, cache)
            return loaded

        @lru_cache  # the start and the stem may both want it
        def heard() -> list[Tensor]:
            return [torch.from_numpy(each.features).float() for each in all_scenes().some(STATISTICS_WORDS)]

        if recipe.initial:
            start_from(self.model, self.units, [Path(name) for name in recipe.initial], heard)
        if recipe.training.stem_norm:
            normalize_stem(self.model, heard() if recipe.initial else ())
        freeze_unheard(self.model)
        self.model.to(self.device)
        self.frozen = frozen_parts(self.model, recipe.training.frozen_blocks)
        self.int4: int4.Int4Weights | None = None
        if recipe.training.weights == "int4":
            self.int4 = int4.put_on_grids(self.model, [Path(name) for name in recipe.initial])
            norms = [module for module in self.model.modules() if isinstance(module, FrameNorm)]
            self.frozen += [norm for norm in norms if not norm.weight.requires_grad]  # which the grids have taken in
        # Before `resume`, from the same checkpoints every time. The average of zeros is zero by itself.
        self.kept_weights = kept_weights(self.model) if recipe.training.keep_zeros else {}
        if recipe.training.recompute:
            recompute_blocks(self.model)
        self.averaged = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.teacher: Teacher | None = None
        self.lessons: list[Heard] | None = None  # what it says of the scenes in `group`
        self.hidden_states: HiddenStates | None = None
        groups = parameter_groups(self.model, recipe.training.weight_decay)
        if recipe.distill.teacher:
            self.teacher = Teacher(Path(recipe.distill.teacher), recipe.config, self.units, self.device)
            if recipe.distill.hidden_weight:
                widths = (model.config.encoder.hidden_size for model in (self.model, self.teacher.model))
                self.hidden_states = HiddenStates(*widths).to(self.device)
                groups[1]["params"] += list(self.hidden_states.parameters())
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=recipe.training.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",  # one launch instead of dozens
        )
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        out.mkdir(parents=True, exist_ok=True)
        self.resume()
        if recipe.training.compile:
            if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++")):
                raise ValueError(
                    "training.compile is true but there is no C++ compiler; install g++, or set it to false"
                )
            if self.teacher is not None:
                self.teacher.model.compile(dynamic=False)
            self.model.compile(dynamic=False)  # two shapes of batches, and faster than one that fits all
        self.scenes = all_scenes()
        self.valid = self.scenes.validation(recipe.training.validation_s)
        self.draw: Callable[[int], list[Batches]] = partial(self.scenes.epoch, kept=kept)
        last = max(recipe.training.epochs - 1, 0) // recipe.training.reuse
        self.ahead: AbstractContextManager[Any] = nullcontext(self.draw)
        if workers:
            folder = kept or out / "scenes"
            self.ahead = drawn_ahead(self.scenes, folders, cache, folder, workers, last, keep=kept is not None)
        self.group: tuple[int, list[Batches]] | None = None
        self.features: list[Tensor] = []  # of `group`, where training computes
        self.carried: EncoderState | None = None

    def resume(self) -> None:
        """Go on from `state.pt`, if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            recipe = state["recipe"]
        except Exception as error:  # nearly any kind, and many lines of text, come out of torch.load for a damaged file
            kind = type(error).__name__
            raise ValueError(f"{path}: not a usable training state ({kind}); delete it to start anew") from None
        if recipe != repr(asdict(self.recipe)):
            raise ValueError(
                f"{self.out} holds a run of another recipe; choose another folder with --out, or delete it"
            )
        self.model.load_state_dict(state["model"])
        self.averaged = state["averaged"]
        if self.int4 is not None:
            self.int4 = int4.resumed(self.model, state["int4"])
        if self.hidden_states is not None:
            self.hidden_states.load_state_dict(state["hidden_states"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]

    def save(self) -> None:
        """Under temporary names first, the state last: what a full disk leaves can be resumed. Raises: OSError."""
        if best_of(self.history) == len(self.history):
            checkpoint.save(self.out / "model.safetensors", self.info(), self.weights())
        with open(self.out / "log.tmp", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.history[-1]))
            writer.writeheader()
            writer.writerows(self.history)
        os.replace(self.out / "log.tmp", self.out / "log.csv")
        state = {
            "recipe": repr(asdict(self.recipe)),
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "int4": {} if self.int4 is None else self.int4.state_dict(),
            "hidden_states": {} if self.hidden_states is None else self.hidden_states.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
        }
        path = self.out / "state.pt"
        temporary = path.with_suffix(".tmp")
        try:
            try:
                torch.save(state, temporary)
            except RuntimeError:  # how torch reports a full disk, in words about its own files
                raise OSError(f"{path} cannot be written; is the disk full?") from None
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def weights(self) -> dict[str, NDArray[Any]]:
        """The averaged weights, rounded to float16: that is the model, in every form of it. With int4 grids, if any."""
        rounded = {
            k: (v.half() if v.is_floating_point() else v).cpu().numpy()
            for k, v in self.averaged_as_saved().items()
            if not k.endswith("num_batches_tracked")
        }
        return rounded if self.int4 is None else {**rounded, **self.int4.tensors()}

    def averaged_as_saved(self) -> dict[str, Tensor]:
        """On int4 grids, if any; without what only training needs."""
        averaged = folded(self.averaged, list(self.model.stem.convolutions()))
        return averaged if self.int4 is None else {**averaged, **self.int4.snapped(averaged)}

    def info(self) -> ModelInfo:
        recipe = self.recipe
        provenance = {
            "description": recipe.description,
            "licence": recipe.licence,
            "sources": sorted({Path(source.path).name for source in recipe.source}),
            "seed": recipe.seed,
            "epochs": self.epoch,
            "parameters": sum(p.numel() for name, p in self.model.named_parameters() if not name.startswith(NORMS)),
            "validation": {k: round(v, 4) for k, v in self.history[-1].items() if v == v} if self.history else {},
        }
        return ModelInfo(recipe.name, recipe.language, recipe.config, self.units, {}, provenance)

    def run(self) -> None:
        """Train to the last epoch. Ctrl-C loses at most the epoch under way. Raises: OSError on a full disk."""
        if not self.recipe.training.epochs:  # the start is the model
            if not self.history:
                self.history.append({"epoch": 0.0, **self.evaluate()})
                self.save()
            return
        with self.ahead as self.draw:
            self.train()
        plot(self.history, self.out / "curves.png", self.recipe.name)

    def train(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
            total = self.recipe.training.epochs
            task = progress.add_task(self.recipe.name, total=total, completed=self.epoch, note="")
            while self.epoch < total:
                row = self.train_epoch(lambda share: progress.update(task, completed=self.epoch + share))
                progress.update(task, completed=self.epoch, note=f"valid {row['accuracy']:.2f} %")
                progress.console.log(
                    f"epoch {self.epoch}/{total}  loss {row['loss']:.3f}  accuracy {row['accuracy']:.2f} %  "
                    f"words {row['words']:.2f} %  unknown {row['unknown']:.2f} %  noise {row['noise']:.2f} %  "
                    f"{row['seconds']:.0f} s"
                )
                self.save()

    def train_epoch(self, report: Any = lambda share: None) -> dict[str, float]:
        settings = self.recipe.training
        began = time.perf_counter()
        draw = self.epoch // settings.reuse
        if self.group is None or self.group[0] != draw:
            self.group, self.features = None, []  # free the old features before the new ones are made
            self.group = (draw, self.draw(draw))
            self.features = [put(batches.features, self.device) for batches in self.group[1]]
            if self.teacher is not None:  # it hears a scene once, and is quoted as often as the scene is used
                deep = self.hidden_states is not None
                self.lessons = [self.teacher.hear(batches.features, deep, self.kept) for batches in self.group[1]]
        rng = np.random.default_rng([self.recipe.seed, 1, self.epoch])
        torch.manual_seed(self.recipe.seed * 100003 + self.epoch)
        plan = []
        for number, (batches, shape) in enumerate(zip(self.group[1], self.recipe.scenes, strict=True)):
            rows = max(1, round(settings.batch_s / (shape.slots * shape.slot_s)))
            order = rng.permutation(len(batches.lengths))
            # Whole batches only, where there is one: a compiled model is compiled anew for every shape.
            least = rows if len(order) >= rows else 8
            plan += [(number, order[i : i + rows]) for i in range(0, len(order), rows) if len(order) - i >= least]
        if not plan:
            raise ValueError("too few clips for one batch of 8 scenes; give more recordings, or fewer slots per scene")
        plan = [plan[i] for i in rng.permutation(len(plan))]
        self.model.train()
        for part in self.frozen:  # their statistics too
            part.eval()
        self.carried = None  # a resumed run has none either
        losses_seen: list[Tensor] = []
        for done, (number, rows_chosen) in enumerate(plan):
            progress = (self.epoch + done / len(plan)) / settings.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_at(progress, settings.warmup_epochs / settings.epochs)
            losses_seen.append(self.train_step(number, rows_chosen, rng))
            decay = math.exp(-1 / (settings.ema_epochs * len(plan)))
            self.average(min(decay, (1 + self.step) / (10 + self.step)))
            report((done + 1) / len(plan))
        self.epoch += 1
        row = {"epoch": float(self.epoch), "loss": float(torch.stack(losses_seen).mean()), **self.evaluate()}
        row["seconds"] = time.perf_counter() - began
        self.history.append(row)
        return row

    def train_step(self, number: int, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """number: of the scenes' shape -> the loss ()."""
        assert self.group is not None
        batches = self.group[1][number]
        features = self.varied(number, rows, rng)
        # Silence of any length before and after: neither the phase of a step nor the length of a slot tells anything.
        subsampling = self.recipe.config.encoder.subsampling
        extra = self.recipe.training.padding_frames // subsampling * subsampling
        before = int(rng.integers(extra + 1))
        features = F.pad(features, (0, 0, before, extra - before))
        hidden: list[Tensor] = []
        with precision.mixed(self.device), self.watched(hidden):
            begun = self.initial_state(len(rows), rng)
            window = draw_window(self.recipe.training, self.recipe.config.encoder, rng, self.device)
            forward = self.model if self.int4 is None else self.int4.forward(self.model)
            log_probs, state = forward(features, begun, window)
        self.carried = carried(state)
        each = of_labels(log_probs, batches, rows, before, self.recipe)
        if self.lessons is not None:
            heard = self.lessons[number].on(rows, before, subsampling, log_probs.shape[1], self.device)
            each = self.taught(each, log_probs, hidden, *heard)
        loss = per_word(each, batches, rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clear_gradients(self.kept_weights)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.detach()  # not as a number: the processor would wait for a GPU

    def varied(self, number: int, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Features of scenes (B, T, M) as they are heard this time. number: of the scenes' shape."""
        assert self.group is not None
        batches, drawn, augment = self.group[1][number], self.features[number], self.recipe.augment
        config = self.recipe.config.features
        features = drawn[put(rows, self.device)].float()
        noise = batches.draw_noise(rng, len(rows)) if augment.more_noise_percent else None
        if noise is not None:
            heard, added = put(batches.heard(rows), self.device), drawn[put(noise, self.device)].float()
            features = add_noise_features(features, heard, added, rng, augment, config)
        features = warp_features(features, rng, augment, config)
        features = filter_features(features, rng, augment, config)
        return mask_features(features, rng, augment)

    def taught(
        self, loss: Tensor, log_probs: Tensor, hidden: list[Tensor], taught: Tensor, deep: Tensor | None
    ) -> Tensor:
        """The loss per row (B,), of the labels and of what the teacher says: log-probabilities and hidden states."""
        settings = self.recipe.distill
        loss = (1 - settings.weight) * loss
        loss = loss + settings.weight * divergence(log_probs, taught, settings.temperature)
        if self.hidden_states is not None and deep is not None:
            loss = loss + settings.hidden_weight * self.hidden_states(hidden[0].float(), deep)
        return loss

    @contextmanager
    def watched(self, hidden: list[Tensor]) -> Iterator[None]:
        """The output of the last block is put into `hidden`, where somebody wants it."""
        if self.hidden_states is None:
            yield
            return
        handle = self.model.blocks[-1].register_forward_hook(lambda *call: hidden.append(call[2][0]))
        try:
            yield
        finally:
            handle.remove()

    def initial_state(self, rows: int, rng: np.random.Generator) -> EncoderState:
        """A fresh state, or what the last batch left behind, in another order: most of a stream is not its beginning,
        and a model that only ever starts afresh learns to say its words at a fixed time after the start."""
        if self.carried is None or rng.random() * 100 >= self.recipe.training.carry_percent:
            return self.model.initial_state(rows)
        chosen = put(rng.integers(len(self.carried.frames_seen), size=rows), self.device)
        return map_state(lambda tensor: tensor[chosen], self.carried)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Exponential moving average of weights and batch-norm statistics."""
        now = self.model.state_dict()
        real = [key for key, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.averaged[key] for key in real], [now[key] for key in real], 1 - decay)
        for key in now.keys() - set(real):
            self.averaged[key].copy_(now[key])

    def evaluate(self) -> dict[str, float]:
        """Percent of validation clips right, with the averaged weights."""
        model = Encoder(self.recipe.config, len(self.units)).eval().to(self.device)
        model.load_state_dict(self.averaged_as_saved())
        return accuracy(model, *self.valid, self.scenes.lexicon.sayings)


def draw_window(
    settings: Training, encoder: EncoderConfig, rng: np.random.Generator, device: torch.device
) -> Window | None:
    """What a batch may look at; None, and nothing drawn, where the recipe varies nothing."""
    if not settings.varying_cached and not settings.varying_chunk:
        return None
    cached = settings.varying_cached or [encoder.max_cached_frames] * 2
    chunk = settings.varying_chunk or [encoder.streaming_chunk_size] * 2
    contexts = [frames // encoder.subsampling for frames in cached]
    left_context = rng.integers(contexts[0], contexts[1], endpoint=True)
    lookahead = rng.integers(chunk[0], chunk[1], endpoint=True) - encoder.streaming_step_size
    return Window(torch.tensor(left_context, device=device), torch.tensor(lookahead, device=device))


def rate_at(progress: float, warmup: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1]: linear warm-up, then half a cosine."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9))) + 1e-3
