"""Step times: which runs to make, how to attribute their records, and the fits."""
