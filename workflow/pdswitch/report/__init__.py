"""What people read: the report's page, and the sentences that it shares with the terminal.

It imports analysis, and nothing imports it but figures and scripts. Start with `page`; `wording`
turns results into sentences; each figure brings its caption.
"""
