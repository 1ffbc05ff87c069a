"""The compiled event loop of the simulator, for the exclusive policy and the mixed baseline.

Requests are indices in the order of arrival. A request of l tokens gets its first one from the
prefill and decodes l-1 times; all decoding requests step together, so that its end is known when
it starts: it is kept in a ring of lists by the number of the decode step that ends it. A step
costs constant time plus the requests that enter or end in it.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Columns of the integer step records; the times have an array of their own.
PREFILL_REQUESTS = 0
PREFILL_TOKENS = 1
ADMITTED = 2
DECODE_REQUESTS = 3
CONTEXT_TOKENS = 4
RUNNING = 5
WAITING = 6
FINISHED = 7
KV_BLOCKS = 8
STEP_COLUMNS = 9

# Entries of the integer totals.
REFILLS = 0
STEPS = 1
STEADY_COMPLETIONS = 2
PEAK_CONTEXT = 3
TOTALS = 4


class Workload(NamedTuple):
    """Arrays with one entry per request.

    Attributes:
        output_tokens: at least 1.
        prompt_tokens: at least 1.
        arrival_s: ascending.
    """

    output_tokens: IntArray
    prompt_tokens: IntArray
    arrival_s: FloatArray


class Rules(NamedTuple):
    """When requests are admitted.

    Attributes:
        n_slots: N.
        threshold: k; not used by the mixed policy.
        mixed: continuous batching with chunked prefill instead of exclusive phases.
        eager: refill as soon as the waiting requests fit.
        budget: most tokens of one step.
    """

    n_slots: int
    threshold: int
    mixed: bool
    eager: bool
    budget: int


class StepLaw(NamedTuple):
    """How long a step takes.

    Attributes:
        prefill_x: corners of the prefill curve, tokens.
        prefill_y: corners of the prefill curve, seconds.
        decode_base: seconds of a decode step with j requests, index j.
        context_slope: seconds per KV token held.
        mixed: seconds of a mixed step: fixed, per prefill token, per request; empty for the larger
            of the prefill curve at all its tokens and the decode step.
    """

    prefill_x: FloatArray
    prefill_y: FloatArray
    decode_base: FloatArray
    context_slope: float
    mixed: FloatArray


def step_arrays(count: int) -> tuple[FloatArray, IntArray]:
    """Return room for the records of `count` steps: times and integer columns."""
    return np.empty((count, 2)), np.empty((count, STEP_COLUMNS), dtype=np.int64)


@numba.njit(cache=True, inline="always")
def _curve(at: float, x: FloatArray, y: FloatArray) -> float:
    """Interpolate: flat below the first point, the last slope beyond the last."""
    last = x.size - 1
    if at <= x[0]:
        return y[0]
    if at >= x[last]:
        if last == 0:
            return y[0]
        slope = (y[last] - y[last - 1]) / (x[last] - x[last - 1])
        return y[last] + max(slope, 0.0) * (at - x[last])
    i = np.searchsorted(x, at, side="right") - 1
    return y[i] + (y[i + 1] - y[i]) / (x[i + 1] - x[i]) * (at - x[i])


@numba.njit(cache=True)
def run(
    workload: Workload,
    rules: Rules,
    law: StepLaw,
    block_size: int,
    times: FloatArray,
    columns: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray, FloatArray, IntArray, FloatArray]:
    """Serve all requests.

    Args:
        workload: the requests.
        rules: the policy.
        law: the step times.
        block_size: tokens of a KV block.
        times: end and duration of every step, filled in; no rows to record nothing.
        columns: the step columns, filled in; as many rows as `times`.

    Returns:
        admitted_s, first_token_s, finish_s per request; totals; start and end of the steady window;
        peak KV tokens per cycle; start of each cycle.
    """
    output_tokens, prompt_tokens, arrival_s = workload
    n_requests = output_tokens.size
    admitted_s = np.empty(n_requests)
    first_token_s = np.empty(n_requests)
    finish_s = np.empty(n_requests)
    next_in_list = np.empty(n_requests, dtype=np.int64)
    head = _ring(output_tokens.max() + 1)

    record = len(columns) > 0
    # Every cycle admits a request.
    cycle_peak = np.empty(n_requests, dtype=np.int64)
    cycle_start = np.empty(n_requests)
    totals = np.zeros(TOTALS, dtype=np.int64)
    window = np.full(2, np.nan)

    # Decoding requests by the decode steps, modulo the block size, at which they open a block.
    # Blocks are counted for the record only.
    phase = np.zeros(block_size, dtype=np.int64)
    blocks = 0

    now = 0.0
    decode_steps = 0
    active = 0  # decoding requests
    partial = -1  # the request whose prompt is only partly computed
    done_of_partial = 0
    held = 0  # KV tokens computed for the requests in slots
    arrived = 0
    entered = 0
    finished = 0
    refill_left = 0
    peak = 0
    cycles = 0
    steps = 0
    first_refill_over = False

    while finished < n_requests:
        while arrived < n_requests and arrival_s[arrived] <= now:
            arrived += 1
        in_slots = active + (1 if partial >= 0 else 0)
        waiting = arrived - entered
        if in_slots == 0 and waiting == 0:
            now = arrival_s[arrived]
            continue
        if first_refill_over and np.isnan(window[1]) and waiting < rules.n_slots:
            window[1] = now
            totals[STEADY_COMPLETIONS] = finished - totals[STEADY_COMPLETIONS]

        # -- what may happen in this step
        if rules.mixed:
            decoding = active
            room = rules.budget - active
            may_enter = min(rules.n_slots - in_slots, waiting)
        else:
            if partial < 0 and not (refill_left > 0 and waiting > 0):
                refill_left = _refill_size(rules, in_slots, waiting)
                if refill_left > 0:
                    if cycles > 0:
                        cycle_peak[cycles - 1] = peak
                    cycle_start[cycles] = now
                    cycles += 1
                    peak = 0
            refilling = partial >= 0 or refill_left > 0
            decoding = 0 if refilling else active
            room = rules.budget if refilling else 0
            may_enter = min(refill_left, waiting) if refilling else 0

        # -- prefill part
        context_before = held
        prefill_requests = 0
        prefill_tokens = 0
        admitted = 0
        completed_from = -1  # requests completed_from..completed_to-1 finish their prompt now
        completed_to = -1
        if partial >= 0 and room > 0:
            chunk = min(prompt_tokens[partial] - done_of_partial, room)
            room -= chunk
            prefill_tokens += chunk
            prefill_requests += 1
            blocks -= _blocks(done_of_partial, block_size)
            done_of_partial += chunk
            blocks += _blocks(done_of_partial, block_size)
            if done_of_partial == prompt_tokens[partial]:
                completed_from = partial
                completed_to = partial + 1
                partial = -1
        while may_enter > 0 and room > 0 and partial < 0:
            request = entered
            entered += 1
            may_enter -= 1
            admitted += 1
            admitted_s[request] = now
            chunk = min(prompt_tokens[request], room)
            room -= chunk
            prefill_tokens += chunk
            prefill_requests += 1
            if record:
                blocks += _blocks(chunk, block_size)
            if chunk == prompt_tokens[request]:
                if completed_from < 0:
                    completed_from = request
                completed_to = request + 1
            else:
                partial = request
                done_of_partial = chunk
        refill_left -= admitted
        held += prefill_tokens

        # -- decode part, with the blocks that it opens
        held += decoding
        if record and decoding > 0:
            blocks += phase[decode_steps % block_size]

        # -- time
        duration = _step_time(law, prefill_tokens, decoding, context_before)
        now += duration
        peak = max(peak, held)
        totals[PEAK_CONTEXT] = max(totals[PEAK_CONTEXT], held)
        blocks_in_use = blocks

        # -- endings
        finished_before = finished
        if decoding > 0:
            decode_steps += 1
            place = decode_steps & (head.size - 1)
            request = head[place]
            head[place] = -1
            while request >= 0:
                finish_s[request] = now
                finished += 1
                active -= 1
                made = output_tokens[request] - 1
                held -= prompt_tokens[request] + made
                if record:
                    blocks -= _blocks(prompt_tokens[request] + made, block_size)
                    phase[_phase(prompt_tokens[request], decode_steps - made, block_size)] -= 1
                request = next_in_list[request]
        for request in range(completed_from, completed_to):
            first_token_s[request] = now
            if output_tokens[request] == 1:
                finish_s[request] = now
                finished += 1
                held -= prompt_tokens[request]
                if record:
                    blocks -= _blocks(prompt_tokens[request], block_size)
            else:
                active += 1
                if record:
                    phase[_phase(prompt_tokens[request], decode_steps, block_size)] += 1
                place = (decode_steps + output_tokens[request] - 1) & (head.size - 1)
                next_in_list[request] = head[place]
                head[place] = request
        if prefill_tokens > 0 and decoding == 0:
            totals[REFILLS] += 1
        filled = in_slots + admitted == rules.n_slots or arrived == entered
        if not first_refill_over and partial < 0 and filled:
            first_refill_over = True
            window[0] = now
            # Until the window closes, this entry holds how many had finished when it opened.
            totals[STEADY_COMPLETIONS] = finished

        if record:
            times[steps, 0] = now
            times[steps, 1] = duration
            row = columns[steps]
            row[PREFILL_REQUESTS] = prefill_requests
            row[PREFILL_TOKENS] = prefill_tokens
            row[ADMITTED] = admitted
            row[DECODE_REQUESTS] = decoding
            row[CONTEXT_TOKENS] = context_before
            row[RUNNING] = in_slots + admitted
            row[WAITING] = arrived - entered
            row[FINISHED] = finished - finished_before
            row[KV_BLOCKS] = blocks_in_use
        steps += 1

    if cycles > 0:
        cycle_peak[cycles - 1] = peak
    if np.isnan(window[1]):
        window[1] = now
        totals[STEADY_COMPLETIONS] = finished - totals[STEADY_COMPLETIONS]
    totals[STEPS] = steps
    return (
        admitted_s,
        first_token_s,
        finish_s,
        totals,
        window,
        cycle_peak[:cycles],
        cycle_start[:cycles],
    )


@numba.njit(cache=True, inline="always")
def _ring(longest: int) -> IntArray:
    """Return the empty lists of a ring: a power of two of them, more than the longest answer."""
    size = 1
    while size < longest:
        size *= 2
    return np.full(size, -1, dtype=np.int64)


@numba.njit(cache=True, inline="always")
def _refill_size(rules: Rules, in_slots: int, waiting: int) -> int:
    """Return how many requests a refill that begins now admits; 0 if none begins."""
    free = rules.n_slots - in_slots
    least = min(rules.threshold, waiting) if rules.eager else rules.threshold
    return min(free, waiting) if in_slots == 0 or free >= least else 0


@numba.njit(cache=True, inline="always")
def _step_time(law: StepLaw, prefill_tokens: int, decoding: int, context_tokens: int) -> float:
    """Return the time of a step, s; `context_tokens` are held before it."""
    if decoding == 0:
        return _curve(float(prefill_tokens), law.prefill_x, law.prefill_y)
    context = law.context_slope * context_tokens
    if prefill_tokens == 0:
        return law.decode_base[decoding] + context
    if law.mixed.size == 3:
        return law.mixed[0] + law.mixed[1] * prefill_tokens + law.mixed[2] * decoding + context
    together = _curve(float(prefill_tokens + decoding), law.prefill_x, law.prefill_y)
    return max(together, law.decode_base[decoding]) + context


@numba.njit(cache=True, inline="always")
def _blocks(tokens: int, block_size: int) -> int:
    return (tokens + block_size - 1) // block_size


@numba.njit(cache=True, inline="always")
def _phase(prompt: int, started: int, block_size: int) -> int:
    """Return s mod block_size of the decode steps s at which the request opens a block.

    Before decode step s (counted from `started`) it holds prompt + (s - started) tokens; it opens
    a block where that is a multiple of the block size.
    """
    return (started - prompt) % block_size
