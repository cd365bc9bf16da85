"""Bundles for ExecuTorch, from the command line to what they hear."""

from pathlib import Path

import pytest

from tests.spoken import proven_export

pytest.importorskip("executorch", reason="ExecuTorch: pip install 'kouling[executorch]'", exc_type=ImportError)
pytest.importorskip("torchao", reason="torchao: pip install 'kouling[executorch]'", exc_type=ImportError)


# LiteRT's converter, where its tests ran before in this process, brings JAX, which warns when ExecuTorch forks.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize(("scheme", "least_db"), [("float", 90), ("dynamic", 25), ("static", 20)])
def test_a_bundle_hears_what_the_model_hears(scheme: str, least_db: float, tmp_path: Path) -> None:
    proven_export("executorch", scheme, least_db, tmp_path)
