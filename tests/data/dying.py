"""Work that ends its own process, as the kernel does when memory runs out."""

import os


def scale_files(jobs: list[tuple[int, str]], size_px: int) -> None:
    os._exit(9)
