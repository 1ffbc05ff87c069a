"""After how many finished requests should a server stop decoding and prefill new ones?

What other programs may import; all else may change without notice:

    pdswitch.scheduler              the scheduler, for `--scheduler-cls` of a vLLM server
    pdswitch.plugin.compatibility   `EarlyRefusal`, for its `--worker-extension-cls`
    pdswitch.record                 the record of a run as data frames
    pdswitch.theory                 k* in closed form, its corrections, the exact chain
    pdswitch.simulation             the policies without a server

Nothing is imported here: a server that loads the scheduler needs no mathematics.
"""
