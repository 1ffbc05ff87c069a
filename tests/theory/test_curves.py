import numpy as np
import pytest

from pdswitch.theory import (
    BudgetedPrefill,
    ContextDecode,
    HingePrefill,
    LinearDecode,
    LinearPrefill,
    StepTimes,
    TabulatedDecode,
    TabulatedPrefill,
)

PREFILLS = [
    LinearPrefill(0.01, 2e-5),
    HingePrefill(0.0095, 0.0, 2.2e-5),
    TabulatedPrefill([100, 400, 2000], [0.009, 0.0095, 0.04]),
]


def test_the_hinge_is_flat_then_a_line():
    hinge = HingePrefill(0.01, -0.002, 2e-5)
    np.testing.assert_allclose(hinge([0, 600, 700, 1000]), [0.01, 0.01, 0.012, 0.018])


def test_tables_interpolate_hold_below_and_go_on_with_the_last_slope():
    table = TabulatedPrefill([100, 200, 400], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(table([0, 100, 150, 300, 400, 600]), [1.0, 1.0, 1.5, 2.5, 3.0, 4.0])
    assert TabulatedDecode([4], [2.0])([1, 4, 9]).tolist() == [2.0, 2.0, 2.0]
    # A falling last segment must not lead to negative times.
    assert TabulatedDecode([1, 2], [2.0, 1.0])(100).item() == 1.0


def test_context_costs_per_token_held():
    curve = ContextDecode(1.0, 0.1, 0.01)
    np.testing.assert_allclose(
        curve(np.array([1, 2])[:, None], np.array([0, 100])), [[1.1, 2.1], [1.2, 2.2]]
    )
    assert LinearDecode(1.0, 0.1)(2.0, np.zeros(3)).shape == (3,)


@pytest.mark.parametrize("curve", PREFILLS, ids=lambda curve: type(curve).__name__)
def test_corners_are_the_curve(curve):
    x, y = curve.knots()
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(curve(x), y)
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    np.testing.assert_allclose(curve(x[-1] + 1000.0), y[-1] + 1000.0 * slope)


@pytest.mark.parametrize("curve", [HingePrefill(1.0, 2.0, 0.0), HingePrefill(1.0, 2.0, 0.5)])
def test_corners_of_hinges_without_a_flat_part(curve):
    x, y = curve.knots()
    np.testing.assert_allclose(curve(x), y)
    assert (np.diff(x) > 0).all()


def test_a_budget_cuts_a_refill_into_steps():
    whole = LinearPrefill(1.0, 0.01)
    cut = BudgetedPrefill(whole, 100)
    np.testing.assert_allclose(cut([50, 100, 101, 250]), [1.5, 2.0, 3.01, 5.5])
    with pytest.raises(ValueError, match="budget_tokens must be a finite number above 0"):
        BudgetedPrefill(whole, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearPrefill(-1.0, 0.0), "alpha_p must be a finite number"),
        (lambda: HingePrefill(1.0, float("nan"), 1.0), "offset_s must be a finite number"),
        (lambda: LinearDecode(float("inf"), 0.0), "alpha_d must be a finite number"),
        (lambda: ContextDecode(1.0, 0.0, -1e-9), "gamma_d must be a finite number"),
        (lambda: TabulatedPrefill([], []), "lists of one length, at least 1"),
        (lambda: TabulatedPrefill([1, 2], [1.0]), "lists of one length"),
        (lambda: TabulatedPrefill([2, 1], [1.0, 1.0]), "tokens of a table must ascend"),
        (lambda: TabulatedDecode([1, 2], [1.0, float("nan")]), "seconds of a table must be finite"),
    ],
)
def test_bad_curves_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_step_times_are_a_pair_of_lines():
    curves = StepTimes(0.01, 2e-5, 0.006, 3e-5).curves
    assert curves.prefill == LinearPrefill(0.01, 2e-5)
    assert curves.decode == LinearDecode(0.006, 3e-5)
