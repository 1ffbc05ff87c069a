"""The figures: drawn for every kind of data that can come, and equal bytes for equal data."""

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from figure_files import figure_inputs, write_cell
from pdswitch.analysis.results import phases_of_run
from pdswitch.figures import (
    hazard,
    input_length_distribution,
    online_kstar_convergence,
    output_length_distribution,
    profiling_results,
    throughput_vs_k,
    timeline,
)
from pdswitch.figures.catalogue import figures
from pdswitch.figures.lengths import MOST_BINS, whole_token_bins
from pdswitch.figures.save import save_figure
from pdswitch.figures.style import house_style, plain
from pdswitch.figures.throughput_vs_k import bands, measured_throughput
from synthetic import (
    block_of,
    history_of,
    play,
    profile_steps,
    prompts_of,
    requests_of,
    results_of,
    termination_of,
    timing_of,
)


def texts(figure: Figure) -> str:
    """All text of a figure, as drawn."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def is_drawn(figure: Figure) -> None:
    """Render it, small to be quick, and check that something is on it."""
    image = io.BytesIO()
    with house_style():
        figure.savefig(image, format="png", dpi=60)
    with Image.open(image) as opened:
        assert len(opened.getcolors(maxcolors=1 << 20) or []) > 10


def prompts_frame(count: int) -> pd.DataFrame:
    return pd.DataFrame({"prompt_tokens": prompts_of(count)})


def without_runs(results: dict[str, Any]) -> dict[str, Any]:
    """The same results if the gate had turned every run down."""
    empty = {k: block_of([], []) for k in results["throughput_by_k"]}
    return results | {"throughput_by_k": empty, "mixed": block_of([], []), "online": None}


class TestThroughput:
    @pytest.mark.parametrize(
        ("n_slots", "repeats"), [(16, 3), (16, 1), (1, 1), (1, 2), (2, 2), (1024, 2)]
    )
    def test_any_number_of_slots_and_repeats(self, n_slots, repeats):
        is_drawn(throughput_vs_k.draw(results_of(n_slots, repeats)))

    def test_names_what_is_marked(self):
        results = results_of()
        shown = texts(throughput_vs_k.draw(results))
        assert f"offline $k^*$ = {results['k_star']}" in shown
        assert rf"best measured $\hat{{k}}$ = {results['k_hat']}" in shown
        assert f"single-exit $k^*$ = {results['k_star_single_exit']}" in shown
        for label in (
            "online $k^*$",
            "mixed: vLLM's own",
            "predicted, straight fits",
            "predicted, measured curves",
            "makespan",
            "steady window",
        ):
            assert label in shown

    def test_without_an_online_run_and_without_a_steady_window(self):
        results = results_of() | {"online": None}
        for block in results["throughput_by_k"].values():
            block["steady_throughput"] = {"mean": None, "se": None, "values": []}
        figure = throughput_vs_k.draw(results)
        assert "online $k^*$" not in texts(figure)
        assert "no run counts here" in texts(figure)
        is_drawn(figure)

    def test_says_so_if_every_run_was_rejected(self):
        figure = throughput_vs_k.draw(without_runs(results_of()))
        assert texts(figure).count("no run counts here") == 2
        is_drawn(figure)

    def test_a_grid_of_one(self):
        results = results_of()
        k_star = str(results["k_star"])
        results["throughput_by_k"] = {k_star: results["throughput_by_k"][k_star]}
        results["verdict"] |= {"indifference_set": [results["k_star"]]}
        results["k_hat"] = results["k_star"]
        is_drawn(throughput_vs_k.draw(results))

    def test_a_prediction_with_gaps(self):
        results = results_of()
        results["prediction"] |= {"low": [None] * 16, "high": [None] * 16}
        is_drawn(throughput_vs_k.draw(results))

    def test_a_dollar_sign_is_no_mathematics(self):
        figure = throughput_vs_k.draw(results_of(dataset="pay $1 or $x_2"))
        assert plain("pay $1 or $x_2") in texts(figure)
        is_drawn(figure)


class TestMeasuredThroughput:
    def test_what_all_k_of_a_block_share_counts_once(self):
        by_k = {str(k): block_of([10.0, 10.0 * np.e], []) for k in (1, 2, 3)}
        found = measured_throughput(by_k, "throughput")
        # Two blocks 1 apart, whatever the number of k: s² = 0.5, t(1 degree) = 12.706.
        width = 12.7062047 * np.sqrt(0.5 / 2)
        assert np.log(found.high / found.mean) == pytest.approx([width] * 3, rel=1e-6)
        assert np.log(found.mean / found.low) == pytest.approx([width] * 3, rel=1e-6)

    def test_only_k_of_the_same_blocks_are_pooled(self):
        by_k = {k: block_of([np.exp(d), np.exp(-d)], []) for k, d in (("1", 0.5), ("2", 0.1))}
        by_k["2"]["throughput"]["blocks"] = [1, 3]
        found = measured_throughput(by_k, "throughput")
        assert np.log(found.high / found.mean) == pytest.approx(
            12.7062047 * np.array([0.5, 0.1]), rel=1e-6
        )

    def test_repeats_are_matched_by_their_block(self):
        by_k = {"1": block_of([10.0, 12.0, 11.0], []), "2": block_of([22.0, 20.0, 24.0], [])}
        by_k["2"]["throughput"]["blocks"] = [3, 1, 2]
        one = measured_throughput({"1": by_k["1"]}, "throughput")
        both = measured_throughput(by_k, "throughput")
        # The second k is twice the first in every block: nothing is left but the blocks.
        assert both.high[0] == pytest.approx(one.high[0])

    @pytest.mark.parametrize("blocks", [2, 3, 5])
    @pytest.mark.parametrize("between", [0.0, 0.005, 0.03])
    def test_the_bars_hold_the_level_of_a_k_in_95_of_100_sweeps(self, blocks, between):
        random, true, trials, held = np.random.default_rng(blocks), np.arange(8.0, 13.0), 400, 0
        for _ in range(trials):
            drift = random.normal(0, between, (blocks, 1))
            runs = true * np.exp(drift + random.normal(0, 0.005, (blocks, true.size)))
            by_k = {str(k): block_of(runs[:, k].tolist(), []) for k in range(true.size)}
            found = measured_throughput(by_k, "throughput", [3, 4])
            held += int(((found.low <= true) & (true <= found.high)).sum())
        assert held / (trials * true.size) >= 0.93

    def test_the_scatter_of_the_contenders_is_theirs(self):
        by_k = {k: block_of([np.exp(d), np.exp(-d)], []) for k, d in (("1", 0.5), ("2", 0.1))}
        found = measured_throughput(by_k, "throughput", [2])
        # One degree of freedom each: s² = 2·d², t = 12.706.
        width = 12.7062047 * np.array([0.5, 0.1])
        assert np.log(found.high / found.mean) == pytest.approx(width, rel=1e-6)

    def test_one_repeat_has_no_interval(self):
        found = measured_throughput(
            {"2": block_of([5.0], []), "1": block_of([4.0], [])}, "throughput"
        )
        assert found.threshold.tolist() == [1, 2]
        assert found.mean.tolist() == [4, 5]
        assert np.isnan(found.low).all()

    def test_what_has_no_run_is_left_out(self):
        found = measured_throughput({"1": block_of([], []), "2": block_of([3.0], [])}, "throughput")
        assert found.threshold.tolist() == [2]
        assert measured_throughput({"1": block_of([], [])}, "throughput").mean.size == 0


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([5], [(4.5, 5.5)]),
        ([1, 2, 5, 8], [(0.5, 2.5), (4.5, 5.5), (7.5, 8.5)]),
        ([256, 3], [(2.5, 3.5), (255.5, 256.5)]),
        ([], []),
    ],
)
def test_no_k_between_the_measured_ones_is_shaded(chosen, expected):
    assert bands(chosen) == expected


class TestProfile:
    def test_an_unsupported_parameter_has_an_unknown_error(self):
        timing = timing_of(16)
        timing["prefill"]["hinge"]["se_floor_s"] = None
        shown = texts(profiling_results.draw("demo", profile_steps(16), {"timing": timing}))
        assert "± ?" in shown

    @pytest.mark.parametrize("n_slots", [1, 16, 512])
    def test_any_number_of_slots(self, n_slots):
        figure = profiling_results.draw(
            "demo", profile_steps(n_slots), {"timing": timing_of(n_slots)}
        )
        is_drawn(figure)

    def test_prints_the_fits_with_their_errors(self):
        shown = texts(profiling_results.draw("demo", profile_steps(16), {"timing": timing_of(16)}))
        assert r"$\alpha_p$ = 9.00 ± 0.21 ms, $\beta_p$ = 22.00 ± 0.30 µs/token" in shown
        assert r"$\alpha_d$ = 6.500 ± 0.040 ms, $\beta_d$ = 20.0 ± 3.0 µs/request" in shown
        assert "hinge: 9.50 ± 0.10 ms" in shown

    def test_a_step_held_up_does_not_flatten_the_others(self):
        figure = profiling_results.draw("demo", profile_steps(16), {"timing": timing_of(16)})
        assert "1 held up, as long as 90 ms" in texts(figure)
        assert figure.axes[2].get_ylim()[1] < 10

    def test_shows_the_steps_that_the_fit_uses(self):
        steps = profile_steps(16)
        prefill = profiling_results.samples_of(steps, "prefill")
        decode = profiling_results.samples_of(steps, "decode")
        assert prefill.size.size == (steps["kind"] == "prefill").sum()
        assert decode.size.size == (steps["kind"] == "decode").sum()
        # Attribution moves time between neighbours and loses none.
        total = prefill.seconds.sum() + decode.seconds.sum()
        assert total == pytest.approx(steps["duration_s"].sum())

    def test_many_samples_become_an_image(self):
        steps = profile_steps(16)
        many = steps.loc[steps.index.repeat(60)].reset_index(drop=True)
        many["step"] = range(len(many))
        figure = profiling_results.draw("demo", many, {"timing": timing_of(16)})
        assert any(line.get_rasterized() for line in figure.axes[2].lines)


class TestLengths:
    @pytest.mark.parametrize("longest", [1, 2, 39, 40, 41, 1000, 131072])
    def test_bins_hold_every_length_once(self, longest):
        bins = whole_token_bins(longest)
        assert bins[0] == 1
        assert bins[-2] <= longest < bins[-1]
        assert len(bins) - 1 <= MOST_BINS
        assert len(set(np.diff(bins))) == 1

    @pytest.mark.parametrize("count", [1, 500])
    def test_inputs(self, count):
        figure = input_length_distribution.draw("demo", prompts_frame(count))
        assert f"{count} prompts" in texts(figure)
        is_drawn(figure)

    @pytest.mark.parametrize("count", [1, 200])
    def test_outputs(self, count):
        is_drawn(output_length_distribution.draw("demo", requests_of(count), termination_of(count)))

    def test_states_the_share_cut_and_both_laws(self):
        requests, termination = requests_of(200), termination_of(200)
        shown = texts(output_length_distribution.draw("demo", requests, termination))
        cut = int(requests["truncated"].sum())
        assert f"cut at the limit: {cut} ({cut / 2:.1f} %)" in shown
        assert f"{termination['termination_probability']:.4f} ± " in shown
        assert f"{termination['all_requests']['censored']['p']:.4f} (all, censored)" in shown

    @pytest.mark.parametrize("whole", [True, False])
    def test_geometric_shares(self, whole):
        p, bins = 0.05, [1, 4, 9, 20]
        shares = output_length_distribution.geometric_shares(p, bins, whole)
        ages = np.arange(1, 4000)
        law = p * (1 - p) ** (ages - 1)
        ends = [4, 9, 4000 if whole else 20]
        sums = [law[a - 1 : b - 1].sum() for a, b in zip(bins[:-1], ends, strict=True)]
        assert shares == pytest.approx(sums)

    def test_nothing_to_draw_is_refused(self):
        with pytest.raises(ValueError, match="demo has no prompts to draw"):
            input_length_distribution.draw("demo", prompts_frame(0))
        with pytest.raises(ValueError, match="demo has no answers to draw"):
            output_length_distribution.draw("demo", requests_of(2).iloc[:0], termination_of(2))


class TestOnline:
    @staticmethod
    def results(n_slots: int = 16, updates: int = 8, **estimated: Any) -> dict[str, Any]:
        results = results_of(n_slots)
        history = history_of(n_slots, results["k_star"], updates).to_dict("records")
        results["online_estimation"] |= {
            "history": history,
            "updates": updates,
            "steady_updates": max(0, updates - 2),
            "completions": 16 * updates + 40,
            "steady_completions": [3, max(3, 16 * updates - 20)],
            **estimated,
        }
        return results

    @staticmethod
    def shaded(figure: Figure) -> list[tuple[float, float]]:
        """Grey stretches of the upper axes."""
        return [
            (patch.get_x(), patch.get_x() + patch.get_width())
            for patch in figure.axes[0].patches
            if patch.get_label() == "ramp and drain"
        ]

    @pytest.mark.parametrize(("n_slots", "updates"), [(16, 8), (1, 1), (1024, 300)])
    def test_any_history(self, n_slots, updates):
        is_drawn(online_kstar_convergence.draw(self.results(n_slots, updates)))

    def test_ramp_and_drain_are_shaded_and_the_medians_drawn_between_them(self):
        results = self.results()
        figure = online_kstar_convergence.draw(results)
        assert self.shaded(figure) == [(0, 3), (108, 168)]
        assert f"median: $k^*$ = {results['k_star_online']}" in texts(figure)
        assert "8 online updates of k*, 6 steady" in texts(figure)

    def test_all_is_shaded_without_a_steady_window(self):
        results = self.results(
            steady_completions=None, steady_updates=0, k_star=None, termination_probability=None
        )
        figure = online_kstar_convergence.draw(results)
        assert self.shaded(figure) == [(0, 168)]
        assert "median" not in texts(figure)
        is_drawn(figure)

    def test_says_so_without_an_update(self):
        results = self.results(
            updates=0,
            history=[],
            steady_updates=0,
            steady_completions=None,
            k_star=None,
            termination_probability=None,
        )
        figure = online_kstar_convergence.draw(results)
        assert "the run ended before the first update" in texts(figure)
        is_drawn(figure)


class TestTimeline:
    @pytest.mark.parametrize(
        ("n_slots", "threshold", "count"), [(16, 5, 100), (1, 1, 3), (64, 64, 64)]
    )
    def test_any_run(self, n_slots, threshold, count):
        phases = phases_of_run(play(n_slots, threshold, count))
        figure = timeline.draw("demo", phases)
        refills = sum(phase["phase"] == "prefill" for phase in phases)
        assert f"{refills} refills" in texts(figure)
        is_drawn(figure)

    def test_no_phases(self):
        is_drawn(timeline.draw("demo", []))

    def test_the_close_up_is_a_part_from_the_middle(self):
        phases = phases_of_run(play(16, 5, 200))
        part = timeline.close_up(phases)
        assert sum(phase["phase"] == "prefill" for phase in part) == timeline.CLOSE_UP
        middle = (part[0]["start_s"] + part[-1]["end_s"]) / 2
        assert 0.25 < middle / phases[-1]["end_s"] < 0.75
        assert timeline.close_up(phases[:4]) == phases[:4]


def test_hazard():
    termination = termination_of()
    termination["hazard"]["hazard"][0] = 0.0  # below its own interval
    figure = hazard.draw("demo", termination)
    assert f"p$ = {termination['termination_probability']:.4f}" in texts(figure)
    is_drawn(figure)


def test_hazard_of_answers_that_were_all_cut():
    termination = termination_of() | {"geometric_ks_distance": None}
    is_drawn(hazard.draw("demo", termination))
    results = results_of()
    results["offline_estimation"] |= {"geometric_ks_distance": None}
    assert "(Kolmogorov–Smirnov): –" in hazard.caption(results)


class TestFiles:
    def test_fonts_are_embedded_whole(self, tmp_path):
        pdf, _ = save_figure(throughput_vs_k.draw(results_of()), tmp_path / "figure")
        content = pdf.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content

    def test_no_clock_in_the_files(self, tmp_path):
        for file in save_figure(hazard.draw("demo", termination_of()), tmp_path / "figure"):
            content = file.read_bytes()
            assert b"CreationDate" not in content
            assert b"tIME" not in content

    def test_the_users_matplotlibrc_changes_nothing(self, tmp_path):
        import matplotlib as mpl

        first, _ = save_figure(hazard.draw("demo", termination_of()), tmp_path / "a")
        with mpl.rc_context({"font.size": 20, "pdf.fonttype": 3, "savefig.bbox": "tight"}):
            second, _ = save_figure(hazard.draw("demo", termination_of()), tmp_path / "b")
        assert first.read_bytes() == second.read_bytes()


class TestCommandLine:
    SCRIPT = "workflow/scripts/figure.py"

    @pytest.fixture
    def run(self, root, monkeypatch):
        """Run the script in this process."""

        def run(name: str, inputs: list[Path], stem: Path) -> None:
            paths = [str(path) for path in inputs]
            line = [name, "--dataset", "demo", "--inputs", *paths, "--output-stem", str(stem)]
            monkeypatch.setattr(sys, "argv", [self.SCRIPT, *line])
            runpy.run_path(str(root / self.SCRIPT), run_name="__main__")

        return run

    def test_every_figure_from_its_files(self, run, tmp_path, capsys):
        cell = write_cell(tmp_path)
        for name, figure in figures().items():
            stem = tmp_path / f"demo_{name}"
            run(name, figure_inputs(cell, figure), stem)
            assert f"wrote {stem}.pdf {stem}.png" in capsys.readouterr().out
            assert Path(f"{stem}.pdf").read_bytes().startswith(b"%PDF")
            with Image.open(f"{stem}.png") as image:
                assert image.width == 1050
        assert not list(tmp_path.glob(".*"))

    def test_equal_data_give_equal_bytes(self, run, root, tmp_path):
        results = write_cell(tmp_path) / "demo_results.json"
        here, there = tmp_path / "here", tmp_path / "there"
        run("throughput_vs_k", [results], here)
        # Another process iterates sets in another order.
        subprocess.run(
            f"{sys.executable} {self.SCRIPT} throughput_vs_k --dataset demo"
            f" --inputs {results} --output-stem {there}".split(),
            cwd=root,
            env=os.environ | {"PYTHONPATH": "workflow", "PYTHONHASHSEED": "7"},
            check=True,
        )
        for ending in (".pdf", ".png"):
            made = [stem.with_suffix(ending).read_bytes() for stem in (here, there)]
            assert made[0] == made[1]

    def test_the_wrong_number_of_inputs_is_refused(self, run, tmp_path, capsys):
        with pytest.raises(SystemExit):
            run("hazard", [tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "x")
        assert "hazard wants 1 inputs (termination.json), got 2" in capsys.readouterr().err
