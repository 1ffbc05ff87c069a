"""What people read: the report's page, and the sentences that it shares with the terminal.

It imports analysis; figures, scripts and commands import it. Start with `page`; `verdict` is the
terminal's, `wording` turns results into sentences. Each figure brings its caption.
"""
