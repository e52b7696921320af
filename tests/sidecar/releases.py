"""A folder as training writes it (rule A6): sets in `releases/`, files as links through `current`."""

import os
import shutil
from pathlib import Path


class Releases:
    """Holds several sets, one of which is current.

    Args:
        path: the folder, which is made.
        sets: name to the folder of a set, which is copied.
    """

    def __init__(self, path: Path, **sets: Path) -> None:
        self.path = path
        path.mkdir()
        for name, source in sets.items():
            shutil.copytree(source, self.folder(name))
            for file in source.iterdir():
                if not (path / file.name).is_symlink():
                    (path / file.name).symlink_to(Path("current", file.name))
        self.switch(next(iter(sets)))

    def folder(self, name: str) -> Path:
        """Where the files of a set really are."""
        return self.path / "releases" / name

    def switch(self, name: str) -> None:
        """Makes a set the current one, by one rename."""
        link = self.path / "next"
        link.symlink_to(Path("releases", name))
        os.replace(link, self.path / "current")
