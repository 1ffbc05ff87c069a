"""How a stage of the workflow runs: its entry, its sources, its log, and the store of results.

It imports the standard library, msgspec, `pdswitch.files` and `pdswitch.errors`. Start with
`entry`, which wraps the main function of every script; `store` puts back what was measured before;
`result_files` reads result files as their types.
"""
