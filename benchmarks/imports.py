"""What importing the package costs, each import in a fresh interpreter."""


class Import:
    """torch itself is the floor; what stands above it is ours."""

    version = "1"
    param_names = ("module",)
    params = (["torch", "vaebench", "vaebench.estimators"],)
    rounds = 1
    number = 1
    repeat = 3
    warmup_time = 0

    def timeraw_import(self, module: str) -> str:
        return f"import {module}"
