"""`kouling compress`: a model and a budget in; a smaller model and its report out.

Every form on the way is measured and verified on the target, with the runtime that ships. What is trained lies in
`work` in the output's folder: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kouling import checkpoint
from kouling.checkpoint import write_whole
from kouling.compress import plan, prune, quantize
from kouling.compress.cost import Cost
from kouling.compress.lessons import Data, Lessons
from kouling.compress.plan import KEPT, PRUNED, Budget, Candidate
from kouling.compress.report import Stage
from kouling.compress.target import InEngine, OnEthosU, Target, digest
from kouling.deploy import engine, step
from kouling.deploy.grid import without_grids
from kouling.recognizer import ENGINE_FILE

CHECKPOINT = "model.safetensors"
TRIES = 3  # candidates that are carried out before the best of them is taken as it is
ENOUGH = 0.1  # percentage points: rounding that loses no more is not made good by training

KEPT_FROM_THE_WHOLE = ("description", "licence", "sources", "recipe")  # of its provenance

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Compression:
    """One run, in the folder `out`: model.safetensors, model.kouling, the folder ethos-u where that is the target,
    index.html, result.json."""

    def __init__(
        self,
        path: Path,
        budget: Budget,
        out: Path,
        data: Data | None,
        epochs: int,
        seed: int,
        target: Target | None = None,
    ) -> None:
        """path: the checkpoint to be compressed. epochs: of fine-tuning what was pruned or rounded to int4. target: the
        engine if left out.

        Raises: ValueError where the checkpoint is none, the recipe's words are others, or `out` holds another run;
        FileNotFoundError.
        """
        self.path, self.budget, self.out, self.data = path, budget, out, data
        self.epochs, self.seed, self.target = epochs, seed, target or InEngine()
        self.info, self.weights = checkpoint.load(path)
        if data and tuple(data.recipe.units) != self.info.units[2:]:
            raise ValueError(
                f"{path}: its words are not those of the recipe {data.recipe.name}; allowed: its own recipe"
            )
        self.work = out / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.lessons: Lessons | None = None
        self.stages: list[Stage] = []
        self.refused: list[Stage] = []  # what other candidates came to
        self.rejected: list[tuple[str, str]] = []
        self.considered: list[Candidate] = []
        self._remember_settings()

    def run(self, report: Callable[[str], None], progress: Progress, only: str | None = None) -> None:
        """Plan, carry out, verify, write. report: gets a line for what was done. only: the one candidate to carry out.

        Raises: ValueError where no candidate keeps the budget, or there is none of that name; OSError on a full disk.
        """
        found = plan.candidates(self.info, self.target.forms)
        names = [each.name for each in found]
        if only and only not in names:
            raise ValueError(f"no candidate {only!r} for {self.target.name}; allowed: {', '.join(names)}")
        with progress("pricing candidates", len(found)) as advance:
            self.considered = list(plan.priced(found, self._price, advance))
        fitting = plan.choose(self.considered, self.budget, self.data is not None)
        if only:
            names = [each.name for each in fitting]
            if only not in names:
                raise ValueError(f"no candidate {only!r} keeps the budget; allowed: {', '.join(names)}")
            fitting = [fitting[names.index(only)]]
        report(
            f"{len(fitting)} of {len(self.considered)} candidates keep the budget; the gentlest is {fitting[0].name}"
        )
        if self.data:
            self.lessons = Lessons(self.data, self.work, self.epochs, self.seed)
        begun = [self._float()]
        plain = self.target.forms[0]
        if (fitting[0].kind, fitting[0].weights, fitting[0].state) != (KEPT, *plain):
            begun.append(self._stage(self.path, "int8", "weights rounded, one scale for each output", plain))
        tried: list[list[Stage]] = []
        for candidate in fitting[:TRIES]:
            report(f"carrying out {candidate.name}")
            tried.append(self.carry_out(candidate, report))
            why = self._shortfall(begun[0], tried[-1][-1])
            if not why:
                break
            self.rejected.append((candidate.name, why))
            report(f"{candidate.name}: {why}")
        keeping = [stages for stages in tried if self.budget.keeps(stages[-1].cost)] or tried
        best = max(keeping, key=lambda stages: stages[-1].right or 0)
        self.stages = [*begun, *best]
        self.refused = [stages[-1] for stages in tried if stages is not best]
        self._write(best[-1])

    def _shortfall(self, before: Stage, after: Stage) -> str:
        """Why a candidate is not the answer; empty where it is."""
        if not self.budget.keeps(after.cost):
            return f"{after.cost.total_bytes:,} bytes and {after.cost.call_ms:.2f} ms in the end"
        lost = self.lost(before, after)
        return f"{lost:.2f} points lost" if lost is not None and lost > self.budget.max_loss else ""

    def lost(self, before: Stage, after: Stage) -> float | None:
        """Percentage points; None where nothing was verified."""
        if before.accuracy is None or after.accuracy is None:
            return None
        return 100 * (before.accuracy - after.accuracy)

    def verdicts(self) -> list[tuple[bool, str]]:
        """Whether each part of the budget was kept, and a line for it."""
        last, budget, found = self.stages[-1], self.budget, []
        if budget.memory_bytes is not None:
            text = f"memory {last.cost.total_bytes / 1000:,.0f} KB; {budget.memory_bytes / 1000:,.0f} KB allowed"
            found.append((last.cost.total_bytes <= budget.memory_bytes, text))
        if budget.latency_ms is not None:
            text = f"{last.cost.frames} frames in {last.cost.call_ms:.2f} ms; {budget.latency_ms:g} ms allowed"
            found.append((last.cost.call_ms <= budget.latency_ms, text))
        lost = self.lost(self.stages[0], last)
        if lost is not None:
            before = f"{self.stages[0].accuracy or 0:.2%}"
            found.append((lost <= budget.max_loss, f"{lost:.2f} points lost of {before}; {budget.max_loss:g} allowed"))
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.info.name,
            "budget": asdict(self.budget),
            "stages": [stage.to_dict() for stage in self.stages],
            "rejected": [{"candidate": name, "why": why} for name, why in self.rejected],
            "considered": [each.to_dict() for each in self.considered],
            "verified": self.lessons is not None,
            "kept": all(passed for passed, _ in self.verdicts()),
        }

    def _price(self, candidate: Candidate) -> Cost:
        """Once: an NPU's compiler takes ten seconds for each."""
        path = self._file(f"price of {candidate.name}", ".json")
        if not path.exists():
            info, frames = replace(self.info, config=candidate.config), self.budget.frames
            learnt = self.weights if candidate.kind == KEPT else None
            taken = self.target.price(info, candidate.weights, candidate.state, frames, learnt)
            write_whole(path, json.dumps(asdict(taken)).encode())
        return Cost(**json.loads(path.read_text()))

    # One candidate, stage by stage

    def carry_out(self, candidate: Candidate, report: Callable[[str], None]) -> list[Stage]:
        """The stages that lead to a candidate, the last of them the candidate itself."""
        folder, int8 = self.work / candidate.name, ("int8", candidate.state)
        folder.mkdir(exist_ok=True)
        path, stages = self.path, []
        if candidate.kind == PRUNED:
            path = self._pruned(candidate, folder / "pruned.safetensors")
            said = f"{candidate.share:.0%} of heads, units and channels removed for good"
            stages.append(self._stage(path, f"{candidate.shape}, cut", said, int8))
            path, said = self._lessons.fine_tune(path, folder / "tuned")
            stages.append(self._stage(path, f"{candidate.shape}, tuned", said, int8))
        elif candidate.kind != KEPT:
            shape = replace(self.info, name=f"{self.info.name}-{candidate.shape}", config=candidate.config)
            path, said = self._lessons.teach(shape, folder / "taught")
            stages.append(self._stage(path, f"{candidate.shape}, taught", said, int8))
        if candidate.weights != "int4":
            if candidate.kind == KEPT or candidate.state == "bfloat16":
                said = f"weights int8, what a stream remembers as {candidate.state}"
                stages.append(self._stage(path, candidate.name, said, int8))
            return stages
        rounded, said = self._rounded(candidate, path, folder / "rounded.safetensors")
        stages.append(self._stage(rounded, candidate.name, said, ("int4", candidate.state)))
        lost = self.lost(stages[-2] if len(stages) > 1 else self._float(), stages[-1])
        if lost is None or lost <= ENOUGH:
            return stages
        report(f"{candidate.name}: rounding lost {lost:.2f} points; training makes good for it")
        tuned, said = self._lessons.fine_tune(rounded, folder / "on-grids", "int4")
        stages.append(self._stage(tuned, f"{candidate.name}, tuned", said, ("int4", candidate.state)))
        if (stages[-1].right or 0) < (stages[-2].right or 0):  # training is no promise
            return stages[:-1]
        return stages

    @property
    def _lessons(self) -> Lessons:
        assert self.lessons is not None  # `plan.choose` gives what needs training only where there is data
        return self.lessons

    def _float(self) -> Stage:
        """The one stage that is the engine's whatever the target is: no NPU has floats."""
        return self._stage(self.path, "as trained", "float32 weights and state", ("float", "float"), InEngine())

    def _pruned(self, candidate: Candidate, path: Path) -> Path:
        if not path.exists():
            ranked = prune.importance(step.build(self.info, self.weights), self._lessons.losses())
            share = candidate.share
            info, weights = prune.prune(self.info, self.weights, ranked, prune.Plan(share, share, share))
            checkpoint.save(path, info, weights)
        return path

    def _rounded(self, candidate: Candidate, source: Path, path: Path) -> tuple[Path, str]:
        """int4 in as few layers as the budget allows, those where it does least harm; without data in all of them."""
        if self.lessons is None:
            scheme: quantize.Scheme = quantize.Int4("nearest")
            said = "weights int4, each rounded by itself: there is no data to do better"
        else:
            variable = candidate.cost.variable_bytes if candidate.cost else 0
            room = None if self.budget.memory_bytes is None else self.budget.memory_bytes - variable
            scheme = quantize.Int4() if room is None else quantize.Mixed(max_bytes=room)
            said = "weights int4 where it does least harm, else int8; rounded so that errors make up for one another"
        if not path.exists():
            info, weights = checkpoint.load(source)
            features = None if self.lessons is None else self.lessons.features()
            checkpoint.save(path, info, quantize.quantize(scheme, info, weights, features))
        return path, said

    # What is there from before, and what is left behind

    def _remember_settings(self) -> None:
        """Raises: ValueError where the folder holds a run with other settings."""
        settings = {
            "model": digest(self.path.read_bytes()),
            "budget": asdict(self.budget),
            "recipe": digest(repr(asdict(self.data.recipe)).encode()) if self.data else "",
            "teacher": digest(self.data.teacher.read_bytes()) if self.data else "",
            "epochs": self.epochs,
            "seed": self.seed,
            "target": self.target.identity,
        }
        path = self.work / "settings.json"
        if path.exists() and json.loads(path.read_text()) != settings:
            raise ValueError(f"{self.out} holds a compression with other settings; choose another folder, or delete it")
        write_whole(path, json.dumps(settings).encode())

    def _stage(self, source: Path, name: str, done: str, form: tuple[str, str], target: Target | None = None) -> Stage:
        """A checkpoint described, exported, measured and verified; read again where that was done before."""
        path, target = self._file(name, ".json"), target or self.target
        if not path.exists():
            began = time.perf_counter()
            self._describe(source, name)
            weights = None if form[0] == "int4" else form[0]  # int4: where the checkpoint has grids
            made = self._file(name, target.suffix)
            cost = target.make(self._file(name, ".safetensors"), made, weights, form[1], self.budget.frames)
            right, clips = self.lessons.verify(target.recognizer(made)) if self.lessons else (None, 0)
            taken = time.perf_counter() - began
            stage = Stage(name, done, cost, right, clips, taken)
            write_whole(path, json.dumps(stage.to_dict()).encode())
        return Stage.from_dict(json.loads(path.read_text()))

    def _describe(self, source: Path, name: str) -> None:
        """The checkpoint of a stage, which says of itself what it is."""
        info, weights = checkpoint.load(source)
        provenance = {
            **{key: value for key, value in self.info.provenance.items() if key in KEPT_FROM_THE_WHOLE},
            **info.provenance,
            "parameters": sum(v.size for k, v in without_grids(weights).items() if "running" not in k),
            "compressed": {"from": self.info.name, "form": name},
        }
        decoder = dict(info.decoder)
        if "threshold" in decoder:  # a confidence means the same for each, so the model stays as bold as it was
            decoder["threshold"] = self.info.decoder.get("threshold", decoder["threshold"])
        described = replace(info, name=f"{self.info.name}-compressed", decoder=decoder, provenance=provenance)
        checkpoint.save(self._file(name, ".safetensors"), described, weights)

    def _file(self, name: str, suffix: str) -> Path:
        return self.work / (name.replace(", ", "-").replace(" ", "-") + suffix)

    def _write(self, last: Stage) -> None:
        """The model in the output's folder: of an NPU too for the engine, so that it is heard on this machine."""
        write_whole(self.out / CHECKPOINT, self._file(last.name, ".safetensors").read_bytes())
        if isinstance(self.target, OnEthosU):
            folder = self.out / "ethos-u"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self._file(last.name, self.target.suffix), folder)
            engine.export(self.out / CHECKPOINT, self.out / ENGINE_FILE, "int8")
        else:
            write_whole(self.out / ENGINE_FILE, self._file(last.name, self.target.suffix).read_bytes())
