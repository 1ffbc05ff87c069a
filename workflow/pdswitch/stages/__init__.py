"""How a stage of the workflow runs: its entry, its sources, its log, and the store of results.

It imports the standard library, msgspec and `pdswitch.files`. Start with `entry`, which wraps the
main function of every script; `store` puts back what was measured before.
"""
