"""From the records of runs to the content of the results files, as numbers without words.

It imports engine facts, profiling, simulation, theory and estimation, never report or figures.
Start with `results`, which calls the others; `comparison` holds the statistics of the verdict.
"""
