"""CIFAR-100 (Krizhevsky, 2009), from the official files."""

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from harness.datasets import DamagedDataError, Dataset, Images, Parameters

TITLE = "CIFAR-100"
CLASSES = 100
TRAIN_IMAGES = 50_000
MARKER = "cifar-100-python"
# Of the training set, on the 0..1 scale.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)
# The official files' MD5 sums, as torchvision checks them.
OFFICIAL = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


class Cifar100(Dataset):
    """The 50,000 training and 10,000 test images of 32 pixels."""

    how = (
        "give its folder with DATA_DIR=... (the folder that holds cifar-100-python/ with the official files train, "
        "test and meta), or run where a download is possible"
    )

    def find(self, root: Path, parameters: Parameters) -> bool:
        """See the base class."""
        folder = root / MARKER
        if not folder.is_dir():
            return False
        for name, md5 in OFFICIAL.items():
            path = folder / name
            if not path.is_file():
                raise DamagedDataError(f"{path}: missing; delete {folder} to download it again, or {self.how}")
            stat = path.stat()
            if _md5(path, stat.st_mtime_ns, stat.st_size) != md5:
                raise self._damaged(path)
        return True

    def fetch(self, root: Path, parameters: Parameters) -> None:
        """See the base class."""
        # imported here: nothing else needs it, and every start would wait for it
        from torchvision.datasets import CIFAR100

        # beside its place, so that a download that is interrupted leaves nothing that looks like a damaged data set
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=root) as folder:
            CIFAR100(folder, download=True)
            if (root / MARKER).exists():
                (root / MARKER).replace(Path(folder) / "damaged")
            (Path(folder) / MARKER).replace(root / MARKER)

    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        """See the base class."""
        name = "train" if train else "test"
        file = root / MARKER / name
        written = file.read_bytes()
        # A pickle runs code when it is opened: this opens the very bytes that were verified, whoever calls it.
        if hashlib.md5(written).hexdigest() != OFFICIAL[name]:
            raise self._damaged(file)
        content = pickle.loads(written, encoding="latin1")
        pixels = torch.from_numpy(content["data"].reshape(-1, 3, 32, 32))
        return Images(pixels, torch.tensor(content["fine_labels"], dtype=torch.int64), MEAN, STD)

    def _damaged(self, path: Path) -> DamagedDataError:
        return DamagedDataError(f"{path}: not the official file (MD5 differs); delete {path.parent}, or {self.how}")


@lru_cache(maxsize=16)
def _md5(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


DATASET = Cifar100()
