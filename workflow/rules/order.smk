# Purpose: the order of jobs: one model's before the next one's, so that its engine is loaded once; and
#          of each model what the measured jobs wait for, so that none of the next slips in between.

import random

PREPARE, PROFILE, ONLINE, BLOCKS = 4_000_000, 3_000_000, 2_000_000, 1_000_000


def priority_of(model, stage):
    """The priority of a stage's jobs for a model."""
    return 10_000_000 * (len(MODELS) - list(MODELS).index(model)) + stage


def block_priority(model, rep, k):
    """Blocks in order, and within a block an order that the seed shuffles.

    It depends on (seed, block, k) alone: adding a k leaves the order of the others.
    """
    place = random.Random(f"{CONFIG.seed}/{rep}/{k}").randrange(1000)
    return priority_of(model, BLOCKS) - 1000 * int(rep) - place
