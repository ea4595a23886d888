#!/usr/bin/env bash
# What a user of one Python does with a release, in a fresh environment: install the wheel, ask for its metadata, run the demo; and
# what a packager does: run the sdist's tests against it. Called by `make release`, which says what TESTS and FAST are.
set -euo pipefail
python=$1 lock=$PWD/$2 top=$PWD
name=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(basename "$lock" .txt)
home=$top/build/release/$name
echo "== Python $name"

$python -m venv "$home"
pip() { "$home/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
# By its name, as from an index: the files of dist/ stand for what an index has.
pip install --no-compile --constraint "$lock" --find-links dist "ketwork[report] @ file://$(ls "$top"/dist/*.whl)"
pip install --dry-run --no-index --no-deps --find-links dist ketwork
pip check
"$home/bin/python" - <<'END'
import importlib.metadata as metadata
import pathlib
import sys
import ketwork
import torch

about = metadata.metadata("ketwork")
here = f"Programming Language :: Python :: {sys.version_info[0]}.{sys.version_info[1]}"
assert about["Version"] == ketwork.__version__, (about["Version"], ketwork.__version__)
assert here in about.get_all("Classifier"), f"no classifier {here!r}"
assert "site-packages" in pathlib.Path(ketwork.__file__).parts, ketwork.__file__
assert (pathlib.Path(ketwork.__file__).parent / "py.typed").exists(), "the wheel has no py.typed"
print(f"ketwork {ketwork.__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}")
END

mkdir -p "$home/demo" && cd "$home/demo"
"$home/bin/ketwork" study --quiet --out study.html --out study.safetensors
"$home/bin/ketwork" show study.safetensors --columns layer,entropy,effective_rank
"$home/bin/ketwork" doctor
test -s study.html

cd "$top/build/release/sdist"
export OMP_NUM_THREADS=1
if [ "$TESTS" = all ]; then
  pip install --constraint "$lock" "ketwork[dev] @ file://$(ls "$top"/dist/*.whl)"
  pip install --constraint "$lock" --no-deps --requirement tests/real-inputs.txt
  "$home/bin/python" -m pytest -q tests
else
  pip install --constraint "$lock" pytest hypothesis
  # Of the sdist's src the documented examples run; the package itself is the wheel's.
  "$home/bin/python" -m pytest -q $FAST
fi
