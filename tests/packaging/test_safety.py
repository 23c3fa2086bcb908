"""No code of the product unpickles or unpacks anything, but for the one module that is checked."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKED = ROOT / "napari_medreasoner/engines/models/weights.py"
UNSAFE = re.compile(
    r"pickle\.loads?\(|torch\.load\(|allow_pickle\s*=\s*True|\.extractall\(|trust_remote_code\s*=\s*True"
    r"|unpack_archive\(|yaml\.load\(|joblib\.load\("
)


def test_nothing_untrusted_is_unpickled_or_unpacked() -> None:
    packages = (ROOT / "napari_medreasoner", ROOT / "trainer" / "medreasoner_trainer")
    modules = [path for package in packages for path in package.rglob("*.py")]
    assert len(modules) > 150
    found = [path for path in modules if UNSAFE.search(path.read_text("utf-8"))]
    assert found == [CHECKED]
    calls = UNSAFE.findall(CHECKED.read_text("utf-8"))
    assert calls == ["torch.load("]
    assert "weights_only=True" in CHECKED.read_text("utf-8")
