"""What importing the package costs, each import in a fresh interpreter."""

# The estimators by their place of today, or by that of a commit before version 0.2.
STATEMENTS = {
    "torch": "import torch",
    "vaebench": "import vaebench",
    "vaebench.estimators": """
try:
    import vaebench.gradients.estimators
except ModuleNotFoundError:
    import vaebench.estimators
""",
}


class Import:
    """torch itself is the floor; what stands above it is ours."""

    version = "1"
    param_names = ("module",)
    params = (list(STATEMENTS),)
    rounds = 1
    number = 1
    repeat = 3
    warmup_time = 0

    def timeraw_import(self, module: str) -> str:
        return STATEMENTS[module]
