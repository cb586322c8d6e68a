"""`python -m harness.containers.reaper LABEL [UID:GID:FOLDER...]`: wait for the end of standard input, then clean up.

The harness writes "done" when it has cleaned up by itself. Where that word is missing the harness was killed, so this
process removes the containers with the label and gives the folders back to their owner.
"""

import sys
from pathlib import Path


def main(label: str, folders: list[str]) -> None:
    """Wait, and clean up where the harness has not."""
    if sys.stdin.buffer.read().strip() == b"done":
        return
    # Imported only now, because in all other cases this process only waits.
    from harness.containers.container import remove
    from harness.containers.docker_engine import connect
    from harness.containers.ownership import Folder, give

    try:
        remove(connect(), label)
    finally:
        for text in folders:
            uid, gid, path = text.split(":", 2)
            give(Folder(Path(path), int(uid), int(gid)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
