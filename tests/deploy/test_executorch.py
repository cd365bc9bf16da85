"""Bundles for ExecuTorch, from the command line to what they hear."""

import json
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


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_ethos_u_takes_all_of_it(tmp_path: Path) -> None:
    pytest.importorskip("tosa", reason="TOSA: pip install 'kouling[executorch-ethos-u]'", exc_type=ImportError)
    pytest.importorskip("ethosu.vela", reason="Vela: pip install 'kouling[executorch-ethos-u]'", exc_type=ImportError)
    proven_export("executorch-ethos-u", "static", 22, tmp_path)
    told = json.loads((tmp_path / "bundle" / "ethos-u.json").read_text())
    assert told["cpu_operators"] == 0 < told["npu_operators"]
    assert told["sram_bytes"] <= 20 * 1024 and told["storage_bytes"] <= 250 * 1024
