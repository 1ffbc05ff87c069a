"""What goes wrong in a measured job ends it in one sentence."""

import argparse
import contextlib
import json
from copy import deepcopy
from types import SimpleNamespace

import msgspec
import pytest

from pdswitch.engine import job
from pdswitch.engine.client import EngineError, EngineGoneError, EngineStartError
from pdswitch.files import NoRoomError
from synthetic_runs import ENGINE as FACTS

ENGINE = json.dumps(
    {"n_slots": 2, "max_input_tokens": 10, "max_output_tokens": 10, "device": "cpu"}
)
MODEL = {
    "name": "m",
    "path": "m",
    "revision": None,
    "digest": "d",
    "architecture": "a",
    "context_length": 100,
    "vocabulary_size": 10,
    "weight_bytes": None,
    "kv_bytes_per_token": 64,
}


def parse(model: str = "model.json") -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    job.add_engine_arguments(parser)
    return parser.parse_args(["--model", model, "--engine", ENGINE])


@pytest.fixture
def opened(monkeypatch):
    """What a job's engine is opened with; nothing is started."""
    seen = {"engine": SimpleNamespace(facts=deepcopy(FACTS))}

    @contextlib.contextmanager
    def open_engine(spec, **options):
        seen.update(options, spec=spec)
        yield seen["engine"]

    monkeypatch.setattr(job, "open_engine", open_engine)
    return seen


@pytest.fixture
def arguments(tmp_path, opened):
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    return parse(str(tmp_path / "model.json"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (EngineStartError("the engine died. The end of its log"), "error: the engine died. The"),
        (EngineError("the engine refused: no"), "error: the engine refused: no"),
        (ModuleNotFoundError("vLLM is not installed"), "error: vLLM is not installed"),
        (
            NoRoomError("results/run.json", "No space left on device"),
            "error: results/run.json could not be written (No space left on device); "
            "free some space there and run again",
        ),
    ],
)
def test_errors_are_sentences_and_are_not_tried_again(error, sentence):
    tries = []

    @job.engine_job
    def main():
        tries.append(1)
        raise error

    with pytest.raises(SystemExit) as caught:
        main()
    assert str(caught.value).startswith(sentence)
    assert len(tries) == 1


@pytest.mark.parametrize("deaths", [1, 2])
def test_an_engine_that_dies_at_work_is_replaced_once(deaths, capsys):
    tries = []

    @job.engine_job
    def main():
        tries.append(1)
        if len(tries) <= deaths:
            raise EngineGoneError("the engine died.")

    expected = contextlib.nullcontext()
    if deaths == 2:
        expected = pytest.raises(SystemExit, match="error: the engine died")
    with expected:
        main()
    assert len(tries) == 2
    assert "once more, with a new engine" in capsys.readouterr().err


def test_an_engine_that_is_not_as_asked_for_measures_nothing(arguments, opened):
    opened["engine"].facts["environment"]["OMP_NUM_THREADS"] = "2"
    said = pytest.raises(EngineError, match="nobody asked for: OMP_NUM_THREADS")
    with said, job.engine_of(arguments):
        pytest.fail("it must not be used")


def test_a_hidden_gpu_is_not_taken(arguments, monkeypatch):
    arguments.engine = msgspec.structs.replace(arguments.engine, device="cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = pytest.raises(ValueError, match=r"which hides all GPUs; unset it, or set engine\.device")
    with said, job.engine_of(arguments):
        pytest.fail("it must not be used")


def test_how_long_an_engine_is_kept_and_waited_for_is_set_by_the_workflow(monkeypatch):
    monkeypatch.setenv("PDSWITCH_IDLE_TIMEOUT_S", "1.5")
    monkeypatch.setenv("PDSWITCH_START_TIMEOUT_S", "2.5")
    monkeypatch.setenv("PDSWITCH_RUN_TIMEOUT_S", "3.5")
    parsed = parse()
    assert (parsed.idle_timeout_s, parsed.start_timeout_s, parsed.run_timeout_s) == (1.5, 2.5, 3.5)


def test_the_job_s_limits_reach_the_engine(arguments, opened):
    with job.engine_of(arguments) as engine:
        assert engine is opened["engine"]
    assert opened["run_timeout_s"] == 86400
    assert opened["spec"].n_slots == 2
