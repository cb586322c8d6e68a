"""Where things lie, and which data set a profile has at hand. No torch here: planning must stay instant."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.plan.planning import DataName

CIFAR_FOLDER = "cifar-100-python"


@dataclass(frozen=True)
class Paths:
    """The folders of one run: committed results, artifacts that are not, and the data set's root."""

    results: Path
    artifacts: Path
    data: Path

    def testset(self, profile: str, data: DataName) -> Path:
        """The test images as the bench reads them."""
        return self.artifacts / profile / f"testset-{data}.npz"

    def data_is_known(self, profile: str) -> bool:
        """Whether this machine has either data set already."""
        return has_cifar(self.data) or self.testset(profile, "stand-in").is_file()

    def data_at_hand(self, profile: str) -> DataName:
        """What the profile's cells were or would be trained on, as far as can be told without a download."""
        stand_in = not has_cifar(self.data) and self.testset(profile, "stand-in").is_file()
        return "stand-in" if stand_in else "cifar100"


def has_cifar(root: Path) -> bool:
    """Whether CIFAR-100 lies in a folder. HarnessError where this user may not look into it."""
    try:
        return (root / CIFAR_FOLDER).is_dir()
    except PermissionError as error:
        raise HarnessError(
            f"{root}: this user may not read it; make it readable (chmod -R a+rX) or name another in DATA_DIR"
        ) from error


def data_root() -> Path:
    """DATA_DIR, or ./data; DATA_DIR may also name cifar-100-python itself."""
    root = Path(os.environ.get("DATA_DIR") or "data")
    return root.parent if root.name == CIFAR_FOLDER else root


def answers_file(folder: Path) -> Path:
    """In a cell's folder: the class that torch gives each test image, uint8 [N]."""
    return folder / "answers.npy"
