"""Datasets: one module each, with `samples(options)`; `options` says what each one takes."""
