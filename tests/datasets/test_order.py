"""The shuffle that holds little in memory."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.datasets.order import shuffled, shuffled_in_windows
from pdswitch.datasets.sample import Sample, Skipped


def outcomes(count, size=1):
    bad = Skipped("bad")
    return [bad if i % 7 == 3 else Sample(str(i), "x" * (1 + i % size)) for i in range(count)]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    count=st.integers(0, 200),
    kept=st.integers(1, 250),
    characters=st.integers(1, 2000),
    seed=st.integers(0, 5),
)
def test_the_order_depends_on_the_seed_alone(count, kept, characters, seed):
    source = outcomes(count, size=30)
    everything = list(shuffled(lambda: source, seed))
    assert sorted(everything, key=str) == sorted(source, key=str)
    assert list(shuffled(lambda: source, seed, kept, characters)) == everything


def test_seeds_give_different_orders():
    source = outcomes(50)
    orders = [tuple(shuffled(lambda: source, seed)) for seed in range(4)]
    assert len(set(orders)) == 4
    assert tuple(source) not in orders


def test_the_source_is_read_once_for_each_portion():
    passes = []

    def read():
        passes.append(1)
        return outcomes(100)

    found = shuffled(read, 0, most_kept=40)
    taken = [next(found) for _ in range(40)]
    assert len(passes) == 1
    taken += found
    assert len(passes) == 3
    assert len(taken) == 100


def test_every_place_is_equally_likely():
    source = [Sample(str(i), "x") for i in range(5)]
    first = [next(iter(shuffled(lambda: source, seed))).source_id for seed in range(2000)]
    counts = [first.count(str(i)) for i in range(5)]
    # Binomial with mean 400 and standard deviation 18; the seeds are fixed.
    assert all(abs(count - 400) < 4 * 18 for count in counts)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(count=st.integers(0, 60), window=st.integers(1, 70), characters=st.integers(1, 500))
def test_a_window_is_shuffled_within_itself(count, window, characters):
    source = outcomes(count, size=20)
    found = list(shuffled_in_windows(source, 0, window, characters))
    assert sorted(found, key=str) == sorted(source, key=str)
    if characters >= 20 * window:
        for start in range(0, count, window):
            part = slice(start, start + window)
            assert sorted(found[part], key=str) == sorted(source[part], key=str)


def test_a_stream_is_read_no_further_than_its_window():
    read = []
    stream = (read.append(i) or Sample(str(i), "x") for i in range(10_000))
    first = next(shuffled_in_windows(stream, 3, window=50))
    assert len(read) == 50
    assert first.source_id != "0"
