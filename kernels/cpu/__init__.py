"""CPU twins of the Triton kernels: numba, one thread a slice of the work, tiles that stay in the cache.

Each module holds the twin of the operation of the same name one level up; ``_tiles`` holds the inner loops they
share and ``_parallel`` the thread pool.
"""
