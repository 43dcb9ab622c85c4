"""Several processes and machines: what torchrun and srun are asked for, with which ranks; where bfloat16 is native."""

import os
import subprocess
from pathlib import Path

import pytest
from test_pipeline_restart import steps

from tests.helpers.fake_pipeline import ROOT, Pipeline, find, value

LIBRARY = ROOT / "scripts/lib"
WORK = ("nbest", "cache-teacher", "kd-data score")


def behind_launcher(command: list[str]) -> list[str]:
    """The words of the command that a launcher starts."""
    return command[command.index("bash") + 2 :]


def with_srun(pipeline: Pipeline, **environment: str) -> dict[str, str]:
    """The environment of a Slurm job of one machine."""
    binaries = Path(pipeline.environment["FC_BIN"])
    if not (binaries / "srun").exists():
        (binaries / "srun").symlink_to(binaries / "torchrun")
    return {"PATH": f"{binaries}:{os.environ['PATH']}", "LAUNCHER": "srun"} | environment


def test_training_under_torchrun_has_a_world_size(pipeline: Pipeline) -> None:
    pipeline.set(PROCESSES="2")
    output = pipeline.run("--dry-run", script="stages/04_train_teacher.sh").stdout
    assert "torchrun --nproc_per_node 2 --no-python" in output
    assert "--distributed-world-size 2" in output
    assert "--ddp-backend legacy_ddp" in output
    assert "--distributed-backend gloo" in output


def test_wmt_on_one_machine(pipeline: Pipeline) -> None:
    commands = pipeline.dry_run("wmt-en-cs.env", DEVICE="auto")
    prepared = find(commands, "prepare")
    assert value(prepared[1], "--source").endswith("newstest2018.en")
    assert value(prepared[2], "--target").endswith("newstest2019.cs")
    launched = [command for command in commands if command[0] == "torchrun"]
    trained = [command for command in launched if "fairseq-train" in command]
    for command in launched:
        assert value(command, "--nproc_per_node") == "8"
        assert "--cpu" not in command
    for command in trained:
        assert "--fp16" in command
        assert value(command, "--autocast-dtype") == "none"
        assert value(command, "--distributed-world-size") == "8"
        assert value(command, "--distributed-init-method") == "env://"
    assert value(trained[0], "--arch") == "transformer_vaswani_wmt_en_de_big"  # 6+6 layers, 1024/4096, 16 heads
    assert value(trained[0], "--update-freq") == "16"
    assert "--share-all-embeddings" in trained[0]
    verbs = [behind_launcher(command)[1] for command in launched if command not in trained]
    assert verbs == ["nbest", "cache-teacher", "cache-teacher"]
    assert len(trained) == len(find(commands, "time --")) == 9
    assert not pipeline.work.exists()


def test_wmt_on_four_machines_with_slurm(pipeline: Pipeline) -> None:
    """The command that the configuration shows."""
    commands = pipeline.dry_run(
        "wmt-en-cs.env", DEVICE="auto", NODES="4", LAUNCHER="srun", SRUN_ARGUMENTS="--cpus-per-task=8"
    )
    launched = [command for command in commands if command[0] == "srun"]
    for command in launched:
        words = ["srun", "--nodes", "4", "--ntasks-per-node", "8", "--kill-on-bad-exit=1", "--cpus-per-task=8", "bash"]
        assert command[: len(words)] == words
    trained = [command for command in launched if "fairseq-train" in command]
    assert {value(command, "--distributed-world-size") for command in trained} == {"32"}
    assert {command[8] for command in trained} == {f"{LIBRARY}/train_process.sh"}
    assert value(trained[0], "--update-freq") == "4"  # as many tokens an update as on one machine
    work = [command for command in launched if command not in trained]
    assert [behind_launcher(command)[1] for command in work] == ["nbest", "cache-teacher", "cache-teacher"]
    assert {command[8] for command in work} == {f"{LIBRARY}/work_process.sh"}
    assert not any(command[0] == "torchrun" for command in commands)


def test_wmt_on_four_machines_with_torchrun(pipeline: Pipeline) -> None:
    commands = pipeline.dry_run("wmt-en-cs.env", DEVICE="auto", NODES="4", RENDEZVOUS="first:29500")
    launched = [command for command in commands if command[0] == "torchrun"]
    assert len(launched) == (9 + 3) * 4
    for number in range(4):
        command = launched[number]
        assert command[1:5] == ["--nnodes", "4", "--node_rank", str(number)]
        assert command[5:9] == ["--master_addr", "first", "--master_port", "29500"]
        assert command[9:12] == ["--nproc_per_node", "8", "--no-python"]
        assert behind_launcher(command) == behind_launcher(launched[0])
        assert value(command, "--distributed-world-size") == "32"


def test_the_number_of_decoding_processes_changes_no_result(
    pipeline: Pipeline, every_kind: tuple[Pipeline, object]
) -> None:
    pipeline.append(every_kind[0].config.read_text())
    pipeline.run("--to", "06", KD_PROCESSES="3")
    started = find(pipeline.recorded(), "torchrun")
    assert [behind_launcher(command)[1] for command in started] == ["nbest", "cache-teacher", "cache-teacher"]
    assert {value(command, "--nproc_per_node") for command in started} == {"3"}
    for name, content in pipeline.results().items():
        assert every_kind[0].results()[name] == content
    assert steps(pipeline.run("--to", "06").stdout, "run") == []


def test_the_launcher_changes_no_result_and_the_processes_do(pipeline: Pipeline) -> None:
    pipeline.set(PROCESSES="2")
    pipeline.run("--to", "07")
    started = find(pipeline.recorded(), "fairseq-train")
    ranks = [(value(command, "--distributed-rank"), value(command, "--device-id")) for command in started]
    assert ranks == [("0", "0"), ("1", "1")] * 3
    assert steps(pipeline.run("--to", "07", **with_srun(pipeline)).stdout, "run") == []
    pipeline.set(PROCESSES="1", NODES="2")
    assert steps(pipeline.run("--to", "07", **with_srun(pipeline)).stdout, "run") == []  # as many processes
    pipeline.set(NODES="3")
    again = pipeline.run("--to", "04", **with_srun(pipeline))
    assert steps(again.stdout, "run") == ["train-teacher", "average-teacher"]
    (srun,) = find(pipeline.recorded(), "srun")
    assert value(srun, "--distributed-world-size") == "3"


def test_torchrun_on_several_machines_is_left_to_the_user(pipeline: Pipeline) -> None:
    machines = {"NODES": "2", "RENDEZVOUS": "first:29500"}
    result = pipeline.run("--to", "04", status=1, **machines)
    assert "run binarize\n" in result.stdout
    assert result.stdout.count("torchrun --nnodes 2 --node_rank") == 2
    error = "04_train_teacher.sh: error: step train-teacher has to be started on each of the 2 machines: "
    assert result.stderr.startswith(error)
    assert result.stderr.count("\n") == 1
    folder = pipeline.work / "teacher/checkpoints"
    folder.mkdir(parents=True)
    for epoch in ("1", "2", "3"):
        (folder / f"checkpoint{epoch}.pt").write_text(epoch)
    error = pipeline.run("--to", "04", status=1, **machines).stderr
    assert "exists and was not made by this pipeline; move it away or set WORK_DIR (ADOPT=1: take it)" in error
    output = pipeline.run("--to", "04", ADOPT="1", **machines).stdout
    assert "take train-teacher as it is\nrun average-teacher\n" in output
    assert "skip train-teacher\nskip average-teacher\n" in pipeline.run("--to", "04", **machines).stdout
    pipeline.set(TEACHER_LR="1e-3")
    error = pipeline.run("--to", "04", status=1, ADOPT="1", **machines).stderr
    assert f"move {folder} and {folder}.done away, which are of other settings" in error


def run_process(script: str, folder: Path, **environment: str) -> list[str]:
    """The words and, of the environment, the ranks that a process of a launcher gives to its command."""
    (folder / "scontrol").write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames node[07-08]" ] && printf "node07\\nnode08\\n"\n'
    )
    (folder / "scontrol").chmod(0o755)
    show = 'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*"'
    result = subprocess.run(
        ["bash", str(LIBRARY / script), "bash", "-c", show, "command", "DATA"],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)} | environment,
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    return result.stdout.split()


SLURM = {
    "SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_NTASKS": "16", "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "4001", "SLURM_STEP_ID": "2",
}  # fmt: skip


def test_ranks_come_from_slurm(tmp_path: Path) -> None:
    ranks = ["11", "3", "16", "node07", "28009", "DATA"]  # 20000 + (7 * 4001 + 2) % 10000
    assert run_process("work_process.sh", tmp_path, **SLURM) == ranks
    training = run_process("train_process.sh", tmp_path, **SLURM)
    assert training == [*ranks, "--distributed-rank", "11", "--device-id", "3"]
    one_gpu = run_process("train_process.sh", tmp_path, **SLURM, CUDA_VISIBLE_DEVICES="6")
    assert one_gpu[-1] == "0"  # Slurm shows each process its own GPU alone
    assert run_process("train_process.sh", tmp_path, **SLURM, MASTER_ADDR="there", MASTER_PORT="5")[3:5] == [
        "there",
        "5",
    ]


def test_ranks_come_from_torchrun_inside_a_slurm_job(tmp_path: Path) -> None:
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "7"}
    assert run_process("work_process.sh", tmp_path, **SLURM, **torchrun) == ["1", "1", "2", "here", "7", "DATA"]


def test_the_place_to_meet_can_be_given_to_srun(pipeline: Pipeline) -> None:
    output = pipeline.run("--dry-run", LAUNCHER="srun", RENDEZVOUS="first:29500").stdout
    assert "--kill-on-bad-exit=1 env MASTER_ADDR=first MASTER_PORT=29500 bash" in output


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LAUNCHER": "mpirun"}, "LAUNCHER must be one of: torchrun srun, got 'mpirun'"),
        ({"LAUNCHER": "srun", "PATH": "/usr/bin:/bin"}, "LAUNCHER needs srun, which this machine does not have, got"),
        ({"NODES": "2"}, "RENDEZVOUS must be HOST:PORT of the first machine when LAUNCHER is torchrun and NODES is"),
        ({"RENDEZVOUS": "first"}, "RENDEZVOUS must be HOST:PORT, got 'first'"),
        ({"NODES": "0", "RENDEZVOUS": "a:1"}, "NODES must be a whole number over 0, got '0'"),
        ({"NODES": "2", "RENDEZVOUS": "a:1", "KD_PROCESSES": "2"}, "KD_PROCESSES must be 1 when a launcher starts"),
        ({"NODES": "2", "RENDEZVOUS": "a:1", "JOBS": "2"}, "JOBS must be 1 or auto when a launcher starts"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(pipeline: Pipeline, environment: dict[str, str], message: str) -> None:
    result = pipeline.run(status=1, **environment)
    assert result.stderr.startswith(f"try-en-cs: error: {message}")
    assert result.stderr.count("\n") == 1
    assert not pipeline.work.exists()


@pytest.mark.parametrize(
    ("settings", "device", "native", "autocast"),
    [
        ({}, "auto", True, "bfloat16"),
        ({}, "gpu", True, "bfloat16"),
        ({}, "auto", False, "none"),
        ({"FP16": "1"}, "auto", True, "none"),
        ({"AUTOCAST": "none"}, "auto", True, "none"),
    ],
)
def test_autocast_is_what_the_gpu_is_fast_with(
    pipeline: Pipeline, settings: dict[str, str], device: str, native: bool, autocast: str
) -> None:
    python = Path(pipeline.environment["FC_BIN"]) / "python"
    python.unlink()
    python.write_text(
        '#!/bin/sh\ncase "$2 $3" in "fairseq_compress.functional.autocast cuda") echo '
        f"{'bfloat16' if native else 'none'} ;; *is_available*) exit 0 ;; *) exit 1 ;; esac\n"
    )
    python.chmod(0o755)
    pipeline.set(**({"AUTOCAST": "auto"} | settings))
    commands = pipeline.dry_run(DEVICE=device)
    training, nbest = find(commands, "fairseq-train")[0], find(commands, "nbest")[0]
    assert value(training, "--autocast-dtype") == autocast
    assert "--cpu" not in training
    assert value(nbest, "--precision") == ("bfloat16" if autocast == "bfloat16" else "float32")
    assert value(nbest, "--device") == "cuda"
