"""The folder in which the commands of a page run: small text, models and data under the names that all pages use."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.shell_commands import ShellCommands

LINKED = ("benchmarks", "fairseq_compress", "docs")
COPIED = ("configs", "data", "scripts")  # a page may write into them, and scripts find their files by their own path
MAKE = """
python data/demo/generate.py --output-dir . --seed 1 --train 300 --valid 12 --test 12 --max-words 8 --choice 8
sed -i 200q train.en; sed -i 200q train.cs
fairseq-compress train-vocabulary --input train.en train.cs --vocab-size 400 --output spm
for file in {train,valid,test}.{en,cs}; do
    fairseq-compress encode --sentencepiece-model spm.model --input $file --output encoded/$file
done
fairseq-preprocess -s en -t cs --trainpref encoded/train --validpref encoded/valid --testpref encoded/test \\
    --srcdict spm.dict.txt --joined-dictionary --destdir data-bin/en-cs
shape='--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32
    --encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-layers 2 --decoder-layers 2'
train() {
    fairseq-train data-bin/en-cs -s en -t cs $shape --optimizer adam --lr 1e-3 --max-tokens 2000 --max-update 3 \\
        --share-all-embeddings --no-epoch-checkpoints "$@" > /dev/null
}
train --user-dir fairseq_compress --task compressed_translation --arch transformer_small --save-dir teacher
train --user-dir fairseq_compress --task compressed_translation --arch transformer_student_tiny \\
    --decoder-layers 1 --save-dir checkpoints
train --arch transformer_iwslt_de_en --save-dir stock
mv teacher/checkpoint_best.pt teacher.pt
mv stock/checkpoint_best.pt stock.pt
cp checkpoints/checkpoint_best.pt student.pt
fairseq-compress export student.pt student-int8 --data data-bin/en-cs --sentencepiece-model spm.model \\
    --quantization int8 --source valid.en --reference valid.cs
rm -r encoded teacher stock spm.dict.txt checkpoints/checkpoint_last.pt
"""


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShellCommands]:
    """Programs for PATH; every training ends after three updates."""
    short = {"fairseq-train": ["--max-update", "3", "--no-epoch-checkpoints"]}
    server = ShellCommands(tmp_path_factory.mktemp("commands"), short)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def run_script(commands: ShellCommands) -> Callable[[str, Path], None]:
    """Runs the text of a script in a folder; an error shows its output."""

    def run(text: str, folder: Path) -> None:
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=folder, stdin=subprocess.DEVNULL, text=True, timeout=280,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=os.environ | {
                "PATH": f"{commands.programs}:{os.environ['PATH']}", "FC_BIN": str(commands.unchanged),
                "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "MPLCONFIGDIR": str(commands.programs.parent),
            },
        )  # fmt: skip
        assert result.returncode == 0, f"status {result.returncode} of\n{text}\n{result.stdout[-5000:]}"

    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, run_script: Callable[[str, Path], None]) -> Path:
    """The folder, to be copied for each page."""
    folder = tmp_path_factory.mktemp("page") / "prepared"
    folder.mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("raw", "__pycache__"))
    run_script(MAKE, folder)
    return folder
