"""Who may use a device: locks of single devices, and workflows that measure one after the other."""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pdswitch.engine import client
from pdswitch.engine.claims import claim
from pdswitch.engine.client import EngineError, open_engine
from pdswitch.engine.device import DeviceDirectory, EngineNote, Holder, read_note, write_note
from pdswitch.engine.processes import HOST_MODULE, is_alive, start_time
from pdswitch.engine.protocol import VERSION, Hello
from pdswitch.engine.spec import EngineSpec
from stand_in_engine import ServedStandIn

SPEC = EngineSpec(
    model="m",
    n_slots=2,
    max_model_len=10,
    max_num_batched_tokens=10,
    device="cuda",
    # Python itself refuses to start.
    environment={"PYTHONHOME": "/nowhere"},
)
NOBODY = Hello(VERSION)
TIMEOUT_S = 20.0


def on(visible: str, count: int) -> EngineSpec:
    return msgspec.structs.replace(SPEC, visible_devices=visible, tensor_parallel_size=count)


def opened(root: Path, spec: EngineSpec, said: list[str]):
    return open_engine(
        spec,
        idle_timeout_s=60,
        start_timeout_s=30,
        log_folder=root / "logs",
        say=said.append,
        root=root,
    )


def directories(root: Path, *devices: str) -> list[DeviceDirectory]:
    return [DeviceDirectory(device, root) for device in devices]


def await_said(said: list[str], count: int = 1) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while len(said) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(said) >= count


@contextlib.contextmanager
def waiting(root: Path, owner: Hello, said: list[str], *devices: str) -> Iterator[threading.Thread]:
    """A job in a thread, which holds these devices as soon as it gets them, and lets them go."""

    def hold() -> None:
        with client._hold(directories(root, *devices), owner, said.append):
            said.append("held")

    thread = threading.Thread(target=hold)
    thread.start()
    yield thread
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


# -- locks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [("gpu-0",), ("gpu-1",), ("gpu-1", "gpu-2")])
def test_a_job_waits_for_every_single_device_it_takes(tmp_path, second):
    said: list[str] = []
    holding = contextlib.ExitStack()
    holding.enter_context(client._hold(directories(tmp_path, "gpu-0", "gpu-1"), NOBODY, print))
    with waiting(tmp_path, NOBODY, said, *second):
        await_said(said)
        assert said == [
            f"waiting for the device: process {os.getpid()} in {Path.cwd()} is using it"
        ]
        holding.close()
    assert said[1:] == ["held"]


def test_jobs_on_other_devices_do_not_wait(tmp_path):
    said: list[str] = []
    with (
        client._hold(directories(tmp_path, "gpu-0", "gpu-1"), NOBODY, print),
        waiting(tmp_path, NOBODY, said, "gpu-2", "gpu-3"),
    ):
        pass
    assert said == ["held"]


def looks_like_an_engine() -> subprocess.Popen:
    code = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code, HOST_MODULE], start_new_session=True)


@pytest.mark.parametrize(("visible", "count"), [("0", 1), ("1", 1), ("1,2", 2), ("1,0", 2)])
def test_a_warm_engine_on_some_of_the_devices_ends_before_another_starts(tmp_path, visible, count):
    warm = looks_like_an_engine()
    try:
        started = start_time(warm.pid)
        note = EngineNote(warm.pid, started, on("0,1", 2).key(), str(tmp_path / "log"))
        for directory in directories(tmp_path, "gpu-0", "gpu-1"):
            write_note(directory.note, note)
        said: list[str] = []
        with (
            pytest.raises(EngineError, match="the engine died"),  # the new one
            opened(tmp_path, on(visible, count), said),
        ):
            pytest.fail("it must not open")
        assert said[0] == "replacing an engine with other settings"
        assert said[1].startswith("starting the engine")
        assert not is_alive(warm.pid, started)
    finally:
        warm.kill()
        warm.wait()


def test_an_engine_on_other_devices_stays(tmp_path):
    warm = looks_like_an_engine()
    try:
        note = EngineNote(warm.pid, start_time(warm.pid), on("0,1", 2).key(), "log")
        for directory in directories(tmp_path, "gpu-0", "gpu-1"):
            write_note(directory.note, note)
        with pytest.raises(EngineError), opened(tmp_path, on("2,3", 2), []):
            pytest.fail("it must not open")
        assert warm.poll() is None
        (kept,) = {read_note(d.note, EngineNote) for d in directories(tmp_path, "gpu-0", "gpu-1")}
        assert kept == note
    finally:
        warm.kill()
        warm.wait()


def test_an_engine_on_several_devices_is_found_again(tmp_path):
    spec = on("0,1", 2)
    served = ServedStandIn(tmp_path, key=spec.key(), devices=("gpu-0", "gpu-1"))
    try:
        said: list[str] = []
        for _ in range(2):
            with opened(tmp_path, spec, said) as engine:
                assert engine.facts["pid"] == os.getpid()
        assert said == []
    finally:
        served.stop()


def test_who_ends_an_engine_leaves_the_notes_of_devices_that_others_hold(tmp_path):
    # The engine on 0 and 1 has gone; somebody has started another one on 0 since.
    gone, held = directories(tmp_path, "gpu-1", "gpu-0")
    write_note(gone.note, EngineNote(1, 1, on("0,1", 2).key(), "log"))
    mine = EngineNote(os.getpid(), start_time(os.getpid()), "another", "log")
    write_note(held.note, mine)
    with pytest.raises(EngineError), opened(tmp_path, on("1", 1), []):
        pytest.fail("it must not open")
    assert read_note(held.note, EngineNote) == mine
    assert not gone.note.exists()


def test_a_new_engine_is_named_at_every_device_it_takes(tmp_path, monkeypatch):
    seen = []

    def look(home, note, *_):
        notes = directories(tmp_path, "gpu-0", "gpu-1")
        seen.extend(read_note(directory.note, EngineNote) == note for directory in notes)
        raise EngineError("enough")

    monkeypatch.setattr(client, "_await_ready", look)
    with pytest.raises(EngineError, match="enough"), opened(tmp_path, on("1,0", 2), []):
        pytest.fail("it must not open")
    assert seen == [True, True]
    assert not [d for d in directories(tmp_path, "gpu-0", "gpu-1") if d.note.exists()]


# -- workflows --------------------------------------------------------------------------------


class Workflow:
    """A process that stands for a workflow's."""

    def __init__(self, folder: str = "somewhere") -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.holder = Holder(self.process.pid, start_time(self.process.pid), folder)
        self.hello = Hello(VERSION, self.holder.pid, self.holder.started)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workflows():
    both = [Workflow("first"), Workflow("second")]
    yield both
    for workflow in both:
        workflow.end()


def test_a_device_belongs_to_a_workflow_until_that_has_ended(tmp_path, workflows):
    first, second = workflows
    devices = directories(tmp_path, "gpu-0")
    assert claim(devices, first.holder) is None
    assert claim(devices, first.holder) is None
    assert claim(devices, second.holder) == first.holder
    first.end()
    assert claim(devices, second.holder) is None


def test_a_claim_that_cannot_be_read_counts_for_nothing(tmp_path, workflows):
    devices = directories(tmp_path, "gpu-0")
    devices[0].claim.write_text("{half a cla")
    assert claim(devices, workflows[0].holder) is None


def test_devices_are_claimed_all_or_none(tmp_path, workflows):
    first, second = workflows
    zero, one = directories(tmp_path, "gpu-0", "gpu-1")
    assert claim([one], first.holder) is None
    assert claim([zero], second.holder) is None
    # What it had is given up while it waits, so that the first may have it.
    assert claim([zero, one], second.holder) == first.holder
    assert claim([zero, one], first.holder) is None


def test_a_workflow_that_goes_on_to_other_devices_gives_up_those_it_had(tmp_path, workflows):
    first, second = workflows
    zero, one = directories(tmp_path, "gpu-0", "gpu-1")
    assert claim([zero, one], first.holder) is None
    assert claim([one], first.holder) is None
    assert claim([zero], second.holder) is None
    assert claim([one], second.holder) == first.holder


def test_a_job_says_which_workflow_it_waits_for_and_goes_on_when_that_has_ended(
    tmp_path, workflows
):
    first, second = workflows
    # The first workflow has no job at the moment: the device itself is free.
    with client._hold(directories(tmp_path, "gpu-0"), first.hello, print):
        pass
    said: list[str] = []
    with waiting(tmp_path, second.hello, said, "gpu-0", "gpu-1"):
        await_said(said)
        assert said == [
            f"waiting for the device: workflow {first.holder.pid} in {Path.cwd()} measures on it"
        ]
        first.end()
    assert said[1:] == ["held"]


def test_jobs_of_one_workflow_follow_each_other(tmp_path, workflows):
    for _ in range(3):
        with client._hold(directories(tmp_path, "gpu-0"), workflows[0].hello, pytest.fail):
            pass


def test_a_job_without_a_workflow_waits_for_the_lock_alone(tmp_path, workflows):
    with client._hold(directories(tmp_path, "gpu-0"), workflows[0].hello, print):
        pass
    with client._hold(directories(tmp_path, "gpu-0"), NOBODY, pytest.fail):
        pass


def test_a_job_whose_workflow_ends_while_it_waits_for_another_gives_up(tmp_path, workflows):
    first, second = workflows
    assert claim(directories(tmp_path, "gpu-0"), first.holder) is None
    threading.Timer(0.3, second.end).start()
    with (
        pytest.raises(EngineError, match="the workflow of this job has ended"),
        client._hold(directories(tmp_path, "gpu-0"), second.hello, print),
    ):
        pytest.fail("it must not be held")


def test_workflows_that_want_each_other_s_devices_all_come_to_their_end(tmp_path):
    chance = random.Random(0)
    names = ["gpu-0", "gpu-1", "gpu-2"]
    held = {name: threading.Lock() for name in names}
    trouble: list[str] = []

    def measure(workflow: Workflow, stages: list[list[str]]) -> None:
        for stage in stages:
            with client._hold(directories(tmp_path, *stage), workflow.hello, lambda _: None):
                trouble.extend(name for name in stage if not held[name].acquire(blocking=False))
                time.sleep(0.01)
                for name in stage:
                    held[name].release()
        workflow.end()

    workflows = [Workflow() for _ in range(5)]
    threads = []
    for workflow in workflows:
        stages = [sorted(chance.sample(names, chance.randint(1, 3))) for _ in range(4)]
        threads.append(threading.Thread(target=measure, args=(workflow, stages)))
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert trouble == []
    finally:
        for workflow in workflows:
            workflow.end()
