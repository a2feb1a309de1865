"""A Triton backend `cpu` that compiles nothing, for kernels that Triton's interpreter runs.

vLLM has its V2 model runner in the CPU build too, but only uses it with a Triton that has a `cpu`
backend, which the one on PyPI has not. This package registers one (entry points
`triton.backends` in the folder beside it); with `TRITON_INTERPRET=1`, every kernel then runs in
NumPy, and the backend is never asked to compile.
"""
