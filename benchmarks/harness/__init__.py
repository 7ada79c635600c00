"""What every benchmark with a server in it shares: processes, their costs, fair rounds, and tables.

The modules stand alone; a benchmark imports what it needs: `processes` (start, bound, kill), `load` (the client in C),
`costs` (CPU time and memory of a process), `rounds` (interleaving, medians, ratios), `tables` (Markdown, JSON) and
`machine` (facts that belong beside a figure).
"""
