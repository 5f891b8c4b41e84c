"""Loading the embedded data sets, from the package's files to tensors."""

from benchmarks.common import generator, part

LOADERS = {
    "digits": lambda data: data.digits(),
    "patches32": lambda data: data.patches(32),
    "patches64": lambda data: data.patches(64),
    "diabetes": lambda data: data.diabetes(),
    "linear_gaussian": lambda data: data.linear_gaussian(generator=generator()),
}


class Load:
    """One call of each loader."""

    version = "1"
    param_names = ("data",)
    params = (list(LOADERS),)
    rounds = 1
    repeat = (3, 10, 1.0)

    def setup(self, name: str) -> None:
        self.data = part("data")

    def time_load(self, name: str) -> None:
        LOADERS[name](self.data)

    def track_bytes(self, name: str) -> int:
        tensor = LOADERS[name](self.data)
        return tensor.untyped_storage().nbytes()

    track_bytes.unit = "bytes"
