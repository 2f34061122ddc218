"""What `make bench` runs: the bulk steps on real parts, each beside its limit, measured in the same run.
It drives the product from outside and nothing of the product imports it; `docs/performance.md` says how to read it.
"""
