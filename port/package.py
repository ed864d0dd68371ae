"""Writes a package of pkg(8) without pkg(8): package.py STAGE OUTPUT.

STAGE holds `manifest` (JSON, without files), `plist` (one path a line) and
`root`. The package is a tar, compressed by xz: +COMPACT_MANIFEST, +MANIFEST,
then the files by their absolute paths. All belongs to root and wheel, and all
times are one, so that the same files make the same package.
"""

import hashlib
import io
import json
import os
import sys
import tarfile

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1700000000"))


def member(name, mode, size):
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = mode, size, EPOCH
    info.uname, info.gname = "root", "wheel"
    return info


def main(stage, output):
    with open(os.path.join(stage, "manifest"), encoding="utf-8") as file:
        compact = json.load(file)
    with open(os.path.join(stage, "plist"), encoding="utf-8") as file:
        paths = [line.rstrip("\n") for line in file]
    files, contents = {}, []
    for path in paths:
        real = os.path.join(stage, "root", path.lstrip("/"))
        with open(real, "rb") as file:
            data = file.read()
        # The 1 says that it is SHA-256.
        files[path] = "1$" + hashlib.sha256(data).hexdigest()
        contents.append((path, os.stat(real).st_mode & 0o7777, data))
    compact["flatsize"] = sum(len(data) for _, _, data in contents)
    scripts = compact.pop("scripts")
    messages = compact.pop("messages")
    manifest = dict(compact, files=files, scripts=scripts, messages=messages)
    with tarfile.open(output + ".new", "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for name, value in (("+COMPACT_MANIFEST", compact), ("+MANIFEST", manifest)):
            text = json.dumps(value, separators=(",", ":")).encode()
            tar.addfile(member(name, 0o644, len(text)), io.BytesIO(text))
        for path, mode, data in contents:
            # tarfile would take the leading slash away from a name that it is given by a file.
            tar.addfile(member(path, mode, len(data)), io.BytesIO(data))
    os.rename(output + ".new", output)


if __name__ == "__main__":
    main(*sys.argv[1:])
