"""A measured job puts back what was kept, or measures; what goes wrong ends it in one sentence."""

import argparse
import contextlib
import json
from copy import deepcopy
from types import SimpleNamespace

import msgspec
import pytest

from pdswitch.engine import job
from pdswitch.engine.client import EngineError, EngineGoneError, EngineStartError
from pdswitch.errors import InputError
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
}


SCRIPT = "workflow/scripts/throughput.py"


def parse(model: str = "model.json", *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    job.add_engine_arguments(parser)
    return parser.parse_args(["--model", model, "--engine", ENGINE, *more])


@pytest.fixture
def opened(monkeypatch):
    """What a job's engine is opened with; nothing is started."""
    seen = {"engine": SimpleNamespace(facts=deepcopy(FACTS))}

    @contextlib.contextmanager
    def open_engine(spec, **options):
        seen.update(options, spec=spec)
        seen.get("while_it_waits", lambda: None)()
        yield seen["engine"] if options["still_wanted"]() else None

    monkeypatch.setattr(job, "open_engine", open_engine)
    return seen


@pytest.fixture
def arguments(tmp_path, opened, root, monkeypatch):
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    monkeypatch.chdir(root)
    return parse(str(tmp_path / "model.json"), "--store", str(tmp_path / "measured"))


class Output:
    """The one file of a job, and how often it was measured."""

    def __init__(self, folder) -> None:
        self.path = folder / "run.json"
        self.measured = 0

    def serve(self, engine) -> None:
        self.measured += 1
        self.path.write_text(f"measured {self.measured}")


@pytest.fixture
def output(tmp_path) -> Output:
    return Output(tmp_path)


def run(arguments, output) -> None:
    job.run_job(SCRIPT, arguments, [output.path], output.serve)


def refuse(_):
    pytest.fail("it must not be used")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (EngineStartError("the engine died. The end of its log"), "error: the engine died. The"),
        (EngineError("the engine refused: no"), "error: the engine refused: no"),
        (InputError("vLLM is not installed"), "error: vLLM is not installed"),
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


def test_an_engine_that_is_not_as_asked_for_measures_nothing(arguments, opened, output):
    opened["engine"].facts["environment"]["OMP_NUM_THREADS"] = "2"
    with pytest.raises(EngineError, match="nobody asked for: OMP_NUM_THREADS"):
        job.run_job(SCRIPT, arguments, [output.path], refuse)


def test_a_hidden_gpu_is_not_taken(arguments, output, monkeypatch):
    arguments.engine = msgspec.structs.replace(arguments.engine, device="cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sentence = r"which hides all GPUs; unset it, or set engine\.device"
    with pytest.raises(ValueError, match=sentence):
        job.run_job(SCRIPT, arguments, [output.path], refuse)


def test_how_long_an_engine_is_kept_and_waited_for_is_set_by_the_workflow(monkeypatch):
    monkeypatch.setenv("PDSWITCH_IDLE_TIMEOUT_S", "1.5")
    monkeypatch.setenv("PDSWITCH_START_TIMEOUT_S", "2.5")
    monkeypatch.setenv("PDSWITCH_RUN_TIMEOUT_S", "3.5")
    parsed = parse()
    assert (parsed.idle_timeout_s, parsed.start_timeout_s, parsed.run_timeout_s) == (1.5, 2.5, 3.5)


def test_the_job_s_limits_reach_the_engine(arguments, opened, output):
    run(arguments, output)
    assert opened["run_timeout_s"] == 86400
    assert opened["spec"].n_slots == 2


def test_what_was_kept_is_put_back_without_an_engine(arguments, opened, output):
    run(arguments, output)
    opened.clear()
    output.path.unlink()
    run(arguments, output)
    assert output.measured == 1
    assert output.path.read_text() == "measured 1"
    # No device was asked for either.
    assert opened == {}


def test_what_another_workflow_measured_while_the_job_waited_is_put_back(
    arguments, opened, output, tmp_path
):
    other = Output(tmp_path / "other")
    other.path.parent.mkdir()
    opened["while_it_waits"] = lambda: (opened.pop("while_it_waits"), run(arguments, other))
    run(arguments, output)
    assert (other.measured, output.measured) == (1, 0)
    assert output.path.read_text() == "measured 1"


def test_a_run_that_failed_is_not_kept(arguments, opened, output):
    def fail(engine):
        output.serve(engine)
        raise EngineError("it died")

    with pytest.raises(EngineError, match="it died"):
        job.run_job(SCRIPT, arguments, [output.path], fail)
    run(arguments, output)
    assert output.measured == 2


def test_where_no_one_says_which_gpus_there_are_nothing_is_kept(
    arguments, output, monkeypatch, capsys
):
    monkeypatch.setattr(job, "identity", lambda spec: None)
    for times in (1, 2):
        run(arguments, output)
        assert output.measured == times
        assert "nvidia-smi does not say which GPUs there are" in capsys.readouterr().err
        arguments = parse(str(arguments.model), "--store", "measured")
