"""Recipes: read, refused with line and key, run, written back, replayed to the same net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fastcnn as fc
from fastcnn.compression.recipe import PruneStage, Recipe, shipped_recipes
from fastcnn.compression.yaml_lines import RecipeError
from fastcnn.methods.vq.scalar import CodebookLinear
from tests.compression.nets import accuracy, batches, small_cnn

TINY = """
version: 1
name: tiny
seed: 3
layers: [conv, hidden, last]
stages:
  - prune: {sparsity: 0.6, overrides: {hidden: 0.8}, skip: [], rounds: 3, epochs: 4, lr: 1e-2}
  - retrain: {epochs: 4, lr: 5e-3, lr_schedule: cosine}
  - share: {clusters: 6, conv_clusters: 9, algorithm: optimal}
  - tune: {epochs: 2, lr: 1e-3, distill_weight: 0.3}
"""


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    model = small_cnn()
    fc.finetune(model, batches(), epochs=8, lr=0.01)
    return model


def test_every_stage_runs_and_the_net_is_what_the_recipe_says(dense: nn.Module) -> None:
    result = fc.run_recipe(dense, Recipe.parse(TINY), batches(), accuracy)
    hidden = result.model.get_submodule("hidden")
    assert isinstance(hidden, CodebookLinear)
    assert int((hidden.codes == 0).sum()) == round(0.8 * 96 * 24)
    assert hidden.codebook.numel() == 7
    assert result.model.get_submodule("conv").codebook.numel() == 10
    assert [stage.stage for stage in result.stages] == ["prune", "retrain", "share", "tune"]
    assert [None if s.history is None else s.history.steps for s in result.stages] == [32, 32, None, 16]
    assert result.metric is not None
    assert result.metric_before is not None
    assert result.metric >= result.metric_before - 6
    assert result.metric == pytest.approx(accuracy(result.model.eval()))
    assert [line.method for line in result.report.of("hidden")] == ["magnitude", "kmeans"]
    assert type(dense.get_submodule("hidden")) is nn.Linear


def test_the_written_recipe_replays_to_the_same_net(dense: nn.Module, tmp_path: Path) -> None:
    first = fc.run_recipe(dense, Recipe.parse(TINY), batches(), checkpoint_dir=tmp_path / "a")
    written = tmp_path / "a" / "recipe.yaml"
    assert Recipe.load(written) == first.recipe == Recipe.parse(TINY)
    second = fc.run_recipe(dense, written, batches())
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key


def test_an_interrupted_recipe_goes_on_to_the_same_net(dense: nn.Module, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    calls = []

    def stop(model: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return 0.0

    whole = fc.run_recipe(dense, Recipe.parse(TINY), batches())
    with pytest.raises(Stop):
        fc.run_recipe(dense, Recipe.parse(TINY), batches(), stop, checkpoint_dir=tmp_path)
    again = fc.run_recipe(dense, Recipe.parse(TINY), batches(), checkpoint_dir=tmp_path)
    assert again.stages[0].history is not None
    assert again.stages[0].history.resumed_from == 32
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


def test_a_folder_of_another_recipe_is_not_resumed(dense: nn.Module, tmp_path: Path) -> None:
    one, two = (Recipe(stages=(PruneStage(sparsity=s, epochs=0),)) for s in (0.5, 0.6))
    fc.run_recipe(dense, one, batches(), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of another recipe"):
        fc.run_recipe(dense, two, batches(), checkpoint_dir=tmp_path)
    assert Recipe.load(tmp_path / "recipe.yaml") == one
    fc.run_recipe(dense, two, batches(), checkpoint_dir=tmp_path, resume=False)
    assert Recipe.load(tmp_path / "recipe.yaml") == two


def test_pruning_without_sharing_gives_ordinary_modules(dense: nn.Module) -> None:
    recipe = Recipe(stages=(PruneStage(sparsity=0.5, epochs=1, rounds=2, skip=()),))
    small = fc.run_recipe(dense, recipe, batches()).model
    assert small.state_dict().keys() == dense.state_dict().keys()
    assert int((small.get_parameter("hidden.weight") == 0).sum()) == 96 * 24 // 2


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("schedule", ["linear", "cubic"])
def test_rounds_are_spread_evenly_and_the_last_leaves_time_to_retrain(rounds: int, schedule: str) -> None:
    stage = PruneStage(rounds=rounds, epochs=5, schedule=schedule)  # type: ignore[arg-type]
    config = stage.config(batches=20)
    values = [config.progress(step) for step in range(100)]
    assert sorted(values) == values
    assert len(set(values)) == rounds
    assert values[0] > 0
    every = 100 // rounds
    assert values[-every:] == [1.0] * every


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_write_back(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert Recipe.parse(recipe.to_yaml()) == recipe


def test_the_shipped_recipe_is_there() -> None:
    assert "deep-compression" in shipped_recipes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", r"net\.yaml, line 1: a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("version: 1\nstages:\n  - [", r"line 3: no valid YAML"),
        ("version: 2\nstages: [share]", r"line 1: version: 2 is not supported: allowed is 1"),
        ("stages: [share]", "version: None is not supported"),
        ("version: 1\nseeds: 3\nstages: [share]", r"line 2: seeds: unknown key: allowed are version, name, seed"),
        ("version: 1\nversion: 1", r"line 2: the key 'version' stands twice"),
        ("version: 1\nstages: 3", r"line 2: stages: must be a list"),
        ("version: 1\nstages: []", r"line 2: stages: stages is empty"),
        ("version: 1\nstages:\n  - quantise: {}", r"line 3: stages\[0\]\.quantise: unknown stage: allowed are prune"),
        ("version: 1\nstages:\n  - share: 3", r"line 3: stages\[0\]\.share: settings must be a mapping, got 3"),
        ("version: 1\nstages:\n  - {share: {}, tune: {}}", r"line 3: stages\[0\]: a stage is one of"),
        (
            "version: 1\nstages:\n  - prune:\n      epochs: 2\n      sparsty: 0.9",
            r"line 5: stages\[0\]\.prune\.sparsty: unknown key: allowed are epochs, .*sparsity",
        ),
        (
            "version: 1\nstages:\n  - prune:\n      epochs: 2\n      sparsity: 90",
            r"line 5: stages\[0\]\.prune\.sparsity: sparsity=90 is out of range: allowed is 0\.0 <= sparsity < 1\.0",
        ),
        ("version: 1\nstages:\n  - prune: {overrides: {fc: no}}", r"line 3: .*overrides\['fc'\] must be a number"),
        ("version: 1\nstages:\n  - retrain: {optimizer: lion}", r"optimizer='lion' .* choose from 'adam'"),
        ("version: 1\nstages:\n  - share: {clusters: 0}", r"line 3: stages\[0\]\.share\.clusters: clusters=0"),
        ("version: 1\nstages:\n  - tune: {epochs: 1}\n  - share: {}", "put share before tune"),
        ("version: 1\nstages: [share, prune]", "put prune before share"),
        ("version: 1\nstages: [prune, prune]", "2 prune stages: one is allowed"),
        ("version: 1\nseed: -4\nstages: [share]", r"line 2: seed: seed=-4"),
        ("version: 1\nlayers: 3\nstages: [share]", "layers must be a glob pattern"),
        ("version: 1\nstages: !!python/object/apply:os.getcwd []", "line 2"),
        ("version: 1\nname: &a [*a]\nstages: [share]", "net.yaml"),
    ],
)
def test_errors_name_file_line_key_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.parse(text, "net.yaml")


def test_an_unknown_recipe_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'depp-compression' is neither .* choose from deep-compression"):
        Recipe.load("depp-compression")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="neither a readable YAML file"):
        Recipe.load(tmp_path / "bytes.yaml")
